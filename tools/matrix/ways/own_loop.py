"""A loop of one's own over torch's ``DataLoader``."""

from itertools import islice

from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import Trained, dataset
from torch.utils.data import DataLoader, DistributedSampler

import globidx


def restart(leg: Leg) -> None:
    """The epoch is begun anew."""
    trained = Trained()
    sampler = DistributedSampler(dataset(), seed=SEED)
    loader = DataLoader(dataset(), BATCH, sampler=sampler)
    first = trained.load(leg).get("epoch", 0)
    for epoch in range(first, EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            trained.step(batch)
            if leg.saw(epoch, batch):
                trained.save(leg, epoch=epoch)
                return


def skip(leg: Leg) -> None:
    """The steps that are done are skipped."""
    trained = Trained()
    sampler = DistributedSampler(dataset(), seed=SEED)
    loader = DataLoader(dataset(), BATCH, sampler=sampler)
    state = trained.load(leg)
    done = state.get("step", 0)
    for epoch in range(state.get("epoch", 0), EPOCHS):
        sampler.set_epoch(epoch)
        for step, batch in enumerate(islice(loader, done, None), done + 1):
            trained.step(batch)
            if leg.saw(epoch, batch):
                trained.save(leg, epoch=epoch, step=step)
                return
        done = 0


def ours(leg: Leg) -> None:
    """The manager keeps the record."""
    trained = Trained()
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = globidx.DataLoader(dataset(), BATCH, sampler=sampler)
    manager = globidx.CheckpointManager(leg.checkpoint, sampler)
    trained.load(leg)
    manager.restore()
    for epoch in range(sampler.epoch, EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            trained.step(batch)
            if leg.saw(epoch, batch):
                trained.save(leg)
                manager.save(1)
                return
