"""Progress: which positions of an epoch are committed or left out, after any history of world sizes and uneven ranks.

A *segment* is what was committed while the world size was W: ``counts[r]`` positions by rank r, the first of those
dealt to it. What remains after a segment is what remained before it, minus those. A segment is thus a map from "the
j-th remaining after" to "the i-th remaining before", and a history of segments is the composition of their maps: no
list of samples exists. A *skip* is a map of the same kind: some ids, not committed by then, are left out from there on.

Histories have one normal form (``Progress.extend`` and ``Progress.skip``), which is what keeps them short:

* counts that together cover the first k remaining positions are the segment ``(k,)``: one rank, k positions, whatever W
was;
* rows that all ranks have committed are split off an uneven segment, as such a prefix;
* two prefixes in a row are one;
* a prefix that covers every hole an uneven segment left behind swallows it: together they are a prefix again.

So in lock-step, however often resumed, all progress is one integer; unevenness is remembered only until the next
segment has read past it. Skips stay where they are, since they say something of that moment: what was committed before
is not left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from globidx.core import checks, partition
from globidx.core.ranges import Ranges
from globidx.errors import RecordError

Numbers = NDArray[np.int64]

# Layers of at most so many positions become a list of gaps, joined up to so many: one search instead of many.
_FEW, _MANY = 2**14, 2**20


@dataclass(frozen=True)
class Segment:
    """Counts committed by each rank of one world size.

    Four ranks were dealt the numbers below as columns; rank 0 committed 3, rank 2 only 1, and so on. What remains is
    read row by row::

        0  1  2  3        counts (3, 2, 1, 2)
        4  5  6  7
        8  9 10 11        remaining: 6, 9, 10, 11, 12, ...

    >>> segment = Segment((3, 2, 1, 2))
    >>> segment.select(np.arange(5))
    array([ 6,  9, 10, 11, 12])
    """

    counts: tuple[int, ...]

    @property
    def world_size(self) -> int:
        """How many ranks there were; 1 for a prefix."""
        return len(self.counts)

    @cached_property
    def committed(self) -> int:
        """How many positions the segment commits."""
        return sum(self.counts)

    @property
    def is_prefix(self) -> bool:
        """Whether it commits the first ``committed`` of what remained, leaving no hole."""
        return len(self.counts) == 1

    @cached_property
    def holes(self) -> int:
        """How many numbers before the last committed one are not committed."""
        reach = max((count - 1) * self.world_size + rank + 1 for rank, count in enumerate(self.counts) if count)
        return 0 if self.is_prefix else reach - self.committed

    def numbers(self) -> Numbers:
        """The committed numbers, in no particular sequence."""
        return np.concatenate(
            [np.arange(count, dtype=np.int64) * self.world_size + rank for rank, count in enumerate(self.counts)]
        )

    @cached_property
    def _bands(self) -> _Bands:
        return _Bands.of(self.counts)

    def select(self, numbers: Numbers) -> Numbers:
        """The ``numbers``-th remaining after this segment, as numbers of what remained before it."""
        if self.is_prefix:
            return numbers + self.counts[0]
        bands = self._bands
        band = np.searchsorted(bands.starts, numbers, side="right") - 1
        row, column = np.divmod(numbers - bands.starts[band], bands.widths[band])
        return (row + bands.rows[band]) * self.world_size + bands.ranks[bands.firsts[band] + column]

    def seek(self, numbers: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        """The inverse of ``select``: whether each number is committed here, and if not, its number afterwards."""
        if self.is_prefix:
            return numbers < self.counts[0], numbers - self.counts[0]
        bands = self._bands
        row, rank = np.divmod(numbers, self.world_size)
        done = row < np.asarray(self.counts, np.int64)[rank]
        band = np.maximum(np.searchsorted(bands.rows, row, side="right") - 1, 0)
        after = bands.starts[band] + (row - bands.rows[band]) * bands.widths[band]
        after += bands.before[band, rank]
        return done, after


@dataclass(frozen=True)
class _Bands:
    """A segment's rows, cut into bands in which the same ranks still have positions: one band a distinct count."""

    rows: Numbers  # first row of each band
    widths: Numbers  # how many ranks remain in its rows
    starts: Numbers  # number (after the segment) of its first position
    firsts: Numbers  # where its ranks begin in `ranks`
    ranks: Numbers  # ranks of band 0, of band 1, ...
    before: NDArray[np.int32]  # [band, rank]: how many of the band's ranks are below this one

    @classmethod
    def of(cls, counts: tuple[int, ...]) -> _Bands:
        each = np.array(counts, np.int64)
        rows = np.unique(each)
        active = each[None, :] <= rows[:, None]
        widths = active.sum(axis=1, dtype=np.int64)
        starts, firsts = np.zeros_like(rows), np.zeros_like(rows)
        np.cumsum(np.diff(rows) * widths[:-1], out=starts[1:])
        np.cumsum(widths[:-1], out=firsts[1:])
        before = np.cumsum(active, axis=1, dtype=np.int32) - active
        return cls(rows, widths, starts, firsts, np.nonzero(active)[1].astype(np.int64), before)


@dataclass(frozen=True)
class Skip:
    """Ids that are left out from here on, and at how many positions that were not committed by then."""

    ids: Ranges
    positions: int


@dataclass(frozen=True)
class Progress:
    """What is committed and left out of one epoch of ``length`` positions.

    ``per_rank`` is how many positions a rank has been through this epoch, the most of any rank where they differ: what
    a trainer counts from.

    >>> done = Progress(10).extend((2, 2)).extend((1, 1, 1))     # 2 ranks took 2 each, then 3 ranks 1 each
    >>> done.history, done.remaining, done.per_rank
    ((Segment(counts=(7,)),), 3, 3)
    """

    length: int
    history: tuple[Segment | Skip, ...] = ()
    per_rank: int = 0
    #: How many positions are committed, and how many are left out.
    committed: int = 0
    skipped: int = 0

    @property
    def remaining(self) -> int:
        """How many are neither committed nor left out."""
        return self.length - self.committed - self.skipped

    @property
    def left_out(self) -> Ranges:
        """The ids that are left out."""
        ids = Ranges()
        for layer in self.history:
            if isinstance(layer, Skip):
                ids |= layer.ids
        return ids

    def extend(self, counts: Sequence[int]) -> Progress:
        """Progress after one more segment: ``counts[r]`` positions committed by rank r of ``len(counts)``.

        ValueError where a rank claims more than it was dealt.
        """
        world_size, remaining = len(counts), self.remaining
        checks.integer(world_size, "world size", low=1)
        for rank, count in enumerate(counts):
            dealt = partition.share(remaining, rank=rank, world_size=world_size)
            checks.integer(count, f"count of rank {rank} (it was dealt {dealt} of {remaining})", high=dealt)
        history = self.history
        for segment in _normal(counts):
            history = _push(history, segment)
        committed = self.committed + sum(counts)
        return replace(self, history=history, per_rank=self.per_rank + max(counts), committed=committed)

    def skip(self, ids: Ranges, positions: int) -> Progress:
        """Progress with ``ids`` left out from here on.

        They stand at ``positions`` positions, none of which is committed.
        """
        if not ids.pairs:
            return self
        checks.integer(positions, f"skipped positions (of {self.remaining} remaining)", high=self.remaining)
        return replace(self, history=_push(self.history, Skip(ids, positions)), skipped=self.skipped + positions)


class Remaining:
    """The remaining positions of an epoch, enumerated: a history with its skips looked up in the epoch's order.

    ``where`` gives the positions of ids, ascending.
    """

    def __init__(self, progress: Progress, where: Callable[[Numbers], Numbers]) -> None:
        self._maps: list[Segment | _Gaps] = []
        for layer in progress.history:
            if isinstance(layer, Skip):
                gone, numbers = self.seek(where(layer.ids.ids()))
                if int((~gone).sum()) != layer.positions:
                    raise RecordError(
                        f"the record leaves out {layer.positions} positions where its order has {(~gone).sum()}"
                    )
                self._leave_out(numbers[~gone])
            elif (layer.is_prefix and not self._maps) or layer.committed > _FEW:
                self._maps.append(layer)
            else:
                self._leave_out(layer.numbers())

    def _leave_out(self, numbers: Numbers) -> None:
        """Leave out these numbers, in one map with what was left out just before: many small layers then cost one."""
        if self._maps and isinstance(self._maps[-1], _Gaps) and len(self._maps[-1].numbers) < _MANY:
            last = self._maps.pop()
            assert isinstance(last, _Gaps)
            numbers = np.concatenate([last.numbers, last.select(numbers)])
        self._maps.append(_Gaps(np.sort(numbers)))

    def select(self, numbers: Numbers) -> Numbers:
        """Positions of the ``numbers``-th remaining ones, int64; numbers are trusted to be in ``[0, remaining)``."""
        for layer in reversed(self._maps):
            numbers = layer.select(numbers)
        return numbers

    def seek(self, positions: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        """The inverse.

        Whether each position is gone (committed or left out), and if not, which of the remaining ones it is.
        """
        gone = np.zeros(len(positions), bool)
        for layer in self._maps:
            done, numbers = layer.seek(positions)
            positions = np.where(gone, positions, numbers)
            gone |= done
        return gone, positions


@dataclass(frozen=True)
class _Gaps:
    """The map of a skip: these numbers, ascending, are left out."""

    numbers: Numbers

    @cached_property
    def _before(self) -> Numbers:
        return self.numbers - np.arange(len(self.numbers))  # how many remaining ones stand before each gap

    def select(self, numbers: Numbers) -> Numbers:
        return numbers + np.searchsorted(self._before, numbers, side="right")

    def seek(self, numbers: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        below = np.searchsorted(self.numbers, numbers, side="left")
        gone = np.isin(numbers, self.numbers)
        return gone, numbers - below


def _normal(counts: Sequence[int]) -> tuple[Segment, ...]:
    """``counts`` as at most one prefix and one uneven segment whose smallest count is 0."""
    rows, world_size = min(counts), len(counts)
    rest = tuple(int(count) - rows for count in counts)
    extra = sum(rest)
    if rest == tuple(int(rank < extra) for rank in range(world_size)):  # a row begun from the left is still a prefix
        return (Segment((rows * world_size + extra,)),) if rows or extra else ()
    uneven = Segment(rest)
    return (Segment((rows * world_size,)), uneven) if rows else (uneven,)


def _push(history: tuple[Segment | Skip, ...], layer: Segment | Skip) -> tuple[Segment | Skip, ...]:
    """``history`` and one more layer, in normal form."""
    kept = list(history)
    while kept and isinstance(layer, Segment) and layer.is_prefix:
        last = kept[-1]
        if isinstance(last, Skip) or layer.committed < last.holes:
            break
        kept.pop()
        layer = Segment((last.committed + layer.committed,))
    return (*kept, layer)
