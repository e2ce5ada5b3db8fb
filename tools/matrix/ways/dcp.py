"""``torch.distributed.checkpoint``, which saves a loader beside the model."""

import torch.distributed.checkpoint as dcp
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import Trained, dataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import globidx
from globidx.integrations.dcp import ResumableState


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


def stock(leg: Leg) -> None:
    """DCP keeps one rank's state under the loader's key."""
    trained = Trained()
    sampler = StatefulDistributedSampler(dataset(), seed=SEED)
    loader = StatefulDataLoader(dataset(), BATCH, sampler=sampler)
    epoch = Epoch()
    state = {"model": trained.model, "epoch": epoch, "loader": loader}
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


def ours(leg: Leg) -> None:
    """The record of all ranks is one entry of the state."""
    trained = Trained()
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = globidx.DataLoader(dataset(), BATCH, sampler=sampler)
    state = {"model": trained.model, "progress": ResumableState(sampler)}
    if leg.resumes:
        dcp.load(state, checkpoint_id=leg.checkpoint)
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            trained.step(batch)
            if leg.saw(epoch, batch):
                dcp.save(state, checkpoint_id=leg.checkpoint)
                return
