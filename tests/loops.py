"""A sampler and its loader over a range of ids, for tests of training loops."""

from __future__ import annotations

import itertools

from globidx import DataLoader, ResumableDistributedSampler

#: How a loader reads: in the loop's thread, in two processes, or in two threads.
HOW = [0, 2, "threads"]


def reading(how):
    """The arguments of a ``globidx.DataLoader`` that reads so."""
    return {"num_workers": 2, "workers": "threads"} if how == "threads" else {"num_workers": how}


def made(n=41, batch=4, *, rank=0, world=1, workers=0, **arguments):
    """(sampler, loader) over range(n)."""
    sampler = ResumableDistributedSampler(range(n), world, rank, **{"shuffle": False} | arguments)
    return sampler, DataLoader(range(n), batch_size=batch, sampler=sampler, **reading(workers))


def done(sampler):
    """(epoch, ids committed in it), as a record would say."""
    state = sampler.state_dict()
    return state["epoch"], state["committed"]


def by_next(loader):
    """``range(len(loader))`` and ``next``, the iterator in a variable."""
    stream = iter(loader)
    return [next(stream) for _ in range(len(loader))]


def by_break(loader):
    """A break at the last batch."""
    batches, stream = [], enumerate(loader)
    for number, batch in stream:
        batches.append(batch)
        if number + 1 == len(loader):
            break
    return batches


#: Loops that take as many batches as ``len(loader)`` says.
LEN_LIMITED = [
    by_next,
    by_break,
    lambda loader: list(itertools.islice(loader, len(loader))),
    lambda loader: [batch for _, batch in zip(range(len(loader)), loader, strict=False)],
    lambda loader: [batch for batch, _ in zip(loader, range(len(loader)), strict=False)],
]
