"""The state of a stream of shards: one rank's, and that of all ranks together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from globidx.core.json import schema
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress.limits import MAX_RANGES, MAX_WORLD_SIZE
from globidx.core.progress.ranges import Ranges
from globidx.core.streams.shard_progress import Part, ShardProgress, dealt
from globidx.errors import CommitError, RecordError, RecordMismatchError

FORMAT, VERSION = "globidx.shards", 1


@dataclass(frozen=True)
class ShardState:
    """How far one rank has come in an epoch over shards.

    ``start`` is the progress of all ranks when it was dealt to ``world_size`` ranks, and ``own``
    what this ``rank`` has committed since.
    """

    shards: int
    names: str
    shuffle: bool
    seed: int
    epoch: int = 0
    start: ShardProgress = field(default_factory=ShardProgress)
    world_size: int = 1
    rank: int = 0
    own: ShardProgress = field(default_factory=ShardProgress)

    def order(self) -> list[int]:
        """The number of the shard at each position of the epoch."""
        order = (Shuffle() if self.shuffle else Sequential()).bind(
            self.shards, seed=self.seed, epoch=self.epoch
        )
        numbers: list[int] = order.forward(np.arange(self.shards)).tolist()
        return numbers

    def left(self) -> list[Part]:
        """What this rank has left of what is dealt to it."""
        now = self.start | self.own
        mine = dealt(self.start.left(self.shards), number=self.rank, of=self.world_size)
        return [
            Part(part.shard, now.begun.get(part.shard, 0))
            for part in mine
            if not now.is_done(part.shard)
        ]

    def commit(self, places: Sequence[Sequence[int]]) -> ShardState:
        """The state with the rows at some places committed.

        CommitError if they are of another epoch, not dealt to this rank, or not the next ones.
        """
        for epoch, shard, row, _ in places:
            if epoch != self.epoch or not self._is_dealt(shard):
                raise CommitError(
                    f"commit() of row {row} of the shard at position {shard} of epoch {epoch}, which is not dealt to "
                    f"rank {self.rank} of {self.world_size} in epoch {self.epoch}: the stream was set to another "
                    "epoch or loaded since the loop began; leave the loop, and start a new one"
                )
        return replace(self, own=(self.start | self.own).commit(places).since(self.start))

    def _is_dealt(self, shard: int) -> bool:
        before = self.start.done.below(shard).size
        is_left = 0 <= shard < self.shards and not self.start.is_done(shard)
        return is_left and (shard - before) % self.world_size == self.rank

    def next_epoch(self, epoch: int) -> ShardState:
        """The beginning of an epoch."""
        return replace(self, epoch=epoch, start=ShardProgress(), own=ShardProgress())

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "shards": self.shards,
            "names": self.names,
            "shuffle": self.shuffle,
            "seed": self.seed,
            "epoch": self.epoch,
            "start": _progress_to_json(self.start),
            "world_size": self.world_size,
            "rank": self.rank,
            "own": _progress_to_json(self.own),
        }

    @classmethod
    def from_dict(cls, state: Any) -> ShardState:
        """What ``to_dict`` wrote; RecordError names what is missing, unknown or impossible."""
        where = "state of a stream of shards"
        schema.header(state, where, FORMAT, VERSION)
        fields = schema.fields(state, where, _FIELDS)
        made = {name: _progress(fields[name], fields["shards"]) for name in ("start", "own")}
        value = cls(**fields | made)
        if value.rank >= value.world_size:
            raise RecordError(f"{where}: rank {value.rank} of {value.world_size}; it was edited")
        return value

    def refuse_other_run(self, other: ShardState) -> None:
        """RecordMismatchError if ``other`` is the state of other shards, or of another order."""
        for name in ("shards", "names", "shuffle", "seed"):
            if getattr(self, name) != getattr(other, name):
                raise RecordMismatchError(
                    f"the record was written with {name} {getattr(other, name)!r}, this stream has "
                    f"{getattr(self, name)!r}; resuming would read the wrong rows: pass the same shards, in the same "
                    "sequence, and the same arguments, or start a new run",
                    field=name,
                )


def merged(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of all ranks, from that of each, in rank order.

    RecordError or RecordMismatchError if they are not those of the ranks of one run.
    """
    ranks = [ShardState.from_dict(state) for state in states]
    first = ranks[0]
    for number, rank in enumerate(ranks):
        if (rank.rank, rank.world_size) != (number, len(ranks)):
            raise RecordError(
                f"state {number} of {len(ranks)} is that of rank {rank.rank} of {rank.world_size}; pass that of every "
                "rank, in rank order"
            )
        first.refuse_other_run(rank)
        for name in ("epoch", "start"):
            if getattr(rank, name) != getattr(first, name):
                raise RecordMismatchError(
                    f"rank {number} has another {name} than rank 0, {getattr(rank, name)} and not "
                    f"{getattr(first, name)}: save where all ranks are in one epoch, and load the same record on all"
                )
    # each shard was one rank's, so no two have come differently far in it
    together = first.start
    for rank in ranks:
        together = together | rank.own
    return replace(first, start=together, own=ShardProgress(), world_size=1, rank=0).to_dict()


def names_of(shards: Sequence[str]) -> str:
    """A digest of the names of all shards, in their sequence."""
    return hashlib.sha256("\0".join(shards).encode(errors="surrogateescape")).hexdigest()[:32]


def _progress_to_json(progress: ShardProgress) -> dict[str, Any]:
    return {
        "done": [list(pair) for pair in progress.done.pairs],
        "begun": [list(pair) for pair in progress.begun.items()],
    }


def _progress(value: Mapping[str, Any], shards: int) -> ShardProgress:
    done = Ranges.of([tuple(pair) for pair in value["done"]])
    begun = dict(value["begun"])
    listed = done.ids().tolist() + list(begun)
    if len(listed) != len(set(listed)) or (listed and max(listed) >= shards):
        raise RecordError(
            f"state of a stream of shards: {value!r:.80} is impossible for {shards} shards; it was edited"
        )
    return ShardProgress(done, begun)


_COUNT = schema.Integer(0, 2**63 - 1)
_PAIRS = schema.List(schema.List(_COUNT, at_least=2, at_most=2), at_most=MAX_RANGES)
_PROGRESS = schema.Fields(done=_PAIRS, begun=_PAIRS)


def _flag(value: Any, where: str) -> bool:
    if type(value) is not bool:
        raise RecordError(f"{where} must be true or false, got {value!r:.80}")
    return value


_FIELDS = {
    "shards": schema.Integer(1, 2**31),
    "names": schema.Text(32),
    "shuffle": _flag,
    "seed": schema.Integer(-(2**63), 2**64),
    "epoch": _COUNT,
    "start": _PROGRESS,
    "world_size": schema.Integer(1, MAX_WORLD_SIZE),
    "rank": schema.Integer(0, MAX_WORLD_SIZE),
    "own": _PROGRESS,
}
