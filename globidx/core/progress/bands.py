"""Bands: the enumeration of what an uneven segment leaves, in memory of the order of its ranks.

What remained before the segment is a table of W columns, whose cells are numbered row by row.
Column r is dealt to rank r, which has committed its first ``counts[r]`` cells. In row q the ranks
with ``counts[r] <= q`` remain. Between two neighbouring distinct counts these are the same ranks: a
*band* of rows of constant width. With the ranks sorted by their counts, a band's ranks are the
first ``width`` of that list, so two questions are left: which is the k-th smallest among the first
``width`` of a list of ranks, and how many of these are below a given rank.

Both are answered by a wavelet tree (Grossi, Gupta and Vitter, "High-order entropy-compressed text
indexes", 2003; the k-th smallest as in Gagie, Navarro and Puglisi, "New algorithms on wavelet
trees", 2012). The tree splits the ranks by their highest bit, the halves by the next one, and so
on, each half keeping the sequence of the list. As the list is a permutation of ``[0, 2^b)``, the
ranks that begin with the bits of p stand from index ``p`` on at each level, and half of them go
left: no bounds of nodes need to be stored, only how many have gone left so far.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Bands:
    """What remains of a table of which rank r has committed the first ``counts[r]`` of column r.

    Memory and time to build are O(W log W), whatever the counts; an index costs O(log W).

    Examples
    --------
    >>> bands = Bands([2, 1, 0, 1])
    >>> bands.forward(np.arange(6))                      # of rows 0 1 2 3, 4 5 6 7, 8 9 10 11
    array([2, 5, 6, 7, 8, 9])
    >>> bands.inverse(np.array([0, 5, 9]))
    (array([ True, False, False]), array([0, 1, 5]))
    """

    def __init__(self, counts: Sequence[int] | Indices) -> None:
        self._counts = np.asarray(counts, np.int64)
        order = np.argsort(self._counts)
        ascending = self._counts[order]
        lasts = np.flatnonzero(np.concatenate([np.diff(ascending) != 0, np.ones(1, bool)]))
        # first row of each band
        self._rows = ascending[lasts]
        # how many ranks remain in its rows
        self._widths = lasts + 1
        # how many cells remain before it
        self._starts = np.zeros(len(lasts), np.int64)
        # the last band has no end: whatever is left of the epoch lies in it
        np.cumsum(np.diff(self._rows) * self._widths[:-1], out=self._starts[1:])
        self._halves, self._left = _tree(order)

    def forward(self, indices: Indices) -> Indices:
        """The cells at ``indices`` of what remains."""
        band = np.searchsorted(self._starts, indices, side="right") - 1
        width = self._widths[band]
        row, nth = np.divmod(indices - self._starts[band], width)
        return (row + self._rows[band]) * len(self._counts) + self._smallest(width, nth)

    def inverse(self, cells: Indices) -> tuple[NDArray[np.bool_], Indices]:
        """The inverse of ``forward``: whether each cell is committed, and its index if not."""
        row, rank = np.divmod(cells, len(self._counts))
        committed = row < self._counts[rank]
        # rows before the first band are committed by all ranks; their index means nothing
        band = np.maximum(np.searchsorted(self._rows, row, side="right") - 1, 0)
        width = self._widths[band]
        rows_before = self._starts[band] + (row - self._rows[band]) * width
        return committed, rows_before + self._below(width, rank)

    def _smallest(self, width: Indices, nth: Indices) -> Indices:
        """The ``nth`` smallest rank of the first ``width`` in the list, element by element."""
        rank = np.zeros_like(nth)
        for half, left in zip(self._halves, self._left, strict=True):
            # the node of ``rank`` begins at that index, and half of what is before it went left
            goes_left = left[rank + width] - (rank >> 1)
            right = nth >= goes_left
            nth = nth - goes_left * right
            width = np.where(right, width - goes_left, goes_left)
            rank += half * right
        return rank

    def _below(self, width: Indices, rank: Indices) -> Indices:
        """How many of the first ``width`` ranks in the list are smaller than ``rank``."""
        below, node = np.zeros_like(rank), np.zeros_like(rank)
        for half, left in zip(self._halves, self._left, strict=True):
            goes_left = left[node + width] - (node >> 1)
            right = (rank & half) != 0
            # where the rank goes right, all that went left are smaller
            below += goes_left * right
            width = np.where(right, width - goes_left, goes_left)
            node += half * right
        return below


def _tree(order: Indices) -> tuple[list[int], list[NDArray[np.int32]]]:
    """For each level its bit, and how many of the level's first i ranks go left.

    Those go left in which the bit is not set.
    """
    bits = int(len(order) - 1).bit_length()
    # Filled up to a power of two by ranks that stand behind all others, where nobody asks for them:
    # then all nodes of a level are of one size.
    node = np.concatenate([order, np.arange(len(order), 2**bits)]).astype(np.int32).reshape(1, -1)
    halves, left = [1 << bit for bit in reversed(range(bits))], []
    for half in halves:
        is_left = (node & half) == 0
        goes_left = np.zeros(2**bits + 1, np.int32)
        np.cumsum(is_left, out=goes_left[1:])
        left.append(goes_left)
        if half == 1:
            break
        # each node has as many ranks on the left as on the right, so both make a whole matrix
        node = np.stack(
            [node[is_left].reshape(-1, half), node[~is_left].reshape(-1, half)], axis=1
        ).reshape(-1, half)
    return halves, left
