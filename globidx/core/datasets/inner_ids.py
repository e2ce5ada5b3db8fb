"""Which samples of the datasets inside a wrapper its own samples are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.datasets.known import DEEPEST, joined_in, selected_in

Batches = Sequence[Sequence[int]]


def inner_ids(
    dataset: Any, batches: Batches, is_wanted: Callable[[Any], object]
) -> list[tuple[Any, Batches]]:
    """The wanted datasets in one, each with the ids of its samples that batches of the outer one take.

    A batch that takes none of a dataset is empty there. One that is wanted is not looked into, and
    one that lies there twice is told once. Wrappers are those that ``known`` knows: a
    concatenation, a selection, and what has ``same_ids_as``; the others hide what is in them.

    >>> from types import SimpleNamespace as Wrapper
    >>> class Subset(Wrapper):
    ...     __len__ = lambda self: len(self.indices)
    >>> numbers, letters = range(4), "abc"
    >>> some = Subset(dataset=letters, indices=[2, 0])
    >>> both = Wrapper(datasets=[numbers, some], cumulative_sizes=[4, 6])
    >>> inner_ids(both, [[1, 4], [5, 3, 4]], lambda one: one in (numbers, letters))
    [(range(0, 4), [[1], [3]]), ('abc', [[2], [0, 2]])]
    """
    if is_wanted(dataset):
        return [(dataset, batches)]
    sizes = [len(batch) for batch in batches]
    drawn = _Drawn(
        np.fromiter((id for batch in batches for id in batch), np.int64, sum(sizes)),
        np.repeat(np.arange(len(sizes)), sizes),
    )
    found: dict[int, tuple[Any, list[_Drawn]]] = {}
    for one, part in _walk(dataset, drawn, is_wanted):
        found.setdefault(id(one), (one, []))[1].append(part)
    return [(one, _cut(parts, len(sizes))) for one, parts in found.values()]


class _Drawn(NamedTuple):
    """Ids, and the number of the batch that each is of."""

    ids: NDArray[np.int64]
    numbers: NDArray[np.intp]

    def where(self, chosen: NDArray[np.bool_]) -> _Drawn:
        return _Drawn(self.ids[chosen], self.numbers[chosen])


def _walk(
    dataset: Any, drawn: _Drawn, is_wanted: Callable[[Any], object], depth: int = 0
) -> Iterator[tuple[Any, _Drawn]]:
    if is_wanted(dataset):
        yield dataset, drawn
    elif depth < DEEPEST:
        for one, part in _inside(dataset, drawn):
            yield from _walk(one, part, is_wanted, depth + 1)


def _inside(dataset: Any, drawn: _Drawn) -> Iterator[tuple[Any, _Drawn]]:
    """The datasets right inside a wrapper, and what is drawn of each."""
    if (same := getattr(dataset, "same_ids_as", None)) is not None:
        yield same, drawn
    elif (parts := joined_in(dataset)) is not None:
        start = 0
        for part in parts:
            stop = start + len(part)
            own = drawn.where((drawn.ids >= start) & (drawn.ids < stop))
            yield part, own._replace(ids=own.ids - start)
            start = stop
    elif (selected := selected_in(dataset)) is not None:
        indices, source = selected
        own = drawn.where((drawn.ids >= 0) & (drawn.ids < len(indices)))
        # a list may be long: no copy of it
        taken = (
            [indices[place] for place in own.ids.tolist()]
            if isinstance(indices, (list, tuple, range))
            else np.asarray(indices)[own.ids]
        )
        # what are no ids of it is told by whoever reads it
        with suppress(TypeError, ValueError, IndexError):
            own = own._replace(ids=validate.integers(taken, "sample id", len(source)))
            yield source, own


def _cut(parts: Sequence[_Drawn], count: int) -> Batches:
    """The ids of each of ``count`` batches."""
    ids, numbers = (np.concatenate(some) for some in zip(*parts, strict=True))
    order = np.argsort(numbers, kind="stable")
    ends = np.searchsorted(numbers[order], np.arange(1, count))
    return [some.tolist() for some in np.split(ids[order], ends)]
