"""Lightning's Trainer."""

import warnings
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import dataset, network, optimizer_of
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import globidx
from globidx.integrations.lightning import ResumableSamplerCallback


class Module(lightning.LightningModule):
    """The model, which notes what it is trained on."""

    def __init__(self, leg: Leg) -> None:
        super().__init__()
        self.leg, self.network = leg, network()

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:  # noqa: ARG002
        """Note the batch."""
        self.leg.saw(self.current_epoch, batch)
        return self.network(batch[:, None]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """SGD."""
        return optimizer_of(self.network)


class WithLoader(Module):
    """The same with torchdata's loader, made when the ranks are known."""

    def train_dataloader(self) -> StatefulDataLoader:
        """Lightning leaves a distributed sampler as it is."""
        sampler = StatefulDistributedSampler(dataset(), seed=SEED)
        return StatefulDataLoader(dataset(), BATCH, sampler=sampler)


class SaveAndStop(lightning.Callback):
    """What a time limit does: a checkpoint after a step, and the end."""

    def __init__(self, leg: Leg) -> None:
        self.leg = leg

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        """Save after the step, and stop."""
        if self.leg.is_over:
            trainer.save_checkpoint(self.leg.checkpoint / "last.ckpt")
            trainer.should_stop = True


def fit(leg: Leg, model: Module, *loader: DataLoader, callbacks: Sequence[Any] = ()) -> None:
    """Train from the checkpoint, if there is one."""
    warnings.filterwarnings("ignore")
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=leg.world_size,
        strategy="ddp",
        max_epochs=EPOCHS,
        callbacks=[*callbacks, SaveAndStop(leg)],
        enable_checkpointing=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=leg.checkpoint,
    )
    last = leg.checkpoint / "last.ckpt" if leg.resumes else None
    trainer.fit(model, *loader, ckpt_path=last)


def stock(leg: Leg) -> None:
    """A loader that Lightning gives a distributed sampler."""
    lightning.seed_everything(SEED, verbose=False)
    fit(leg, Module(leg), DataLoader(dataset(), BATCH, shuffle=True))


def stateful(leg: Leg) -> None:
    """A loader whose state Lightning saves and loads."""
    fit(leg, WithLoader(leg))


def ours(leg: Leg) -> None:
    """The callback."""
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = globidx.DataLoader(dataset(), BATCH, sampler=sampler)
    fit(leg, Module(leg), loader, callbacks=[ResumableSamplerCallback(sampler)])
