"""Accelerate."""

from collections.abc import Callable
from typing import Any

from accelerate import Accelerator, DataLoaderConfiguration
from accelerate.utils import set_seed
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import dataset, network, optimizer_of
from torch.utils.data import DataLoader

import globidx
from globidx.integrations import accelerate as plug


class Place:
    """How far a loop has come, as Accelerate's guide keeps it: registered for checkpointing."""

    def __init__(self) -> None:
        self.epoch = self.step = 0

    def state_dict(self) -> dict[str, int]:
        """Epoch and steps of it."""
        return vars(self)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from there."""
        vars(self).update(state)


class Loop:
    """A model, its optimizer, and how far they have come, under an accelerator."""

    def __init__(self, **loading: bool) -> None:
        set_seed(SEED)
        self.accelerator = Accelerator(
            cpu=True, dataloader_config=DataLoaderConfiguration(**loading)
        )
        model = network()
        self.model, self.optimizer = self.accelerator.prepare(model, optimizer_of(model))
        self.place = Place()
        self.accelerator.register_for_checkpointing(self.place)

    def run(self, leg: Leg, loader: Any, rest_after: Callable[[int], Any]) -> None:
        """Train; ``rest_after`` so many steps is what is left of the resumed epoch."""
        if leg.resumes:
            self.accelerator.load_state(leg.checkpoint)
        first, done = self.place.epoch, self.place.step
        for epoch in range(first, EPOCHS):
            resumed = leg.resumes and epoch == first
            loader.set_epoch(epoch)
            for step, batch in enumerate(
                rest_after(done) if resumed else loader, 1 + done * resumed
            ):
                self.accelerator.backward(self.model(batch[:, None]).mean())
                self.optimizer.step()
                self.optimizer.zero_grad()
                if leg.saw(epoch, batch):
                    self.place.epoch, self.place.step = epoch, step
                    self.accelerator.save_state(leg.checkpoint)
                    return


def skip(leg: Leg) -> None:
    """The steps that are done are skipped."""
    loop = Loop(use_seedable_sampler=True)
    loader = loop.accelerator.prepare(DataLoader(dataset(), BATCH, shuffle=True))
    loop.run(leg, loader, lambda done: loop.accelerator.skip_first_batches(loader, done))


def stateful(leg: Leg) -> None:
    """Accelerate saves and loads the loader's state."""
    loop = Loop(use_seedable_sampler=True, use_stateful_dataloader=True)
    loader = loop.accelerator.prepare(DataLoader(dataset(), BATCH, shuffle=True))
    loop.run(leg, loader, lambda _: loader)


def ours(leg: Leg) -> None:
    """Accelerate saves and loads the sampler's record."""
    loop = Loop()
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = plug.prepare(loop.accelerator, globidx.DataLoader(dataset(), BATCH, sampler=sampler))
    loop.run(leg, loader, lambda _: loader)
