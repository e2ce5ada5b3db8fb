"""The batches that come next, and the datasets that are told of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch.utils.data

from globidx.core.datasets.inner_ids import inner_ids
from globidx.core.datasets.known import nested_datasets
from globidx.core.generator import Moment
from globidx.torch.loops.moments import DatedIds


class Foreseen:
    """The batches that follow one another, ``size`` ids each, as they will be drawn.

    Of each ``lanes``-th of them, which one worker reads, as many are told as hold ``count`` ids.
    Nothing is drawn for that. What turns out otherwise ends it, for it is a help and no more.

    Examples
    --------
    >>> foreseen = Foreseen(2, lanes=2, count=4)
    >>> foreseen.after([7, 3], lambda: iter([7, 3, 5, 0, 1, 4, 8, 2, 6, 9, 11]))
    [[1, 4], [6, 9]]
    >>> foreseen.after([5, 0], iter)
    [[8, 2], [11]]
    >>> foreseen.after([1, 3], iter), foreseen.after([8, 2], iter)
    ([], [])
    """

    def __init__(self, size: int, *, lanes: int, count: int) -> None:
        self._size, self._lanes = size, lanes
        self._depth = max(2, -(-count // size))
        self._ids: Iterator[int] | None = None
        self._next: deque[list[int]] = deque()
        self._is_over = False

    def after(
        self, drawn: Sequence[int], coming: Callable[[], Iterator[int]]
    ) -> Sequence[Sequence[int]]:
        """The batches after the one that was ``drawn``; ``coming`` begins the ids with the first."""
        if self._ids is None:
            # only now, when the pass has begun
            self._ids = coming()
        while not self._is_over and len(self._next) <= self._lanes * self._depth:
            batch = list(islice(self._ids, self._size))
            if not batch:
                break
            self._next.append(batch)
        if not self._next or self._next.popleft() != drawn:
            self._is_over = True
            self._next.clear()
        return list(islice(self._next, self._lanes - 1, None, self._lanes))


class ForeseenIds(DatedIds):
    """The ids of a batch, and in ``coming`` those of the batches that the same worker will most likely read next.

    A worker process tells its dataset of them as it gets them: it reads them at once.
    """

    def __init__(
        self, ids: Sequence[int], moment: Moment, coming: Sequence[Sequence[int]] = ()
    ) -> None:
        super().__init__(ids, moment)
        self.coming = coming

    def __reduce__(self) -> tuple[Any, ...]:
        return _handed, (list(self), self.moment, self.coming)


def foresight_of(dataset: Any) -> int:
    """How many ids beyond a batch a dataset, or one inside it, has a use for."""
    return max(map(_foresight, nested_datasets(dataset)))


def announce(dataset: Any, ids: ForeseenIds) -> None:
    """Tell the datasets in one, before any of them is read, what this thread reads of each now and next."""
    for one, batches in inner_ids(dataset, [ids, *ids.coming], _foresight):
        one.foresee(batches, ids.moment)


def announced(dataset: Any, fetch: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``fetch``, in whatever thread, of ids that are announced before."""

    def fetched(ids: Any) -> Any:
        if isinstance(ids, ForeseenIds):
            announce(dataset, ids)
        return fetch(ids)

    return fetched


def _foresight(dataset: Any) -> int:
    # the name may mean something else in a class that nobody can tell anything
    return getattr(dataset, "foresight", 0) if hasattr(dataset, "foresee") else 0


def _handed(ids: list[int], moment: Moment, coming: Sequence[Sequence[int]]) -> ForeseenIds:
    """The ids as a worker process is given them."""
    given, worker = ForeseenIds(ids, moment, coming), torch.utils.data.get_worker_info()
    if worker is not None:
        announce(worker.dataset, given)
    return given
