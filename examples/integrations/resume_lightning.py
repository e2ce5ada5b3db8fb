#!/usr/bin/env python3
"""A Lightning run that stops in mid-epoch, and goes on with any number of processes.

``python examples/integrations/resume_lightning.py RUN 2 20`` trains on 2 processes up to step 20;
``python examples/integrations/resume_lightning.py RUN 1`` goes on from there on 1, for 2 epochs.
"""

import sys
from pathlib import Path

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.lightning import ResumableSamplerCallback


class Squares(lightning.LightningModule):
    """Learns x -> x * x, and counts the samples of an epoch."""

    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 16), torch.nn.ReLU(), torch.nn.Linear(16, 1))
        # part of every checkpoint, as the samples that it counts are
        self.register_buffer("samples", torch.zeros(1))

    def training_step(self, batch, index):
        x = batch.float()[:, None] / 500
        self.samples += self.all_gather(torch.tensor(len(batch))).sum()
        return torch.nn.functional.mse_loss(self.net(x), x * x)

    def on_train_epoch_end(self):
        if self.trainer.is_global_zero:
            print(f"epoch {self.current_epoch}: {int(self.samples)} samples", flush=True)
        self.samples.zero_()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.01)


def main(folder, processes, stop=-1):
    dataset = range(500)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=8, sampler=sampler)
    last = Path(folder, "last.ckpt")
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=processes,
        max_epochs=2,
        max_steps=stop,
        callbacks=[
            ResumableSamplerCallback(sampler),
            ModelCheckpoint(folder, "last", every_n_train_steps=20, enable_version_counter=False),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Squares(), loader, ckpt_path=last if last.exists() else None)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
    if torch.distributed.is_initialized():
        torch.distributed.monitored_barrier()  # torch's threads let go of all tensors before the exit
        torch.distributed.destroy_process_group()
