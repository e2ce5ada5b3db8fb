"""How far an epoch over shards has come: which are done, and how many rows of those that are begun.

A shard is a file, or another sequence of rows that is read from its beginning, and of which nobody
knows the length before it was read. So only whole shards are dealt, and a record counts rows.
Shards are numbered by their position in the epoch's order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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


@dataclass(frozen=True)
class ShardProgress:
    """Shards that are ``done``, and of those that are ``begun`` how many rows, by shard.

    >>> progress = ShardProgress().commit([(0, 2, 0, 0), (0, 2, 1, 0), (0, 0, 0, 1)])
    >>> progress
    ShardProgress(done=Ranges(pairs=((0, 1),)), begun={2: 2})
    >>> progress.left(4)
    [Part(shard=1, start=0), Part(shard=2, start=2), Part(shard=3, start=0)]
    """

    done: Ranges = field(default_factory=Ranges)
    begun: dict[int, int] = field(default_factory=dict)

    def left(self, shards: int) -> list[Part]:
        """What is left of an epoch of so many shards, in its order."""
        whole = Ranges.of(range(shards)) - self.done
        return [Part(shard, self.begun.get(shard, 0)) for shard in whole.ids().tolist()]

    def is_done(self, shard: int) -> bool:
        """Whether all rows of a shard are committed."""
        return self.done.below(shard + 1).size > self.done.below(shard).size

    def commit(self, places: Iterable[Sequence[int]]) -> ShardProgress:
        """The progress with more rows; CommitError unless each is the next one of its shard."""
        begun, done = dict(self.begun), set()
        for _, shard, row, is_last in places:
            expected = begun.get(shard, 0)
            is_done = shard in done or self.is_done(shard)
            if row != expected or is_done:
                has = "all rows" if is_done else f"rows [0, {expected})"
                raise CommitError(
                    f"commit() of row {row} of the shard at position {shard}, of which {has} are committed: "
                    "each row is committed once, in the sequence in which the loader delivers them"
                )
            begun[shard] = row + 1
            if is_last:
                del begun[shard]
                done.add(shard)
        return ShardProgress(self.done | Ranges.of(sorted(done)), dict(sorted(begun.items())))

    def since(self, start: ShardProgress) -> ShardProgress:
        """What of this progress came after ``start``, from which it began."""
        begun = {
            shard: count for shard, count in self.begun.items() if start.begun.get(shard) != count
        }
        return ShardProgress(self.done - start.done, begun)

    def __or__(self, later: ShardProgress) -> ShardProgress:
        """This progress and another one that began from it: the further of each shard."""
        done = self.done | later.done
        gone = set(done.ids().tolist())
        rows = self.begun | {
            shard: max(count, self.begun.get(shard, 0)) for shard, count in later.begun.items()
        }
        begun = {shard: count for shard, count in sorted(rows.items()) if shard not in gone}
        return ShardProgress(done, begun)


def dealt(parts: Sequence[Part], *, number: int, of: int) -> Sequence[Part]:
    """What is dealt to one of several ranks, or to one of a rank's workers, like cards."""
    return parts[number::of]
