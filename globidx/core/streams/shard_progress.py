"""How far a sequence of shards was read: which are done, and how many rows of those that are begun.

A shard is a file, or another sequence of rows that is read from its beginning, and of which nobody
knows the length before it was read. So only whole shards are dealt, and a record counts rows.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from globidx.core.progress.ranges import Ranges
from globidx.errors import CommitError


class Place(NamedTuple):
    """Where a row stands: the epoch, the shard's position in it, and the row in the shard.

    ``is_last`` is 1 for the last row of its shard.
    """

    epoch: int
    shard: int
    row: int
    is_last: int


class Part(NamedTuple):
    """What is left of a shard: its rows from ``start`` on."""

    shard: int
    start: int


class Row(NamedTuple):
    """A row of a shard of a sequence, and whether it is the shard's last."""

    shard: int
    row: int
    is_last: bool


def _no_rows(shard: int) -> int:  # noqa: ARG001
    return 0


@dataclass(frozen=True)
class ShardProgress:
    """Shards that are ``done``, and of those that are ``begun`` how many rows.

    Shards are numbered by whoever reads them in a sequence.

    >>> ShardProgress().commit([Row(2, 0, False), Row(2, 1, False), Row(0, 0, True)])
    ShardProgress(done=Ranges(pairs=((0, 1),)), begun={2: 2})
    """

    done: Ranges = field(default_factory=Ranges)
    begun: dict[int, int] = field(default_factory=dict)

    def is_done(self, shard: int) -> bool:
        """Whether all rows of a shard are committed."""
        row = bisect.bisect_right(self.done.pairs, shard, key=lambda pair: pair[0]) - 1
        return row >= 0 and shard < self.done.pairs[row][1]

    @property
    def prefix(self) -> int:
        """How many shards are done before the first one that is not."""
        return self.done.pairs[0][1] if self.is_done(0) else 0

    @property
    def stop(self) -> int:
        """The number after the last shard that is done or begun."""
        ends = [stop for _, stop in self.done.pairs[-1:]] + [shard + 1 for shard in self.begun]
        return max(ends, default=0)

    def commit(self, rows: Iterable[Row], before: Callable[[int], int] = _no_rows) -> ShardProgress:
        """The progress with more rows; CommitError unless each is the next one of its shard.

        ``before`` says how many rows of a shard were committed before this progress began.
        """
        begun, done = dict(self.begun), set()
        for shard, row, is_last in rows:
            expected = begun[shard] if shard in begun else before(shard)
            is_done = shard in done or self.is_done(shard)
            if row != expected or is_done:
                has = "all rows" if is_done else f"rows [0, {expected})"
                raise CommitError(
                    f"commit() of row {row} of the shard that was dealt as number {shard}, of which {has} are "
                    "committed: each row is committed once, in the sequence in which the loader delivers them"
                )
            begun[shard] = row + 1
            if is_last:
                del begun[shard]
                done.add(shard)
        return ShardProgress(self.done | Ranges.of(sorted(done)), dict(sorted(begun.items())))
