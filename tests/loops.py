"""A sampler and its loader over a range of ids, for tests of training loops."""

from __future__ import annotations

from globidx import DataLoader, ResumableDistributedSampler


def made(n=41, batch=4, *, rank=0, world=1, workers=0, **arguments):
    """(sampler, loader) over range(n)."""
    sampler = ResumableDistributedSampler(range(n), world, rank, **{"shuffle": False} | arguments)
    return sampler, DataLoader(range(n), batch_size=batch, sampler=sampler, num_workers=workers)


def done(sampler):
    """(epoch, ids committed in it), as a record would say."""
    state = sampler.state_dict()
    return state["epoch"], state["committed"]


def by_next(loader):
    """``range(len(loader))`` and ``next``, the iterator in a variable."""
    stream = iter(loader)
    return [next(stream) for _ in range(len(loader))]
