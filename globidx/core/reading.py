"""The reading plan: a batch of places in files, as few contiguous reads as there are runs, and where each item goes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Read(NamedTuple):
    """Items ``[start, stop)`` of a file; item ``start + offsets[i]`` is the request's ``places[i]``-th."""

    file: int
    start: int
    stop: int
    places: NDArray[np.intp]
    offsets: NDArray[np.int64]


def plan(files: NDArray[np.int64], items: NDArray[np.int64]) -> list[Read]:
    """Reads that cover every (file, item), sorted by file and item, neighbours and repeats joined.

    >>> for read in plan(np.array([1, 0, 1, 1]), np.array([5, 2, 6, 5])):
    ...     print(read.file, read.start, read.stop, read.places.tolist(), read.offsets.tolist())
    0 2 3 [1] [0]
    1 5 7 [0, 3, 2] [0, 0, 1]
    """
    if not len(files):
        return []
    order = np.lexsort((items, files))
    file, item = files[order], items[order]
    breaks = np.flatnonzero((np.diff(file) != 0) | (np.diff(item) > 1)) + 1
    edges = [0, *breaks.tolist(), len(order)]
    return [
        Read(int(file[a]), int(item[a]), int(item[b - 1]) + 1, order[a:b], item[a:b] - item[a])
        for a, b in zip(edges, edges[1:], strict=False)
    ]
