"""The Well's trainer, with the lines of its page: killed after a save in mid-epoch, or run to its end.

torchrun the_well_job.py FOLDER [STOP]
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from processes import leave, meet
from recipe_jobs import note, without

with without("wandb", "matplotlib"):
    from the_well.benchmark.metrics import VRMSE
    from the_well.benchmark.trainer.training import Trainer
from the_well.data import WellDataModule, WellDataset


class Numbered(WellDataset):
    """Samples that say which they are."""

    def __getitem__(self, index):
        return {**super().__getitem__(index), "id": index}


class Watched(Trainer):
    """Notes the samples of each training step, and is killed behind a save in mid-epoch."""

    folder, stop, epoch = Path(sys.argv[1]), len(sys.argv) > 2, 0

    def rollout_model(self, model, batch, formatter, train=True):
        note(self.folder, dist.get_rank(), self.epoch, batch.pop("id").tolist())
        return super().rollout_model(model, batch, formatter, train)

    def train_one_epoch(self, epoch, dataloader):
        self.epoch = epoch
        return super().train_one_epoch(epoch, dataloader)

    def save_model(self, epoch, validation_loss, output_path):
        # its ranks write one file at once
        if dist.get_rank() == 0:
            super().save_model(epoch, validation_loss, output_path)
        meet()
        if self.stop:
            raise SystemExit(0)

    def validation_loop(self, dataloader, valid_or_test="valid", full=False, epoch=0):
        return 0.0, {}


def main():
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    folder = Watched.folder
    datamodule = WellDataModule(
        str(folder),
        "dummy",
        batch_size=5,
        train_dataset=Numbered,
        world_size=dist.get_world_size(),
        rank=dist.get_rank(),
        data_workers=0,
        boundary_return_type=None,
    )
    metadata = datamodule.train_dataset.metadata
    channels = metadata.n_fields + metadata.n_constant_fields
    model = torch.nn.parallel.DistributedDataParallel(
        torch.nn.Conv2d(channels, metadata.n_fields, 1)
    )
    checkpoint = folder / "recent.pt"
    trainer = Watched(
        str(folder),
        str(folder),
        str(folder),
        "channels_first_default",
        model,
        datamodule,
        torch.optim.SGD(model.parameters(), lr=1e-4),
        VRMSE(),
        epochs=2,
        checkpoint_frequency=0,
        val_frequency=1,
        rollout_val_frequency=1,
        max_rollout_steps=1,
        short_validation_length=1,
        make_rollout_videos=False,
        num_time_intervals=1,
        device=torch.device("cpu"),
        is_distributed=True,
        checkpoint_path=str(checkpoint) if checkpoint.exists() else "",
    )
    try:
        trainer.train()
    except SystemExit:
        pass


main()
leave()
