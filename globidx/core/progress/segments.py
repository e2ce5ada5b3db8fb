"""Progress: which positions of an epoch are committed or left out, after any history.

A *segment* is what was committed while the world size was W: ``counts[r]`` positions by rank r,
the first of those dealt to it. What remains after a segment is what remained before it, minus
those. A segment is thus a map from "the j-th remaining after" to "the i-th remaining before", and
a history of segments is the composition of their maps: no list of samples exists. A *skip* is a
map of the same kind: some ids, not committed by then, are left out from there on.

Histories have one normal form (``Progress.extend`` and ``Progress.skip``), which is what keeps
them short:

* counts that together cover the first k remaining positions are the segment ``(k,)``: one rank, k
  positions, whatever W was;
* rows that all ranks have committed are split off an uneven segment, as such a prefix;
* two prefixes in a row are one;
* a prefix that covers every hole an uneven segment left behind swallows it: together they are a
  prefix again;
* *taken* positions, those that a batch sampler has delivered before others of lower index, are one
  set with the prefixes and taken positions next to them; what it begins with is split off as a
  prefix.

So in lock-step, however often resumed, all progress is one integer; unevenness is remembered only
until the next segment has read past it. Skips stay where they are, since they say something of
that moment: what was committed before is not left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.progress import partition
from globidx.core.progress.bands import Bands
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.ranges import Ranges
from globidx.core.ragged import spread

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Segment:
    """Counts committed by each rank of one world size.

    Four ranks were dealt the positions below as columns; rank 0 committed 3, rank 2 only 1, and so
    on. What remains is read row by row::

        0  1  2  3        counts (3, 2, 1, 2)
        4  5  6  7
        8  9 10 11        remaining: 6, 9, 10, 11, 12, ...

    >>> Segment((3, 2, 1, 2)).bands.forward(np.arange(5))
    array([ 6,  9, 10, 11, 12])
    """

    counts: tuple[int, ...]

    @property
    def world_size(self) -> int:
        """The number of ranks; 1 for a prefix."""
        return len(self.counts)

    @cached_property
    def committed(self) -> int:
        """The number of positions that the segment commits."""
        return sum(self.counts)

    @property
    def is_prefix(self) -> bool:
        """Whether it commits the first ``committed`` of the remaining positions, without a hole."""
        return len(self.counts) == 1

    @cached_property
    def holes(self) -> int:
        """The number of positions before the last committed one that are not committed."""
        if self.is_prefix:
            return 0
        # The last committed position is in the last row that any rank has committed, in the column
        # of the last rank that did.
        last = max(self.counts)
        rank = max(rank for rank, count in enumerate(self.counts) if count == last)
        return (last - 1) * self.world_size + rank + 1 - self.committed

    def indices(self) -> Indices:
        """Return the committed positions, as indices of what remained before the segment.

        They come in any sequence.
        """
        each = np.array(self.counts, np.int64)
        row = spread(np.zeros_like(each), each)
        return row * self.world_size + np.repeat(np.arange(self.world_size), each)

    @property
    def gaps(self) -> Gaps:
        """The committed positions, by index of what remained before the segment, as runs."""
        if self.is_prefix:
            return Gaps(np.zeros(1, np.int64), np.array(self.counts, np.int64))
        return Gaps.of(np.sort(self.indices()))

    @cached_property
    def bands(self) -> Bands:
        """The map from what remains after this segment to what remained before it."""
        return Bands(self.counts)


@dataclass(frozen=True)
class Skip:
    """Ids that are left out from here on.

    ``positions`` is how many of their positions were not committed before.
    """

    ids: Ranges
    positions: int


@dataclass(frozen=True)
class Taken:
    """Positions that are committed while others before them are not.

    Batch samplers that regroup ids leave such holes. Positions are given by ``indices`` of what
    remained before; the first of it is not among them.
    """

    indices: Ranges

    @property
    def committed(self) -> int:
        """The number of positions that it commits."""
        return self.indices.size

    @property
    def gaps(self) -> Gaps:
        """The committed positions as runs."""
        return Gaps.of_ranges(self.indices)


Layer = Segment | Skip | Taken


@dataclass(frozen=True)
class Progress:
    """What is committed and left out of one epoch of ``length`` positions.

    ``per_rank`` is the number of positions that a rank has had in this epoch, the most of any rank
    if they differ: a trainer counts its steps from there.

    >>> # 2 ranks took 2 each, then 3 ranks took 1 each
    >>> done = Progress(10).extend((2, 2)).extend((1, 1, 1))
    >>> done.history, done.remaining, done.per_rank
    ((Segment(counts=(7,)),), 3, 3)
    """

    length: int
    history: tuple[Layer, ...] = ()
    per_rank: int = 0
    #: How many positions are committed, and how many are left out.
    committed: int = 0
    skipped: int = 0

    @property
    def remaining(self) -> int:
        """The number of positions that are neither committed nor left out."""
        return self.length - self.committed - self.skipped

    @property
    def left_out(self) -> Ranges:
        """The ids that are left out."""
        skips = [layer for layer in self.history if isinstance(layer, Skip)]
        return Ranges.of([pair for layer in skips for pair in layer.ids.pairs])

    def extend(self, counts: Sequence[int]) -> Progress:
        """Return the progress after one more segment: ``counts[r]`` positions by each rank r.

        ValueError if a rank has more than it was dealt.
        """
        world_size, remaining = len(counts), self.remaining
        validate.integer(world_size, "world size", low=1)
        _refuse_more_than_dealt(counts, remaining)
        history = self.history
        # The prefix comes first: it is what may swallow holes of before.
        for segment in _normal(counts):
            history = _push(history, segment)
        committed = self.committed + sum(counts)
        return replace(
            self, history=history, per_rank=self.per_rank + max(counts), committed=committed
        )

    def take(self, indices: Ranges) -> Progress:
        """Return the progress with the remaining positions at ``indices`` committed.

        ValueError if there are not so many.

        >>> Progress(9).extend((2,)).take(Ranges.of([1, 2])).take(Ranges.of([0])).history
        (Segment(counts=(5,)),)
        """
        if not indices.pairs:
            return self
        validate.integer(
            indices.pairs[-1][1], f"taken indices (of {self.remaining})", high=self.remaining
        )
        return replace(
            self,
            history=_push(self.history, Taken(indices)),
            committed=self.committed + indices.size,
        )

    def skip(self, ids: Ranges, positions: int) -> Progress:
        """Return the progress with ``ids`` left out from here on.

        They have ``positions`` positions, none of which is committed.
        """
        if not ids.pairs:
            return self
        validate.integer(
            positions, f"skipped positions (of {self.remaining} remaining)", high=self.remaining
        )
        return replace(
            self,
            history=_push(self.history, Skip(ids, positions)),
            skipped=self.skipped + positions,
        )


def _refuse_more_than_dealt(counts: Sequence[int], remaining: int) -> None:
    """ValueError naming the first rank whose count is not a count, or is more than it was dealt."""
    rows, more = divmod(remaining, len(counts))
    # A quick check for the usual case: a call for each of many thousand ranks would be slow.
    if set(map(type, counts)) == {int} and min(counts) >= 0 and max(counts) <= rows + 1:
        over = (rank for rank, count in enumerate(counts) if count > rows and rank >= more)
        if next(over, None) is None:
            return
    for rank, count in enumerate(counts):
        dealt = partition.share(remaining, rank=rank, world_size=len(counts))
        validate.integer(
            count, f"count of rank {rank} (it was dealt {dealt} of {remaining})", high=dealt
        )


def _normal(counts: Sequence[int]) -> tuple[Segment, ...]:
    """Split ``counts`` into a prefix and an uneven segment whose smallest count is 0."""
    rows, world_size = int(min(counts)), len(counts)
    rest = tuple(int(count) - rows for count in counts)
    extra = sum(rest)
    # A row that is begun from the left is still a prefix.
    if extra < world_size and rest == (1,) * extra + (0,) * (world_size - extra):
        return (Segment((rows * world_size + extra,)),) if rows or extra else ()
    uneven = Segment(rest)
    return (Segment((rows * world_size,)), uneven) if rows else (uneven,)


def _push(history: tuple[Layer, ...], layer: Layer) -> tuple[Layer, ...]:
    """Return ``history`` with one more layer, in normal form."""
    kept = list(history)
    if isinstance(layer, Skip) or (isinstance(layer, Segment) and not layer.is_prefix):
        return (*kept, layer)
    # a prefix of that many positions, and what is taken of the rest
    first, rest = (layer.committed, ()) if isinstance(layer, Segment) else _split(layer.indices)
    # A skip stays where it is: a sample that a weighted order draws twice may have been committed
    # once before it.
    while kept and not isinstance(last := kept[-1], Skip):
        if isinstance(last, Taken):
            both = Gaps.of_ranges(_joined(first, rest))
            first, rest = _split(last.gaps.then(both).ranges)
        elif first < last.holes:
            break
        else:
            first += last.committed
        kept.pop()
    ahead = [Taken(Ranges(rest))] if rest else []
    return (*kept, *([Segment((first,))] if first else []), *ahead)


_Pairs = tuple[tuple[int, int], ...]


def _split(indices: Ranges) -> tuple[int, _Pairs]:
    """How many ``indices`` are a prefix, and the others, by index of what remains after it."""
    pairs = indices.pairs
    if not pairs or pairs[0][0]:
        return 0, pairs
    first = pairs[0][1]
    return first, tuple((start - first, stop - first) for start, stop in pairs[1:])


def _joined(first: int, rest: _Pairs) -> Ranges:
    """The inverse of ``_split``."""
    pairs = tuple((start + first, stop + first) for start, stop in rest)
    return Ranges(((0, first), *pairs) if first else pairs)
