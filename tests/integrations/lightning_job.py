"""A job of Lightning that writes which ids each rank has trained and validated on, a line a batch.

``python lightning_job.py FOLDER NAME=JSON ...`` under torchrun: one fit for each name.
"""

import json
import logging
import os
import sys
import warnings
from importlib import import_module
from pathlib import Path

import torch

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.lightning import ResumableSamplerCallback

warnings.filterwarnings("ignore")


def make(name, **given):
    """Lightning by one of its two names, a module that notes ids, and what fit needs."""
    lightning = import_module(name)
    logging.getLogger(name).setLevel(logging.ERROR)

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.lr = 1e-6
            self.layer = torch.nn.Linear(1, 1)
            self.seen = []

        def note(self, kind, batch):
            self.seen.append([kind, self.current_epoch, batch.tolist()])

        def training_step(self, batch, index):
            self.note("train", batch)
            return self.layer(batch.float()[:, None]).mean()

        def validation_step(self, batch, index):
            self.note("sanity" if self.trainer.sanity_checking else "val", batch)

        def test_step(self, batch, index):
            self.note("test", batch)

        def on_train_batch_end(self, *_):
            stop = given.get("stop_at")
            if stop is not None and self.trainer.fit_loop.total_batch_idx + 1 == stop:
                self.trainer.save_checkpoint(given["save"])
                self.trainer.should_stop = True

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    return lightning, Model()


def loaders(samples, batch, val, workers=0, tail=None):
    """The training loader and, for ``val`` samples, one of validation with an exact tail."""
    train = ResumableDistributedSampler(range(samples), seed=7, tail=tail)
    loader = DataLoader(
        range(samples), batch, sampler=train, num_workers=workers, persistent_workers=workers > 0
    )
    exact = ResumableDistributedSampler(range(val), shuffle=False, tail="exact") if val else None
    return train, loader, exact and DataLoader(range(val), 4, sampler=exact)


def fit(folder, leg, **given):
    """Train as ``given`` says."""
    lightning, model = make(given.get("name", "lightning.pytorch"), **given)
    sampler, loader, val = loaders(
        given.get("samples", 203),
        given.get("batch", 4),
        given.get("val", 0),
        given.get("workers", 0),
        given.get("tail"),
    )
    keep = []
    if "kept" in given:
        path = Path(given["save"])
        keep = [
            lightning.callbacks.ModelCheckpoint(
                path.parent, path.stem, save_on_train_epoch_end=given["kept"]
            )
        ]
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=int(os.environ["WORLD_SIZE"]),
        strategy="ddp",
        callbacks=[ResumableSamplerCallback(sampler), *keep],
        enable_checkpointing=bool(keep),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **given["trainer"],
    )
    trainer.fit(model, loader, val, ckpt_path=given.get("resume"))
    rank = trainer.global_rank
    Path(folder, f"seen-{leg}-{rank}.json").write_text(json.dumps(model.seen))


if __name__ == "__main__":
    for fits in sys.argv[2:]:
        leg, _, text = fits.partition("=")
        fit(sys.argv[1], leg, **json.loads(text))
