"""One epoch of ``ChunkShuffle``: the shuffled windows of each lane, as a bijection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.orders.base import Arrangement, Ids
from globidx.core.orders.ground import Ground, Tiling
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.weighted import counter_key, split_mix

#: The most items of windows that are computed at a time and kept; but one window at least.
_AT_ONCE = 2**18


class ChunkShuffled(Arrangement):
    """Position -> (lane, index in it) -> position on the ground -> sample id.

    A lane reads two stretches of the ground: first whole units, which are its windows; then its
    share of the rest.
    """

    def __init__(self, tiling: Tiling, lanes: Lanes, seed: int, epoch: int) -> None:
        super().__init__(tiling.chunking.num_samples)
        self._ground = Ground(tiling, seed, epoch)
        self._window = tiling.unit
        self._lanes = lanes
        quotas = lanes.quotas(self.length)
        self._whole = _dealt(quotas // self._window, self._ground.units) * self._window
        # The first stretches of all lanes, then the second ones.
        self._starts = np.zeros(2 * lanes.total + 1, np.int64)
        np.cumsum(np.concatenate([self._whole, quotas - self._whole]), out=self._starts[1:])
        self._least, self._units = int(self._whole.min()), self._starts // self._window
        # The windows of the last call, keys and ids: the next call mostly continues in them.
        self._recent: tuple[Ids, Ids] = np.empty(0, np.int64), np.empty((0, self._window), np.int64)
        self._key = counter_key(f"chunk-shuffle.1 windows {seed} {epoch}")

    def forward(self, positions: Ids) -> Ids:
        """Map positions to sample ids; it is fastest for positions in sequence."""
        lanes, indices = self._lanes.forward(positions)
        # until the end of an epoch all are in first stretches, whose indices stay as they are
        if len(indices) and indices.max() >= self._least:
            # second stretches are numbered behind the first ones of all lanes
            second = indices >= self._whole[lanes]
            indices[second] -= self._whole[lanes[second]]
            lanes[second] += self._lanes.total
        ids = np.empty_like(positions)
        for some, keys, rows, within in self._by_window(lanes, indices + self._starts[lanes]):
            known, table = self._recent
            # a loader asks for a batch at a time, of windows that it has begun
            if not np.isin(keys, known).all():
                known, table = self._recent = keys, self._table(keys)
            ids[some] = table.ravel()[np.searchsorted(known, keys)[rows] * self._window + within]
        return ids

    def inverse(self, sample_ids: Ids) -> Ids:
        """Map sample ids to positions."""
        on_ground = self._ground.inverse(sample_ids)
        stretches = np.searchsorted(self._starts, on_ground, side="right") - 1
        indices = -self._starts[stretches]
        for some, keys, rows, within in self._by_window(stretches, on_ground):
            units, shuffled = self._shuffled(keys)
            # argsort inverts the shuffle: its entry for an item is where that item stands in the
            # window
            indices[some] += units[rows] * self._window + np.argsort(shuffled, axis=1)[rows, within]
        second, lanes = stretches // self._lanes.total, stretches % self._lanes.total
        return self._lanes.inverse(lanes, indices + second * self._whole[lanes])

    def _by_window(self, stretches: Ids, on_ground: Ids) -> Iterator[tuple[Any, Ids, Ids, Ids]]:
        """Iterate over windows, some at a time.

        Yields which of the ground positions are in them, the keys of the windows, and for each of
        those positions its row among the keys and its index in the window. A key means a unit and
        a stretch: where a stretch ends inside a unit, the unit is two windows.
        """
        units = on_ground // self._window
        within = on_ground - units * self._window
        keys, rows = _distinct((units - self._units[stretches]) * len(self._starts) + stretches)
        # a call for many positions takes the memory of a few windows
        size = max(1, _AT_ONCE // self._window)
        if len(keys) <= size:
            yield slice(None), keys, rows, within
            return
        for first in range(0, len(keys), size):
            some = np.flatnonzero((rows >= first) & (rows < first + size))
            yield some, keys[first : first + size], rows[some] - first, within[some]

    def _table(self, keys: Ids) -> Ids:
        """Return the ids of windows in their shuffled sequence, a row each."""
        units, shuffled = self._shuffled(keys)
        table: Ids = np.take_along_axis(self._ground.forward_units(units), shuffled, axis=1)
        return table

    def _shuffled(self, keys: Ids) -> tuple[Ids, Ids]:
        """Return the units of windows, and their items in shuffled sequence, a row each.

        Items are sorted by random numbers. Those of the unit that are before or after the stretch
        stay where they are.
        """
        units, stretches = np.divmod(keys, len(self._starts))
        units += self._units[stretches]
        items = np.arange(self._window)
        low = np.uint64((1 << max(1, (self._window - 1).bit_length())) - 1)
        begins = units * self._window
        # The low bits are the item, so that they survive the sort, and break ties.
        drawn = split_mix(self._key, begins[:, None] + items) & ~low
        before, behind = self._starts[stretches] - begins, self._starts[stretches + 1] - begins
        for row in np.flatnonzero((before > 0) | (behind < self._window)).tolist():
            drawn[row, : max(0, int(before[row]))] = 0
            drawn[row, int(behind[row]) :] = ~low
        drawn |= items.astype(np.uint64)
        drawn.sort(axis=1)
        return units, (drawn & low).astype(np.int64)


def _dealt(wanted: Ids, units: int) -> Ids:
    """Deal ``units`` to lanes: as many as each wants or, if there are too few, nearly so."""
    short = max(0, int(wanted.sum()) - units)
    less, more = divmod(short, len(wanted))
    given = np.maximum(0, wanted - less - (np.arange(len(wanted)) < more))
    dealt: Ids = np.diff(np.minimum(np.cumsum(given), units), prepend=0)
    return dealt


def _distinct(keys: Ids) -> tuple[Ids, NDArray[np.intp]]:
    """Return the distinct keys, ascending, and the index of each key among them."""
    if not len(keys):
        return keys, np.empty(0, np.intp)
    low, high = int(keys.min()), int(keys.max())
    # Marking costs the range of the keys, sorting costs their count.
    if high - low > 4 * len(keys) + 4096:
        distinct, rows = np.unique(keys, return_inverse=True)
        return distinct, rows.ravel()
    seen = np.zeros(high - low + 1, bool)
    seen[keys - low] = True
    return np.flatnonzero(seen) + low, (np.cumsum(seen) - 1)[keys - low]
