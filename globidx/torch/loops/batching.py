"""How a loader cuts a sampler's ids into batches."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch.utils.data

from globidx.core.generator import Moment
from globidx.core.progress.limits import MAX_PASSED_OVER
from globidx.errors import CommitError
from globidx.torch.loops.foreseen import Foreseen, ForeseenIds, announce, foresight_of
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


#: The ids of a batch, and which indices of its rank's stream they are; None if batches follow it.
DrawnBatch = tuple[list[int], list[int] | None]


class DrawnBatches:
    """A batch sampler that notes the ids of each batch it draws, and dates them.

    Unless it yields ids ``in_order``, those of the sampler one after another, it may regroup them:
    then they are looked up in a second iterator of the sampler. Where a ``dataset`` has a use for it,
    ids know which batches come next, as ``batching`` cuts them. If the thread that draws them also
    reads them (``reads``), the dataset is told here.
    """

    def __init__(
        self,
        inner: Any,
        sampler: Source,
        *,
        in_order: bool,
        is_dated: bool = False,
        dataset: Any = None,
        batching: Batching | None = None,
        reads: bool = False,
    ) -> None:
        self._inner, self._sampler, self._reads = inner, sampler, reads
        self._in_order, self._is_dated = in_order, is_dated
        self._dataset, self._batching = dataset, batching
        self.drawn: deque[DrawnBatch] = deque()

    def __len__(self) -> int:
        return len(self._inner)

    def __iter__(self) -> Iterator[Any]:
        # a new queue for each pass, because batches of an abandoned pass may still be drawn
        self.drawn = deque()
        return self._draw(self.drawn)

    def _draw(self, drawn: deque[DrawnBatch]) -> Iterator[Any]:
        window = None if self._in_order else self._window()
        at, foreseen = None, self._foreseen()
        for batch in self._inner:
            if window is not None:
                ids, at = window.look_up(batch)
            else:
                # a loader without batches draws single ids
                ids = list(map(int, batch)) if isinstance(batch, Iterable) else [int(batch)]
            drawn.append((ids, at))
            yield self._given(batch, ids, foreseen)

    def _given(self, batch: Any, ids: list[int], foreseen: Foreseen | None) -> Any:
        """A batch as the dataset is asked for it."""
        if foreseen is None:
            return DatedIds(ids, self._moment()) if self._is_dated else batch
        coming = foreseen.after(ids, self._sampler._ledger.coming)
        given = ForeseenIds(ids, self._moment(), coming)
        if self._reads:
            announce(self._dataset, given)
        return given

    def _foreseen(self) -> Foreseen | None:
        """What tells the dataset which batches come next; None for one that has no use for it."""
        batching, count = self._batching, foresight_of(self._dataset)
        if not count or not self._in_order or batching is None or batching.size is None:
            return None
        return Foreseen(batching.size, lanes=max(1, batching.workers), count=count)

    def _window(self) -> Window:
        return Window(self._sampler._ledger.issue(self._sampler), type(self._inner).__name__)

    def _moment(self) -> Moment:
        # the epoch is that of the pass: what is drawn was not delivered yet
        ledger = self._sampler._ledger
        return Moment(ledger.tracker.seed, ledger.epoch)


class Window:
    """The ids of a stream that a batch sampler has passed over, until it yields them.

    Parameters
    ----------
    issued
        The ids of the stream, each with its index.
    name
        Whose batches they are, for errors.

    Examples
    --------
    >>> window = Window(zip([7, 3, 7, 5], range(4)), "Sorting")
    >>> window.look_up([3]), window.look_up([5, 7])
    (([3], [1]), ([5, 7], [3, 0]))
    """

    def __init__(self, issued: Iterator[tuple[int, int]], name: str) -> None:
        self._issued, self._name = issued, name
        # an id that an order draws twice, or that pads a stream, has several indices
        self._waiting: dict[int, list[int]] = {}
        self._passed_over = 0

    def look_up(self, batch: Any) -> tuple[list[int], list[int]]:
        """The ids of a batch and their indices, each the first that was not drawn before.

        CommitError if there is none, if too many others come before it, or if it is no id.
        """
        ids = _ids(batch, self._name)
        return ids, [self._take(id) for id in ids]

    def _take(self, wanted: int) -> int:
        while wanted not in self._waiting:
            if self._passed_over > MAX_PASSED_OVER:
                raise CommitError(
                    f"{self._name} yields the id {wanted} before more than {MAX_PASSED_OVER} others that its sampler "
                    "yields first, or yields an id that its sampler does not: more than a record can hold; regroup "
                    "ids within windows of the sampler, and leave samples out with sampler.skip(ids)"
                )
            id, index = next(self._issued, (None, None))
            if id is None or index is None:
                raise CommitError(
                    f"{self._name} yields the id {wanted} once more than its sampler does in what is left of the "
                    "epoch, so it cannot be recorded; a batch sampler must give each id that "
                    "iter(batch_sampler.sampler) yields to one batch: to draw samples more often use orders.Weighted, "
                    "and for the steps of a rollout use windows, which are one sample"
                )
            self._waiting.setdefault(id, []).append(index)
            self._passed_over += 1
        indices = self._waiting[wanted]
        index = indices.pop(0)
        if not indices:
            del self._waiting[wanted]
        self._passed_over -= 1
        return index


def _ids(batch: Any, name: str) -> list[int]:
    try:
        return list(map(_id, batch)) if isinstance(batch, Iterable) else [_id(batch)]
    except TypeError:
        raise CommitError(
            f"{name} yields {batch!r:.80}, but a batch must be a list of sample ids: of anything else in it nobody "
            "could say which samples were delivered; yield ids alone, and let the dataset make the rest of them, "
            "transform(sample, rng) what is random for a sample, and globidx.batch_rng(sampler) what is for a batch"
        ) from None


def _id(element: Any) -> int:
    # True is an int, too, and stands for a mode
    if isinstance(element, bool):
        raise TypeError
    return operator.index(element)
