"""Progress: which positions of an epoch are committed, after any history of world sizes and uneven ranks.

A *segment* is what was committed while the world size was W: ``counts[r]`` positions by rank r, the first of those
dealt to it. What remains after a segment is what remained before it, minus those. A segment is thus a map from "the
j-th remaining after" to "the i-th remaining before", and a history of segments is the composition of their maps: no
list of samples exists.

Histories have one normal form (``Progress.extend``), which is what keeps them short:

* counts that together cover the first k remaining positions are the segment ``(k,)``: one rank, k positions, whatever W
was;
* rows that all ranks have committed are split off an uneven segment, as such a prefix;
* two prefixes in a row are one;
* a prefix that covers every hole an uneven segment left behind swallows it: together they are a prefix again.

So in lock-step, however often resumed, all progress is one integer; unevenness is remembered only until the next
segment has read past it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from globidx.core import checks, partition

Numbers = NDArray[np.int64]


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

    @property
    def committed(self) -> int:
        """How many positions the segment commits."""
        return sum(self.counts)

    @property
    def is_prefix(self) -> bool:
        """Whether it commits the first ``committed`` of what remained, leaving no hole."""
        return len(self.counts) == 1

    @cached_property
    def reach(self) -> int:
        """One past the last committed number."""
        return max((count - 1) * self.world_size + rank + 1 for rank, count in enumerate(self.counts) if count)

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
        after = bands.starts[band] + (row - bands.rows[band]) * bands.widths[band] + bands.before[band, rank]
        return done, after


@dataclass(frozen=True)
class _Bands:
    """A segment's rows, cut into bands in which the same ranks still have positions: one band a distinct count."""

    rows: Numbers  # first row of each band
    widths: Numbers  # how many ranks remain in its rows
    starts: Numbers  # number (after the segment) of its first position
    firsts: Numbers  # where its ranks begin in `ranks`
    ranks: Numbers  # ranks of band 0, of band 1, ...
    before: Numbers  # [band, rank]: how many of the band's ranks are below this one

    @classmethod
    def of(cls, counts: tuple[int, ...]) -> _Bands:
        each = np.array(counts, np.int64)
        rows = np.unique(each)
        active = each[None, :] <= rows[:, None]
        widths = active.sum(axis=1, dtype=np.int64)
        starts, firsts = np.zeros_like(rows), np.zeros_like(rows)
        np.cumsum(np.diff(rows) * widths[:-1], out=starts[1:])
        np.cumsum(widths[:-1], out=firsts[1:])
        before = np.cumsum(active, axis=1, dtype=np.int64) - active
        return cls(rows, widths, starts, firsts, np.nonzero(active)[1].astype(np.int64), before)


@dataclass(frozen=True)
class Progress:
    """What is committed of one epoch over ``num_samples`` positions.

    ``per_rank`` is how many positions a rank has been through this epoch, the most of any rank where they differ: what
    a trainer counts from.

    >>> done = Progress(10).extend((2, 2)).extend((1, 1, 1))     # 2 ranks took 2 each, then 3 ranks 1 each
    >>> done.segments, done.remaining, done.per_rank
    ((Segment(counts=(7,)),), 3, 3)
    """

    num_samples: int
    segments: tuple[Segment, ...] = ()
    per_rank: int = 0

    @property
    def committed(self) -> int:
        """How many positions are committed."""
        return sum(segment.committed for segment in self.segments)

    @property
    def remaining(self) -> int:
        """How many are not."""
        return self.num_samples - self.committed

    def extend(self, counts: Sequence[int]) -> Progress:
        """Progress after one more segment: ``counts[r]`` positions committed by rank r of ``len(counts)``.

        ValueError where a rank claims more than it was dealt.
        """
        world_size, remaining = len(counts), self.remaining
        checks.integer(world_size, "world size", low=1)
        for rank, count in enumerate(counts):
            dealt = partition.share(remaining, rank=rank, world_size=world_size)
            checks.integer(count, f"count of rank {rank} (it was dealt {dealt} of {remaining})", high=dealt)
        segments = self.segments
        for segment in _normal(counts):
            segments = _push(segments, segment)
        return Progress(self.num_samples, segments, self.per_rank + max(counts))

    def select(self, numbers: Numbers) -> Numbers:
        """Positions of the ``numbers``-th remaining ones, int64; numbers are trusted to be in ``[0, remaining)``."""
        for segment in reversed(self.segments):
            numbers = segment.select(numbers)
        return numbers

    def is_committed(self, positions: Numbers) -> NDArray[np.bool_]:
        """Whether each position is committed."""
        committed = np.zeros(len(positions), bool)
        for segment in self.segments:
            done, positions = segment.seek(np.where(committed, segment.reach, positions))
            committed |= done
        return committed


def _normal(counts: Sequence[int]) -> tuple[Segment, ...]:
    """``counts`` as at most one prefix and one uneven segment whose smallest count is 0."""
    rows, world_size = min(counts), len(counts)
    rest = tuple(int(count) - rows for count in counts)
    extra = sum(rest)
    if rest == tuple(int(rank < extra) for rank in range(world_size)):  # a row begun from the left is still a prefix
        return (Segment((rows * world_size + extra,)),) if rows or extra else ()
    uneven = Segment(rest)
    return (Segment((rows * world_size,)), uneven) if rows else (uneven,)


def _push(segments: tuple[Segment, ...], segment: Segment) -> tuple[Segment, ...]:
    """``segments`` and one more, in normal form."""
    while segment.is_prefix and segments:
        last = segments[-1]
        holes = 0 if last.is_prefix else last.reach - last.committed
        if segment.committed < holes:
            break
        segment = Segment((last.committed + segment.committed,))
        segments = segments[:-1]
    return (*segments, segment)
