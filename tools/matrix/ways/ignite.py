"""Ignite."""

from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import DeterministicEngine, Engine, Events
from ignite.handlers import Checkpoint, DiskSaver
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import dataset, network, optimizer_of
from torch.utils.data import DataLoader, DistributedSampler

import globidx


class Parts:
    """A model and its optimizer, and what else is in the checkpoint."""

    def __init__(self) -> None:
        idist.initialize("gloo")
        self.model = idist.auto_model(network())
        self.optimizer = idist.auto_optim(optimizer_of(self.model))
        self.saved: dict[str, Any] = {"model": self.model, "optimizer": self.optimizer}

    def load(self, leg: Leg) -> None:
        """Load the checkpoint, if there is one."""
        if leg.resumes:
            (path,) = leg.checkpoint.glob("*.pt")
            Checkpoint.load_objects(self.saved, checkpoint=torch.load(path, weights_only=False))

    def engine(self, leg: Leg, kind: type[Engine]) -> Engine:
        """An engine of that kind, which saves and stops where the leg ends."""

        def step(engine: Engine, batch: torch.Tensor) -> None:
            self.model(batch[:, None]).mean().backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
            leg.saw(engine.state.epoch - 1, batch)

        trainer = kind(step)
        save = Checkpoint(self.saved, DiskSaver(str(leg.checkpoint), require_empty=False))

        @trainer.on(Events.ITERATION_COMPLETED)
        def save_and_stop(engine: Engine) -> None:
            if leg.is_over:
                save(engine)
                engine.terminate()

        return trainer


def stock(leg: Leg) -> None:
    """The engine skips the steps that its state has."""
    torch.manual_seed(SEED)
    parts = Parts()
    sampler = DistributedSampler(dataset(), seed=SEED)
    trainer = parts.engine(leg, DeterministicEngine)
    trainer.add_event_handler(
        Events.EPOCH_STARTED, lambda engine: sampler.set_epoch(engine.state.epoch - 1)
    )
    parts.saved["trainer"] = trainer
    parts.load(leg)
    trainer.run(DataLoader(dataset(), BATCH, sampler=sampler), max_epochs=EPOCHS)


def ours(leg: Leg) -> None:
    """The engine is told what the sampler's record has."""
    parts = Parts()
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = globidx.DataLoader(dataset(), BATCH, sampler=sampler)
    parts.saved["sampler"] = sampler
    parts.load(leg)
    trainer = parts.engine(leg, Engine)
    whole = loader.steps_per_epoch
    trainer.load_state_dict(
        {
            "iteration": EPOCHS * whole - loader.steps_left(EPOCHS),
            "epoch_length": whole,
            "max_epochs": EPOCHS,
        }
    )
    trainer.run(loader)
