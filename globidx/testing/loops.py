"""The ranks of a training loop, played one after the other in this process."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from globidx.core import validate
from globidx.errors import CommitError
from globidx.testing.batches import Ids, ids_of
from globidx.torch.loader import DataLoader
from globidx.torch.sampler import ResumableDistributedSampler

#: Makes the loader of one rank, given rank and world size.
MakeLoader = Callable[[int, int], Any]
#: Is shown each batch, with its ids and its epoch.
Watch = Callable[[int, Any, list[int]], None]
_END = object()


class Rank:
    """One rank: its loader, its sampler, and its loop."""

    def __init__(self, loader: Any, rank: int, world_size: int) -> None:
        self.loader, self.sampler = loader, sampler_of(loader)
        dealt = self.sampler.rank, self.sampler.num_replicas
        if dealt != (rank, world_size):
            raise AssertionError(
                f"make_loader({rank}, {world_size}) made the loader of rank {dealt[0]} of {dealt[1]}, "
                "so samples would be read by several ranks or by none; pass rank=rank and "
                "num_replicas=world_size to its ResumableDistributedSampler"
            )
        self._loop: Iterator[Any] = iter(())
        # why the sampler refused a commit by hand
        self.refused: CommitError | None = None

    def begin(self, epoch: int) -> Share:
        """Begin a loop over an epoch; return what this rank has left of it."""
        self.sampler.set_epoch(epoch)
        self._loop = iter(self.loader)
        # a copy draws, for what the loop draws twice would count as prefetched
        stream = list(copy.copy(self.sampler))
        padding = len(self.sampler) - self.sampler.num_valid
        return Share(stream, stream[len(stream) - padding :], [])

    def next(self) -> Any:
        """The next batch, or ``_END``; what the loop held until now counts."""
        # by next(), since a for statement that is left gives up its batch
        return next(self._loop, _END)

    def report(self, count: int) -> None:
        """Commit a batch by hand, unless the loader commits by itself."""
        if self.sampler._ledger.passes.has_loop:
            return
        try:
            self.sampler.commit(count)
        except CommitError as error:
            # which ids came too often is known at the end only
            self.refused = error


def sampler_of(loader: Any) -> ResumableDistributedSampler:
    """The resumable sampler of a loader: its ``sampler``, or that of its batch sampler."""
    for holder in (loader, getattr(loader, "batch_sampler", None)):
        sampler = getattr(holder, "sampler", None)
        if isinstance(sampler, ResumableDistributedSampler):
            return sampler
    raise TypeError(
        f"make_loader returned a {type(loader).__name__} without a ResumableDistributedSampler as its "
        ".sampler; return the loader, or give what wraps it that attribute"
    )


@dataclass
class Share:
    """One rank's part of an epoch: what its sampler had left, and the batches that it was handed.

    ``padding`` is the end of ``stream``: ids that another rank has, too.

    >>> Share([0, 2, 1], [1], [[0, 2], [1]]).without_padding()
    [[0, 2], []]
    """

    stream: list[int]
    padding: list[int]
    batches: list[list[int]]

    def without_padding(self) -> list[list[int]]:
        """The batches as they were handed out, less the padding as far as it came."""
        batches = [list(batch) for batch in self.batches]
        for id in self.padding:
            came = sum(batch.count(id) for batch in batches)
            if came and came >= self.stream.count(id):
                next(batch for batch in reversed(batches) if id in batch).remove(id)
        return batches


@dataclass
class Part:
    """What all ranks were handed of an epoch before they stopped, or until it ended."""

    epoch: int
    world_size: int
    shares: list[Share]
    ended: bool = False

    def count(self) -> Counter[int]:
        """How often each id was handed out, padding left out."""
        return Counter(
            id for share in self.shares for batch in share.without_padding() for id in batch
        )

    def left(self) -> Counter[int]:
        """How often each id was in the samplers' streams, padding left out."""
        return Counter(
            id
            for share in self.shares
            for id in share.stream[: len(share.stream) - len(share.padding)]
        )

    def global_batches(self) -> list[set[int]]:
        """The ids of each step, over all ranks, padding left out."""
        by_rank = [share.without_padding() for share in self.shares]
        steps = max(map(len, by_rank))
        return [
            set(chain(*(own[step] for own in by_rank if step < len(own)))) for step in range(steps)
        ]


class Job:
    """All ranks of one run, in lock-step."""

    def __init__(self, make_loader: MakeLoader, world_size: int, ids: Ids | None) -> None:
        world_size = validate.integer(world_size, "a world size", low=1)
        self.ranks = [
            Rank(make_loader(rank, world_size), rank, world_size) for rank in range(world_size)
        ]
        self._ids = ids

    @property
    def sampler(self) -> ResumableDistributedSampler:
        """The sampler of rank 0."""
        return self.ranks[0].sampler

    @property
    def loaders(self) -> list[Any]:
        """The loaders, by rank."""
        return [rank.loader for rank in self.ranks]

    @property
    def records_batches(self) -> bool:
        """Whether loaders record what each batch held, so that ids may come in any sequence."""
        return all(isinstance(loader, DataLoader) for loader in self.loaders)

    def raise_refused(self) -> None:
        """Raise a refusal of a commit that no lost or repeated id explains."""
        for rank in self.ranks:
            if rank.refused:
                raise rank.refused

    def play(
        self, epoch: int, watch: Watch | None = None, *, stop_after: int | None = None
    ) -> Part:
        """Loop over an epoch, or over its first batches; the loops then still hold the last one."""
        part = Part(epoch, len(self.ranks), [rank.begin(epoch) for rank in self.ranks])
        step = 0
        while not part.ended and step != stop_after:
            # a list, for every rank takes its step
            taken = [self._step(rank, part, watch) for rank in range(part.world_size)]
            part.ended = not any(taken)
            step += 1
        return part

    def _step(self, number: int, part: Part, watch: Watch | None) -> bool:
        rank = self.ranks[number]
        batch = rank.next()
        if batch is _END:
            return False
        ids = ids_of(batch, self._ids)
        if watch is not None:
            watch(part.epoch, batch, ids)
        rank.report(len(ids))
        part.shares[number].batches.append(ids)
        return True


def whole_epoch(sampler: ResumableDistributedSampler, epoch: int) -> Counter[int]:
    """How often each id is in an epoch, as one rank alone would draw it."""
    alone = ResumableDistributedSampler(
        sampler.dataset, 1, 0, seed=sampler.seed, order=sampler.order, tail="exact"
    )
    alone.skip(sampler.skipped)
    alone.reset()
    alone.set_epoch(epoch)
    return Counter(alone)


def counted(parts: Iterable[Part]) -> Counter[int]:
    """How often each id was handed out in several parts of one epoch."""
    return sum((part.count() for part in parts), Counter())
