"""torchdata's ``StatefulDataLoader``."""

import torch
from matrix.leg import BATCH, EPOCHS, SEED, Leg
from matrix.training import Trained, dataset
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

import globidx


def stock(leg: Leg) -> None:
    """Each rank saves its loader's state, and loads it again."""
    trained = Trained()
    sampler = StatefulDistributedSampler(dataset(), seed=SEED)
    loader = StatefulDataLoader(dataset(), BATCH, sampler=sampler)
    first = trained.load(leg).get("epoch", 0)
    if leg.resumes:
        own = leg.checkpoint / f"loader-{leg.rank}.pt"
        path = own if own.exists() else leg.checkpoint / "loader-0.pt"
        loader.load_state_dict(torch.load(path, weights_only=False))
    for epoch in range(first, EPOCHS):
        sampler.set_epoch(epoch)
        for batch in loader:
            trained.step(batch)
            if leg.saw(epoch, batch):
                torch.save(loader.state_dict(), leg.checkpoint / f"loader-{leg.rank}.pt")
                trained.save(leg, epoch=epoch)
                return


def ours(leg: Leg) -> None:
    """The loop reports each batch, and the manager keeps the record."""
    trained = Trained()
    sampler = globidx.ResumableDistributedSampler(dataset(), seed=SEED)
    loader = StatefulDataLoader(dataset(), BATCH, sampler=sampler)
    manager = globidx.CheckpointManager(leg.checkpoint, sampler)
    trained.load(leg)
    manager.restore()
    for epoch in range(sampler.epoch, EPOCHS):
        for batch in loader:
            trained.step(batch)
            sampler.commit(len(batch))
            if leg.saw(epoch, batch):
                trained.save(leg)
                manager.save(1)
                return
