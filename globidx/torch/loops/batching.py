"""How a loader cuts a sampler's ids into batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch.utils.data

from globidx.core.generator import Moment
from globidx.errors import CommitError
from globidx.torch.loops.iterator import Resumable
from globidx.torch.loops.ledger import Ledger
from globidx.torch.loops.moments import DatedIds


class Batching(NamedTuple):
    """How a loader cuts ids into batches: ``size`` ids each, a smaller rest dropped or not.

    ``size`` is None where batches differ in size, and ``known`` False where another ``__iter__``
    than torch's cuts.
    """

    size: int | None
    drops: bool
    known: bool = True
    workers: int = 0

    @classmethod
    def of(cls, batch_sampler: Any, workers: int) -> Batching:
        """How ``batch_sampler`` cuts; without one every batch is a single id."""
        if batch_sampler is None:
            return cls(1, drops=False, workers=workers)
        # a subclass that is iterated as torch's is cuts as torch's does; any other may mean
        # anything by these names
        known = (
            getattr(type(batch_sampler), "__iter__", None) is torch.utils.data.BatchSampler.__iter__
        )
        size = getattr(batch_sampler, "batch_size", None)
        drops = bool(getattr(batch_sampler, "drop_last", False))
        is_size = known or (type(size) is int and size > 0)
        return cls(size if is_size else None, drops=drops, known=known, workers=workers)

    def batches(self, ids: int) -> int:
        """How many batches so many ids make.

        >>> Batching(4, drops=False).batches(10), Batching(4, drops=True).batches(10)
        (3, 2)
        """
        size = self.size or 1
        return ids // size if self.drops else -(-ids // size)

    def started(self, ids: int) -> int:
        """How many batches so many ids have begun, a smaller last one included."""
        return -(-ids // (self.size or 1))

    @property
    def smallest(self) -> int:
        """How many ids must be left for another batch."""
        # where it is not known how ids are cut, one id counts as another batch: a pass that was
        # thought to be over would lose it
        return self.size or 1 if self.drops and self.known else 1


class Source(Resumable, Protocol):
    """A sampler, as far as the check of its batches needs it."""

    _ledger: Ledger


class DrawnBatches:
    """A batch sampler that notes the ids of each batch it draws, and dates them.

    Batches must be the sampler's ids in their order; unless ``in_order`` says that they are, they
    are compared with a second iterator of the sampler.
    """

    def __init__(
        self, inner: Any, sampler: Source, *, in_order: bool, is_dated: bool = False
    ) -> None:
        self._inner, self._sampler = inner, sampler
        self._in_order, self._is_dated = in_order, is_dated
        self.ids: deque[list[int]] = deque()

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        # a new queue for each pass, because batches of an abandoned pass may still be drawn
        self.ids = deque()
        return self._draw(self.ids)

    def _draw(self, drawn: deque[list[int]]) -> Iterator[Any]:
        expected = None if self._in_order else self._sampler._ledger.iterate(self._sampler)
        for batch in self._inner:
            ids = list(map(int, batch)) if isinstance(batch, Iterable) else [int(batch)]
            if expected is not None and list(islice(expected, len(ids))) != ids:
                raise CommitError(
                    f"{type(self._inner).__name__} does not yield the ids of the order one after another, so "
                    "what is delivered is no prefix of its order and cannot be recorded; use a "
                    "batch sampler that only cuts the sequence into batches"
                )
            drawn.append(ids)
            yield self._dated(ids) if self._is_dated else batch

    def _dated(self, ids: list[int]) -> DatedIds:
        # the epoch is that of the pass: what is drawn was not delivered yet
        ledger = self._sampler._ledger
        return DatedIds(ids, Moment(ledger.tracker.seed, ledger.epoch))
