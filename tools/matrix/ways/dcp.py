"""``torch.distributed.checkpoint``, which saves a loader beside the model."""

from typing import Any

import torch.distributed.checkpoint as dcp
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import Trained, dataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import globidx


class Epoch:
    """The epoch of a loop, as an object with a state."""

    def __init__(self) -> None:
        self.number = 0

    def state_dict(self) -> dict[str, int]:
        """The number."""
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        self.number = state["number"]


def train(leg: Leg, trained: Trained, loader: Any, sampler: Any, saved: dict[str, Any]) -> None:
    """The loop, which saves ``saved`` and the model in one checkpoint, and loads them."""
    epoch = Epoch()
    state = {"model": trained.model, "epoch": epoch, **saved}
    if leg.resumes:
        dcp.load(state, checkpoint_id=leg.checkpoint)
    while epoch.number < EPOCHS:
        sampler.set_epoch(epoch.number)
        for batch in loader:
            trained.step(batch)
            if leg.saw(epoch.number, batch):
                dcp.save(state, checkpoint_id=leg.checkpoint)
                return
        epoch.number += 1


def stock(leg: Leg) -> None:
    """DCP keeps one rank's state under the loader's key."""
    trained = Trained()
    sampler = StatefulDistributedSampler(dataset(), seed=SEED)
    loader = StatefulDataLoader(dataset(), BATCH, sampler=sampler)
    train(leg, trained, loader, sampler, {"loader": loader})


def ours(leg: Leg) -> None:
    """The same, over our sampler."""
    trained = Trained()
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = StatefulDataLoader(dataset(), BATCH, sampler=sampler)
    train(leg, trained, loader, sampler, {"loader": loader})
