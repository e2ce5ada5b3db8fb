"""Lightning's Fabric."""

from itertools import islice
from typing import Any

import lightning
from lightning.fabric import Fabric
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import dataset, network, optimizer_of
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import globidx


class Loop:
    """A model and its optimizer under Fabric."""

    def __init__(self, leg: Leg) -> None:
        lightning.seed_everything(SEED, verbose=False)
        self.leg = leg
        self.fabric = Fabric(accelerator="cpu", devices=leg.world_size, strategy="ddp")
        self.fabric.launch()
        model = network()
        self.model, self.optimizer = self.fabric.setup(model, optimizer_of(model))

    def load(self, **state: Any) -> dict[str, Any]:
        """Load the checkpoint into ``state``, which is given back; as it is, if a run starts."""
        state = {"model": self.model, "optimizer": self.optimizer, **state}
        if self.leg.resumes:
            self.fabric.load(self.leg.checkpoint / "fabric.ckpt", state)
        return state

    def trains(self, epoch: int, batch: Any, state: dict[str, Any]) -> bool:
        """Train on a batch, and save ``state`` where the leg ends; whether it does not."""
        self.fabric.backward(self.model(batch[:, None]).mean())
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.leg.saw(epoch, batch):
            self.fabric.save(self.leg.checkpoint / "fabric.ckpt", state)
        return not self.leg.is_over


def skip(leg: Leg) -> None:
    """The steps that are done are skipped; Fabric's loader counts the epochs."""
    loop = Loop(leg)
    loader = loop.fabric.setup_dataloaders(DataLoader(dataset(), BATCH, shuffle=True))
    state = loop.load(epoch=0, step=0)
    for epoch in range(state["epoch"], EPOCHS):
        state["epoch"] = epoch
        for batch in islice(loader, state["step"], None):
            state["step"] += 1
            if not loop.trains(epoch, batch, state):
                return
        state["step"] = 0


def stateful(leg: Leg) -> None:
    """Fabric saves and loads the loader's state; the loop counts the epochs."""
    loop = Loop(leg)
    sampler = StatefulDistributedSampler(dataset(), seed=SEED)
    loader = StatefulDataLoader(dataset(), BATCH, sampler=sampler)
    state = loop.load(epoch=0, loader=loader)
    for epoch in range(state["epoch"], EPOCHS):
        state["epoch"] = epoch
        sampler.set_epoch(epoch)
        for batch in loader:
            if not loop.trains(epoch, batch, state):
                return


def ours(leg: Leg) -> None:
    """Fabric saves and loads the sampler's record."""
    loop = Loop(leg)
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = globidx.DataLoader(dataset(), BATCH, sampler=sampler, device=loop.fabric.device)
    state = loop.load(sampler=sampler)
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            if not loop.trains(epoch, batch, state):
                return
