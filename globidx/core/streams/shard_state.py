"""The state of a stream of shards: one rank's, and that of all ranks together.

A shard is known by its *position*: those of an epoch are ``[0, shards)`` in the epoch's order, and
an infinite stream counts on through the epochs that follow. So one set of positions says how far a
stream has come, even where ranks are in different epochs.

Of the positions that are left, rank r of W is dealt those at r, r + W, r + 2W, and so on: its shards
*number* 0, 1, 2. It counts its own progress by these numbers, which stay few ranges however long it
runs.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from globidx.core.cached import cached_property
from globidx.core.json import schema
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress import partition
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.limits import MAX_IDS, MAX_RANGES, MAX_WORLD_SIZE
from globidx.core.progress.ranges import Ranges
from globidx.core.streams.shard_progress import Part, Row, ShardProgress
from globidx.errors import CommitError, RecordError, RecordMismatchError

FORMAT, VERSION = "globidx.shards", 1
#: Positions are below it, so that their arithmetic fits int64.
LIMIT = 2**62


@dataclass(frozen=True)
class ShardState:
    """How far one rank has come in a sequence of shards.

    ``start`` is the progress of all ranks by position, counted from the first of ``epoch``, when it
    was dealt to ``world_size`` ranks, and ``own`` what this ``rank`` has committed since, by its own
    numbers. ``infinite`` is how the stream reads, and no part of a record.

    >>> state = ShardState(3, names_of("abc"), False, 0, world_size=2, rank=1, infinite=True)
    >>> [part.shard for part in itertools.islice(state.left(), 4)]
    [1, 3, 5, 7]
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
    infinite: bool = False

    def numbers(self, positions: Sequence[int]) -> list[int]:
        """The number of the shard, as the user lists them, at each position."""
        order = Shuffle() if self.shuffle else Sequential()
        epochs, places = np.divmod(np.array(positions, np.int64), self.shards)
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs).tolist():
            bound = order.bind(self.shards, seed=self.seed, epoch=self.epoch + epoch)
            numbers[epochs == epoch] = bound.forward(places[epochs == epoch])
        listed: list[int] = numbers.tolist()
        return listed

    @property
    def running_epoch(self) -> int:
        """The first epoch of which this rank has something left; a finite one is never left."""
        return self.epoch + (next(self.left()).shard // self.shards if self.infinite else 0)

    @property
    def end(self) -> int:
        """The position at which that epoch ends."""
        return (self.running_epoch - self.epoch + 1) * self.shards

    # -- what is dealt to this rank

    @cached_property
    def _gaps(self) -> Gaps:
        return Gaps.of_ranges(self.start.done)

    def dealt(self, stop: int) -> int:
        """How many shards before position ``stop`` are dealt to this rank, done since or not."""
        left = int(self._gaps.below(np.array([stop]))[0])
        return partition.share(left, rank=self.rank, world_size=self.world_size)

    def left(self, stop: int | None = None) -> Iterator[Part]:
        """What this rank has left of what is dealt to it.

        By default of all that the stream reads, which is endless for an infinite one, or else of
        the positions before ``stop``.
        """
        ahead = Gaps.of_ranges(self.own.done)
        is_endless = stop is None and self.infinite
        most = LIMIT if is_endless else self.dealt(self.shards if stop is None else stop)
        for index in itertools.count():
            number = _forward(ahead, index)
            if number >= most:
                return
            yield Part(self._position(number), self.own.begun.get(number, self._before(number)))

    def _position(self, number: int) -> int:
        return _forward(self._gaps, number * self.world_size + self.rank)

    def _before(self, number: int) -> int:
        """How many rows of a shard were committed when it was dealt."""
        return self.start.begun.get(self._position(number), 0)

    # -- changes

    def commit(self, places: Sequence[Sequence[int]]) -> ShardState:
        """The state with the rows at some places committed.

        CommitError if they are of another epoch, not dealt to this rank, or not the next ones.
        """
        rows = [
            Row(self._number(epoch, shard, row), row, bool(last))
            for epoch, shard, row, last in places
        ]
        return replace(self, own=self.own.commit(rows, self._before))

    def _number(self, epoch: int, shard: int, row: int) -> int:
        """The inverse of ``_position``, for a row; CommitError if its shard is not this rank's."""
        position = (epoch - self.epoch) * self.shards + shard
        is_read = 0 <= shard < self.shards and 0 <= position < LIMIT
        if is_read and (self.infinite or epoch == self.epoch):
            gone, left = self._gaps.inverse(np.array([position]))
            number, rank = divmod(int(left[0]), self.world_size)
            if not gone[0] and rank == self.rank:
                return number
        raise CommitError(
            f"commit() of row {row} of the shard at position {shard} of epoch {epoch}, which is not dealt to "
            f"rank {self.rank} of {self.world_size} in epoch {self.epoch}: the stream was set to another "
            "epoch or loaded since the loop began; leave the loop, and start a new one"
        )

    def next_epoch(self, epoch: int) -> ShardState:
        """The beginning of an epoch."""
        return replace(self, epoch=epoch, start=ShardProgress(), own=ShardProgress())

    # -- all ranks

    def closed(self, others: Sequence[ShardState] = ()) -> ShardState:
        """The state of all ranks together, of which this is the first: none has anything of its own.

        RecordError if some have come so much further than others that a record cannot list it.
        """
        ranks = (self, *others)
        # all ranks have read this far, so it is one range
        prefix = min(rank.own.prefix for rank in ranks)
        ahead = [rank.own.done - Ranges.of([(0, prefix)]) for rank in ranks]
        _refuse_scattered(sum(own.size for own in ahead), MAX_IDS)
        left = [own.ids() * len(ranks) + rank.rank for rank, own in zip(ranks, ahead, strict=True)]
        done = self.start.done | Ranges.of_ids(self._gaps.forward(np.concatenate(left)))
        if prefix:
            done |= Ranges.of([(0, _forward(self._gaps, prefix * len(ranks) - 1) + 1)])
        _refuse_scattered(len(done.pairs), MAX_RANGES)
        begun = dict(self.start.begun)
        for rank in ranks:
            begun |= {rank._position(number): rows for number, rows in rank.own.begun.items()}
        all_done = ShardProgress(done)
        begun = {shard: begun[shard] for shard in sorted(begun) if not all_done.is_done(shard)}
        start = ShardProgress(done, begun)
        return replace(self, start=start, own=ShardProgress(), world_size=1, rank=0)

    def read_by(self, stream: ShardState) -> ShardState:
        """The state as a stream goes on from it: an infinite one from the first unfinished epoch.

        RecordMismatchError if a finite stream would have to be in several epochs at once.
        """
        # the epoch that a finite stream has read last stays
        is_ahead = self.start.stop > self.shards
        state = replace(self, infinite=stream.infinite)
        if stream.infinite or is_ahead:
            state = state._without(self.start.prefix // self.shards)
        if not stream.infinite and (
            state.start.stop > self.shards or state.own.stop > state.dealt(self.shards)
        ):
            raise RecordMismatchError(
                f"the record has ranks in epoch {state.epoch} and in later ones, as only an infinite stream does: "
                "pass infinite=True, as in the run that wrote it",
                field="infinite",
            )
        return state

    def _without(self, epochs: int) -> ShardState:
        """The state counted from a later epoch; those before it are finished."""
        if not epochs:
            return self
        by = epochs * self.shards
        pairs = ((max(0, start - by), stop - by) for start, stop in self.start.done.pairs)
        done = Ranges(tuple(pair for pair in pairs if pair[1] > 0))
        begun = {shard - by: rows for shard, rows in self.start.begun.items()}
        return replace(self, epoch=self.epoch + epochs, start=ShardProgress(done, begun))

    # -- records

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
        made = {name: _progress(fields[name]) for name in ("start", "own")}
        value = cls(**fields | made)
        if value.rank >= value.world_size:
            raise RecordError(f"{where}: rank {value.rank} of {value.world_size}; it was edited")
        if value.own.stop * value.world_size > LIMIT:
            raise RecordError(
                f"{where}: rank {value.rank} has read shard number {value.own.stop - 1}; it was edited"
            )
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
    return first.closed(ranks[1:]).to_dict()


def names_of(shards: Sequence[str]) -> str:
    """A digest of the names of all shards, in their sequence."""
    return hashlib.sha256("\0".join(shards).encode(errors="surrogateescape")).hexdigest()[:32]


def _progress_to_json(progress: ShardProgress) -> dict[str, Any]:
    return {
        "done": [list(pair) for pair in progress.done.pairs],
        "begun": [list(pair) for pair in progress.begun.items()],
    }


def _progress(value: Mapping[str, Any]) -> ShardProgress:
    pairs = tuple((start, stop) for start, stop in value["done"])
    made = ShardProgress(Ranges(pairs), dict(value["begun"]))
    # ascending, none empty, none touching the next
    is_set = all(one < other for one, other in itertools.pairwise(itertools.chain(*pairs)))
    is_twice = len(made.begun) < len(value["begun"]) or any(map(made.is_done, made.begun))
    if not is_set or is_twice:
        raise RecordError(
            f"state of a stream of shards: {value!r:.80} is impossible; it was edited"
        )
    return made


def _refuse_scattered(count: int, most: int) -> None:
    if count > most:
        raise RecordError(
            f"some ranks have read so many shards ahead of others that a record would list {count} of them, and "
            f"{most} is the most: save again when the ranks that are behind have gone on"
        )


def _forward(gaps: Gaps, index: int) -> int:
    return int(gaps.forward(np.array([index]))[0])


_COUNT = schema.Integer(0, LIMIT)
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
