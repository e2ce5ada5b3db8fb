"""Which chunks hold what is taken along an axis, which of their elements, and where those belong.

All functions are about one axis, or about the bytes of one row.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

#: What is taken along an axis: evenly ascending elements, any elements in a sequence, or one
#: element, which leaves no axis.
Taken = range | tuple[int, ...] | int
Index = slice | NDArray[np.int64] | int


class Piece(NamedTuple):
    """What chunk ``number`` of an axis holds of what is taken.

    They are its elements ``inside``, and belong at ``region`` of the result; None where the result
    has no such axis.
    """

    number: int
    inside: Index
    region: slice | NDArray[np.int64] | None


class Slab(NamedTuple):
    """Elements ``[start, stop)`` of an axis; of these, those ``inside`` belong at ``region``."""

    start: int
    stop: int
    inside: Index
    region: slice | NDArray[np.int64] | None


def pieces(taken: Taken, length: int) -> list[Piece]:
    """The chunks of ``length`` elements that are touched, and what is taken of each.

    >>> for piece in pieces(range(2, 9, 2), 4): print(*piece)
    0 slice(2, 3, 1) slice(0, 1, 1)
    1 slice(0, 3, 2) slice(1, 3, 1)
    2 slice(0, 1, 1) slice(3, 4, 1)
    >>> for piece in pieces((9, 3, 8), 4): print(*piece)
    0 slice(3, 4, 1) slice(1, 2, 1)
    2 slice(1, None, -1) slice(0, 3, 2)
    >>> pieces(9, 4)
    [Piece(number=2, inside=1, region=None)]
    """
    if isinstance(taken, int):
        return [Piece(taken // length, taken % length, None)]
    if isinstance(taken, range):
        return _of_range(taken, length)
    elements = np.array(taken, np.int64)
    return [
        Piece(number, as_index(elements[places] % length), as_index(places))
        for number, places in _grouped(elements // length)
    ]


def slabs(taken: Taken, length: int) -> list[Slab]:
    """The fewest stretches that hold what is taken, where an axis is read ``length`` elements at once.

    Whatever lies between elements of one chunk, or of neighbouring ones, is read with them, since
    it is decoded anyway.

    >>> for slab in slabs((9, 3, 1, 4), 4): print(*slab)
    1 10 [8 2 0 3] slice(0, 4, 1)
    >>> for slab in slabs((9, 3, 1), 4): print(*slab)
    1 4 slice(2, None, -2) slice(1, 3, 1)
    9 10 slice(0, 1, 1) slice(0, 1, 1)
    """
    if isinstance(taken, int):
        return [Slab(taken, taken + 1, 0, None)]
    if isinstance(taken, range) and taken.step <= length:
        # it leaves out no chunk
        return [Slab(taken[0], taken[-1] + 1, slice(0, None, taken.step), slice(0, len(taken), 1))]
    elements = _elements(taken)
    touched, which = np.unique(elements // length, return_inverse=True)
    begins = np.diff(touched, prepend=touched[:1]) > 1
    stretch = np.cumsum(begins, dtype=np.int64)[which.ravel()]
    found = []
    for _, places in _grouped(stretch):
        some = elements[places]
        start = int(some.min())
        found.append(Slab(start, int(some.max()) + 1, as_index(some - start), as_index(places)))
    return found


def byte_runs(
    taken: Sequence[Taken], shape: Sequence[int], itemsize: int, gap: int
) -> NDArray[np.int64]:
    """The bytes ``[start, stop)`` of a row of ``shape`` that hold what is taken, ascending.

    Runs with at most ``gap`` bytes between them are one: to read those costs less than another
    call.

    >>> byte_runs([(3, 1), range(0, 5)], (4, 5), 2, gap=0)
    array([[10, 20],
           [30, 40]])
    >>> byte_runs([(3, 1), range(0, 5)], (4, 5), 2, gap=10)
    array([[10, 40]])
    """
    cut = [one != range(size) for one, size in zip(taken, shape, strict=True)]
    last = max((axis for axis, is_cut in enumerate(cut) if is_cut), default=-1)
    starts, stops = np.zeros(1, np.int64), np.full(1, prod(shape) * itemsize, np.int64)
    for axis in range(last + 1):
        width = prod(shape[axis + 1 :]) * itemsize
        elements = np.unique(_elements(taken[axis]))
        if axis == last:
            # neighbours are one run
            new = np.flatnonzero(np.diff(elements, prepend=elements[:1] - 2) != 1)
            ends = elements[np.append(new[1:], len(elements)) - 1] + 1
            stops = (starts[:, None] + ends * width).ravel()
            elements = elements[new]
        starts = (starts[:, None] + elements * width).ravel()
    is_apart = starts[1:] - stops[:-1] > gap
    return np.stack([starts[np.append(True, is_apart)], stops[np.append(is_apart, True)]], axis=1)


def as_index(elements: NDArray[np.int64]) -> slice | NDArray[np.int64]:
    """Elements as a slice if they are evenly spaced, which numpy copies several times faster."""
    first, last = int(elements[0]), int(elements[-1])
    step = int(elements[1]) - first if len(elements) > 1 else 1
    if step == 0 or (len(elements) > 2 and (np.diff(elements) != step).any()):
        return elements
    stop = last + (1 if step > 0 else -1)
    # numpy would count a stop of -1 from the end
    return slice(first, None if stop < 0 else stop, step)


def take(rows: NDArray[Any], insides: Sequence[Index]) -> NDArray[Any]:
    """Of rows, axis 0, what an index along each other axis takes; a view where no index is an array."""
    apart = [isinstance(inside, np.ndarray) for inside in insides]
    if not any(apart):
        return rows[(slice(None), *insides)]
    # one axis after another: numpy takes several arrays for the coordinates of points
    basic = [slice(None) if isinstance(inside, np.ndarray) else inside for inside in insides]
    rows, axis = rows[(slice(None), *basic)], 1
    for inside in insides:
        if isinstance(inside, np.ndarray):
            rows = rows.take(inside, axis=axis)
        axis += not isinstance(inside, int)
    return rows


def put(
    out: NDArray[Any], regions: Sequence[slice | NDArray[np.int64] | None], rows: NDArray[Any]
) -> None:
    """Write rows, axis 0, to a region along each other axis of ``out``."""
    kept = [region for region in regions if region is not None]
    if sum(isinstance(region, np.ndarray) for region in kept) > 1:
        every = (np.arange(size)[region] for size, region in zip(out.shape[1:], kept, strict=True))
        out[np.ix_(np.arange(len(out)), *every)] = rows
    else:
        out[(slice(None), *kept)] = rows


def _of_range(taken: range, length: int) -> list[Piece]:
    found, done = [], 0
    while done < len(taken):
        first = taken[done]
        number = first // length
        count = len(range(first, min((number + 1) * length, taken[-1] + 1), taken.step))
        low = first - number * length
        step = taken.step if count > 1 else 1
        inside = slice(low, low + (count - 1) * step + 1, step)
        found.append(Piece(number, inside, slice(done, done + count, 1)))
        done += count
    return found


def _elements(taken: Taken) -> NDArray[np.int64]:
    if isinstance(taken, range):
        # numpy would ask a range for each element
        return np.arange(taken.start, taken.stop, taken.step, dtype=np.int64)
    return np.array([taken] if isinstance(taken, int) else taken, np.int64)


def _grouped(keys: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
    """Each key, ascending, and the places where it is, ascending."""
    order = np.argsort(keys, kind="stable")
    cuts = np.flatnonzero(np.diff(keys[order])) + 1
    return [(int(keys[places[0]]), places) for places in np.split(order, cuts)]
