"""The methods of packing: which bin each of many pieces goes into, by their lengths alone.

References
----------
D. S. Johnson, "Near-optimal bin packing algorithms" (MIT, 1973): next-fit needs fewer than twice as
many bins as there must be, first-fit-decreasing at most 11/9 as many and 6/9 of one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.integer]


def next_fit(lengths: Numbers, budget: int) -> NDArray[np.int64]:
    """The first piece of each bin: a piece that does not fit behind the last one opens another bin.

    Lengths are in ``[1, budget]``.

    >>> next_fit(np.array([3, 4, 2, 2, 5]), budget=8)
    array([0, 2, 4])
    """
    ends = np.cumsum(lengths, dtype=np.int64)
    # for each piece, the first that would not fit into a bin that began with it
    beyond = np.searchsorted(ends, ends - lengths + budget, side="right").data
    firsts, piece = [], 0
    while piece < len(lengths):
        firsts.append(piece)
        piece = beyond[piece]
    return np.array(firsts, np.int64)


def first_fit_decreasing(lengths: Numbers, budget: int) -> NDArray[np.int64]:
    """The bin of each piece: the first one with room for it, from the longest piece to the shortest.

    Lengths are in ``[1, budget]``, and do not increase. Pieces of one length are placed together:
    first-fit fills the first bin that has room for one of them with as many as go in, and then the
    next. So a length costs a few operations on arrays of as many numbers as there are bins.

    >>> first_fit_decreasing(np.array([6, 5, 3, 3, 2, 2]), budget=8)
    array([0, 1, 1, 2, 0, 2])
    """
    begins = np.flatnonzero(np.diff(lengths, prepend=0))
    stops = np.append(begins, len(lengths))[1:]
    # two bins that are opened one after the other hold more than the budget together
    most = min(len(lengths), 2 * int(lengths.sum(dtype=np.int64)) // budget + 2)
    room, opened = np.empty(most, np.int32), 0
    bins = np.empty(len(lengths), np.int64)
    for begin, stop in zip(begins.tolist(), stops.tolist(), strict=True):
        length = int(lengths[begin])
        # bins of pieces above half the budget have no room for another of these
        has_room = room[:opened] >= length if 2 * length <= budget else room[:0]
        chosen = np.flatnonzero(has_room)[: stop - begin]
        placed = _put(bins[begin:stop], chosen, room, length)
        left, each = stop - begin - placed, budget // length
        more = np.arange(opened, opened - (-left // each))
        room[more], opened = budget, opened + len(more)
        _put(bins[begin + placed : stop], more, room, length)
    return bins


def _put(bins: NDArray[np.int64], chosen: Numbers, room: Numbers, length: int) -> int:
    """Fill the chosen bins one after the other with pieces of one length; how many were placed."""
    times = room[chosen] // length
    filled = np.cumsum(times)
    used = int(np.searchsorted(filled, len(bins))) + 1
    chosen, times = chosen[:used], times[:used]
    if used <= len(filled):
        times[-1] -= filled[used - 1] - len(bins)
    room[chosen] -= times * length
    placed = int(times.sum())
    bins[:placed] = np.repeat(chosen, times)
    return placed
