"""A job of Composer, as docs/howto/trainers/composer.md has it, that is saved and resumed.

python -m integrations.legs composer_job FOLDER
"""

import torch
from composer import ComposerModel, Trainer
from integrations.legs import BATCH, EPOCHS, SAMPLES
from torch.utils.data import Dataset

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.composer import ResumableSamplerCallback


class Samples(Dataset):
    def __len__(self):
        return SAMPLES

    def __getitem__(self, id):
        return torch.tensor([float(id)])


class Model(ComposerModel):
    def __init__(self, seen):
        super().__init__()
        self.inner = torch.nn.Linear(1, 1)
        self.seen, self.state = [seen], None

    def forward(self, batch):
        self.seen[0].note(int(self.state.timestamp.epoch), batch.flatten())
        return self.inner(batch)

    def loss(self, outputs, batch):
        return outputs.mean()


def leg(folder, stop_at, seen):
    sampler = ResumableDistributedSampler(Samples(), seed=7)
    model = Model(seen)
    trainer = Trainer(
        model=model,
        train_dataloader=DataLoader(sampler.dataset, BATCH, sampler=sampler),
        optimizers=torch.optim.SGD(model.parameters(), lr=1e-9),
        max_duration=f"{EPOCHS}ep",
        callbacks=[ResumableSamplerCallback(sampler)],
        device="cpu",
        progress_bar=False,
        load_path=str(folder / "saved.pt") if stop_at is None else None,
    )
    model.state = trainer.state
    trainer.fit(duration=f"{stop_at}ba" if stop_at else None)
    if stop_at:
        trainer.save_checkpoint(str(folder / "saved.pt"))
    trainer.close()
