"""The ground of ``ChunkShuffle``: blocks in a new sequence every epoch, and back.

Files are cut into *blocks*, their whole chunks, kept apart by length; what is left of each file
(its ragged end, or all of it where its chunk length is rare) lies on one *ribbon*, file after
file. Blocks of a length are shuffled among themselves, and so are the files' ends on the ribbon.
Each of these kinds is then cut into *units* of equally many items, and the units of all kinds are
shuffled together: that row of items is the *ground*. What does not fill a unit stands at its end.
So neighbours on the ground share chunks, everything is found by division and by search in prefix
sums over files, and no list of blocks exists.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd, lcm
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.index.chunking import Chunking, weighted_quantile
from globidx.core.orders.permutation import Permutation

Indices = NDArray[np.int64]

#: A chunk length is a kind of its own only if its chunks hold at least 1/64 of all samples; so
#: there are at most 64 kinds.
_KINDS = 64
#: The most items of a window, whatever the chunks: a window is computed at once.
_LARGEST_WINDOW = 2**20
#: The most entries of a permutation that is kept as a table.
_TABLED = 2**16


@dataclass(frozen=True, eq=False)
class Tiling:
    """How a ``Chunking`` is cut into blocks and units for windows of some blocks.

    ``block`` and ``unit`` are in items. ``kinds`` are the chunk lengths that have blocks of their
    own; ``kind_of`` is the index in ``kinds`` of each file, or ``len(kinds)`` if all of the file
    is on the ribbon; ``whole`` is the number of items of each file that are in blocks, and the
    rest is on the ribbon.

    ``block`` is the longest chunk, leaving aside those that hold the last 5 % of the samples. A
    unit is a window: a cache that fits ``window`` blocks fits all chunks of a unit, those that it
    cuts at its ends included. A unit is made a little shorter where it then holds whole
    ``share``s, a lane's part of a batch: so no batch reads from two units.
    """

    chunking: Chunking
    block: int
    unit: int
    kinds: tuple[int, ...]
    kind_of: NDArray[np.int16]
    whole: Indices

    @classmethod
    def of(cls, chunking: Chunking, window: int, share: int) -> Tiling:
        """Cut ``chunking`` for windows of ``window`` blocks.

        ``share`` is a lane's part of a batch, in items.
        """
        lengths = chunking.lengths
        chunks = chunking.chunks
        total = chunking.num_samples
        whole = lengths // chunks * chunks
        # leaving aside the longest chunks: one file of long chunks must not make every window as
        # long
        block = min(weighted_quantile(chunks, lengths, 0.95), _LARGEST_WINDOW) if total else 1
        values, where = np.unique(chunks, return_inverse=True)
        held = np.zeros(len(values), np.int64)
        np.add.at(held, where.ravel(), whole)
        # a permutation and a prefix sum for each kind: a thousand lengths must not cost a thousand
        # of them
        common = np.flatnonzero(held >= max(1, -(-total // _KINDS)))
        renumbered = np.full(len(values), len(common), np.int16)
        renumbered[common] = np.arange(len(common))
        kind_of = renumbered[where.ravel()]
        # where chunks of one length fill a block, no unit cuts a chunk
        fitting = int(held[common][block % values[common] == 0].sum())
        unit, grain = min(window, max(1, _LARGEST_WINDOW // block)) * block, lcm(block, share)
        if fitting * 10 < total * 9:
            # Most units cut a chunk at either end.
            unit, grain = max(block, unit - 2 * block), share
        # whole shares of a batch, so that a batch reads from one window, and one window is all the
        # cache must hold
        unit -= unit % grain if grain < unit else 0
        return cls(
            chunking=chunking,
            block=block,
            unit=unit,
            kinds=tuple(values[common].tolist()),
            kind_of=kind_of,
            whole=np.where(kind_of < len(common), whole, 0),
        )


class Kind(Protocol):
    """The items of one kind in the sequence of the epoch.

    There are ``items`` of them. Runs of ``chunk`` items, cut at its multiples, have successive ids.
    """

    items: int
    chunk: int

    def forward(self, items: Indices) -> Indices:
        """Return the sample ids of items."""

    def inverse(self, files: Indices, within: Indices) -> Indices:
        """Return items from files and indices in those files: the inverse of ``forward``."""


class _Shuffled:
    """A permutation with a table if it is short, because it is often called for a few indices."""

    def __init__(self, n: int, seed: int, epoch: int, what: str) -> None:
        self._n = max(1, n)
        self._permutation = Permutation(
            self._n, seed=seed, epoch=epoch, purpose=f"chunk-shuffle.1 {what}"
        )
        self.inverse = self._permutation.inverse

    def forward(self, indices: Indices) -> Indices:
        return self._table[indices] if self._n <= _TABLED else self._permutation.forward(indices)

    @cached_property
    def _table(self) -> Indices:
        return self._permutation.forward(np.arange(self._n))


class _Blocks:
    """Whole chunks of one length, shuffled."""

    def __init__(self, tiling: Tiling, kind: int, seed: int, epoch: int) -> None:
        self.chunk = tiling.kinds[kind]
        self._files = np.flatnonzero(tiling.kind_of == kind)
        self._starts = np.zeros(len(self._files) + 1, np.int64)
        np.cumsum(tiling.whole[self._files] // self.chunk, out=self._starts[1:])
        self._shifts = tiling.chunking.offsets[self._files] - self._starts[:-1] * self.chunk
        self.items = int(self._starts[-1]) * self.chunk
        self._shuffled = _Shuffled(int(self._starts[-1]), seed, epoch, f"blocks of {self.chunk}")

    def forward(self, items: Indices) -> Indices:
        blocks = self._shuffled.forward(items // self.chunk)
        shifts = self._shifts[_stretch_of(self._starts, blocks)]
        return blocks * self.chunk + items % self.chunk + shifts

    def inverse(self, files: Indices, within: Indices) -> Indices:
        blocks = self._starts[np.searchsorted(self._files, files)] + within // self.chunk
        return self._shuffled.inverse(blocks) * self.chunk + within % self.chunk


class _Ribbon:
    """What is not in blocks: at most one stretch of each file, in a shuffled sequence of files."""

    chunk = 1

    def __init__(self, tiling: Tiling, seed: int, epoch: int) -> None:
        sizes = tiling.chunking.lengths - tiling.whole
        self._files = np.flatnonzero(sizes)
        # file -> where its stretch begins
        self._firsts = tiling.whole
        shuffled = _Shuffled(len(self._files), seed, epoch, "ends")
        # Stretch, by file -> its index on the ribbon: a table, for it is no longer than that of the
        # files.
        self._ranks = shuffled.inverse(np.arange(len(self._files)))
        order = shuffled.forward(np.arange(len(self._files)))
        files = self._files[order]
        self._starts = np.zeros(len(files) + 1, np.int64)
        np.cumsum(sizes[files], out=self._starts[1:])
        self._shifts = tiling.chunking.offsets[files] + tiling.whole[files] - self._starts[:-1]
        self.items = int(self._starts[-1])

    def forward(self, items: Indices) -> Indices:
        return items + self._shifts[_stretch_of(self._starts, items)]

    def inverse(self, files: Indices, within: Indices) -> Indices:
        starts = self._starts[self._ranks[np.searchsorted(self._files, files)]]
        return starts + within - self._firsts[files]


class Ground:
    """One epoch's ground over a ``Tiling``: from indices on the ground to sample ids, and back.

    The first ``units`` units are whole; what comes behind them is what filled none.
    """

    def __init__(self, tiling: Tiling, seed: int, epoch: int) -> None:
        self._tiling, self._unit = tiling, tiling.unit
        self._seed, self._epoch = seed, epoch
        on_ribbon = int((tiling.chunking.lengths - tiling.whole).sum())
        kinds = range(len(tiling.kinds))
        items = [*(int(tiling.whole[tiling.kind_of == k].sum()) for k in kinds), on_ribbon]
        units = np.array([count // self._unit for count in items], np.int64)
        self._unit_starts = np.concatenate([[0], np.cumsum(units)])
        self.units = int(self._unit_starts[-1])
        # of each kind, how many of its items are in units
        self._filled = units * self._unit
        rests = np.array(items, np.int64) - self._filled
        self._rest_starts = self.units * self._unit + np.concatenate([[0], np.cumsum(rests)])
        self._shuffled = _Shuffled(self.units, seed, epoch, "units")

    @cached_property
    def _kinds(self) -> list[Kind]:
        tiling, keys = self._tiling, (self._seed, self._epoch)
        blocks = [_Blocks(tiling, kind, *keys) for kind in range(len(tiling.kinds))]
        return [*blocks, _Ribbon(tiling, *keys)]

    def forward_units(self, units: Indices) -> Indices:
        """Return the ids of whole units, a row each; the last unit may reach past the end."""
        # the rest fills no unit, and is read position by position
        last = units >= self.units
        kinds, starts = self._begin(units[~last])
        ids = np.empty((len(units), self._unit), np.int64)
        for kind in np.unique(kinds).tolist():
            of_kind = np.flatnonzero(~last)[kinds == kind]
            ids[of_kind] = self._runs(self._kinds[kind], starts[kinds == kind])
        for row in np.flatnonzero(last).tolist():
            ids[row] = self._rest(units[row] * self._unit)
        return ids

    def inverse(self, ids: Indices) -> Indices:
        """Return the indices on the ground of sample ids."""
        tiling, offsets = self._tiling, self._tiling.chunking.offsets
        files = np.searchsorted(offsets, ids, side="right") - 1
        within = ids - offsets[files]
        kinds = np.where(within < tiling.whole[files], tiling.kind_of[files], len(tiling.kinds))
        items = np.empty_like(ids)
        for kind in np.unique(kinds).tolist():
            of_kind = kinds == kind
            items[of_kind] = self._kinds[kind].inverse(files[of_kind], within[of_kind])
        units, offset = np.divmod(items, self._unit)
        in_units = items < self._filled[kinds]
        # first as if all were in the rest, then those that are in units
        on_ground: Indices = items - self._filled[kinds] + self._rest_starts[kinds]
        units = self._shuffled.inverse((self._unit_starts[kinds] + units)[in_units])
        on_ground[in_units] = units * self._unit + offset[in_units]
        return on_ground

    def _begin(self, units: Indices) -> tuple[Indices, Indices]:
        """Return the kind of each unit, and the item of that kind at which it begins."""
        shuffled = self._shuffled.forward(units)
        kinds = _stretch_of(self._unit_starts, shuffled)
        return kinds, (shuffled - self._unit_starts[kinds]) * self._unit

    def _runs(self, kind: Kind, items: Indices) -> Indices:
        """Return the ids of the units that begin at these items, by runs of successive ids."""
        # Units and chunks are both cut at multiples of it, so each run of this length has
        # successive ids, and one look-up serves a run.
        run = gcd(self._unit, kind.chunk)
        starts = kind.forward((items[:, None] + np.arange(0, self._unit, run)).ravel())
        ids: Indices = (starts[:, None] + np.arange(run)).reshape(len(items), self._unit)
        return ids

    def _rest(self, start: int) -> Indices:
        """Return the ids of one unit of the rest, from ``start`` on; zeros past the end."""
        # the last unit of the rest may reach past the end; nobody asks for what is there
        on_ground = np.arange(start, min(start + self._unit, int(self._rest_starts[-1])))
        kinds = _stretch_of(self._rest_starts, on_ground)
        items = self._filled[kinds] + on_ground - self._rest_starts[kinds]
        ids = np.zeros(self._unit, np.int64)
        for kind in np.unique(kinds).tolist():
            of_kind = np.flatnonzero(kinds == kind)
            ids[of_kind] = self._kinds[kind].forward(items[of_kind])
        return ids


def _stretch_of(starts: Indices, indices: Indices) -> Indices:
    """Return the index of the last start at or before each of ``indices``."""
    # of several starts at one index the last has it, so that empty stretches are passed over
    stretches: Indices = np.searchsorted(starts, indices, side="right") - 1
    return stretches
