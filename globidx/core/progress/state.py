"""A sampler's state: how far one rank has come in an epoch, as a value and as JSON.

In a running segment a rank knows only its own count. A single state is taken as if all ranks were
in lock-step (``closed``); ``globidx.core.progress.merge`` takes the count of each rank. Both
results are states that any world size can resume from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.json import schema, strict
from globidx.core.progress import partition
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.limits import (
    MAX_IDS,
    MAX_LAYERS,
    MAX_RANGES,
    MAX_WORLD_SIZE,
    bounded,
    refuse_too_much,
)
from globidx.core.progress.partition import Tail
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Layer, Progress, Segment, Taken
from globidx.errors import CommitError, RecordError

FORMAT, VERSION = "globidx.sampler", 2


@dataclass(frozen=True)
class SamplerState:
    """How far one rank has come in an epoch.

    Parameters
    ----------
    dataset : DatasetIdentity
        The samples of the epoch.
    order : mapping
        The description of the planned order.
    seed, epoch : int
        What the order is bound to.
    tail : {"pad", "drop", "exact"}
        How the last positions are dealt.
    progress : Progress
        What earlier segments of the epoch have committed and left out.
    world_size : int
        The number of ranks of the open segment.
    committed : int
        How many ids of the open segment this rank has committed; ``open.count`` in a record.
    taken : Ranges or None
        Which ids of its stream those are, by index, if a batch sampler may have regrouped them; None
        if they are the first. In a record they are ``open.count`` in place of a number.
    finished_epoch : int or None
        The epoch that this rank completed to get here. A merge thus knows that a rank which is one
        epoch ahead has completed the epoch of the others.
    trail : str
        The digest of all segments that this rank has left since a record was loaded.
    skip : Ranges
        Ids to leave out. ``progress`` has those that the running epoch leaves out already.
    quarantined : Ranges
        Ids of the whole run that were replaced by others. They count as delivered, and are left
        out only if ``skip`` has them too.
    """

    dataset: DatasetIdentity
    order: Mapping[str, Any]
    seed: int
    epoch: int
    tail: Tail
    progress: Progress
    world_size: int = 1
    committed: int = 0
    taken: Ranges | None = None
    finished_epoch: int | None = None
    trail: str = ""
    skip: Ranges = field(default_factory=Ranges)
    quarantined: Ranges = field(default_factory=Ranges)

    def stream_length(self, rank: int) -> int:
        """Return how many ids ``rank`` yields in the open segment, padding included."""
        remaining = self.progress.remaining
        return partition.stream_length(
            remaining, rank=rank, world_size=self.world_size, tail=self.tail
        )

    def dealt_to(self, world_size: int) -> SamplerState:
        """Return the state with the open segment dealt to ``world_size`` ranks."""
        # Nearly always the world size has not changed, and then nothing is copied.
        return self if self.world_size == world_size else replace(self, world_size=world_size)

    @property
    def runs(self) -> Ranges:
        """Which ids of its stream this rank has committed, by index."""
        return Ranges.of(range(self.committed)) if self.taken is None else self.taken

    @property
    def speaks_for_all(self) -> bool:
        """Whether it says what all ranks have committed, if they keep step.

        What batches held that were regrouped on one rank says nothing of the others.
        """
        return self.taken is None or self.world_size == 1

    def refuse_single_rank(self) -> None:
        """RecordError unless it ``speaks_for_all``: nobody can go on from it alone."""
        if not self.speaks_for_all:
            raise RecordError(
                f"this is the state of one rank of {self.world_size}, whose batch sampler may regroup ids: it does not "
                "say what the other ranks have had, so their samples would be lost or repeated; save with "
                "CheckpointManager, or load merge_states() of the states of all ranks"
            )

    def commit(self, amount: int, rank: int, at: Ranges | None = None) -> SamplerState:
        """Return the state with ``amount`` more ids of ``rank`` committed.

        They are those ``at`` some indices of its stream, or else the first that it has left.
        CommitError if it had fewer left.
        """
        left = self.stream_length(rank) - self.committed
        if amount > left:
            raise CommitError(
                f"commit({amount}), but this rank has only {left} ids left in epoch {self.epoch}; "
                "commit each batch once, with the number of ids in it"
            )
        if at is None and self.taken is None:
            return replace(self, committed=self.committed + amount)
        if at is None:
            at = Ranges.of_ids(Gaps.of_ranges(self.runs).forward(np.arange(amount)))
        return replace(self, committed=self.committed + amount, taken=self.runs | at)

    def is_complete(self, rank: int) -> bool:
        """Return whether the epoch is complete if all ranks are in lock-step.

        With an exact tail, this rank may have committed all its ids while others still have one.
        """
        # All that remained of the epoch when it was loaded may be skipped.
        if self.progress.committed and not self.progress.remaining:
            return True
        if not self.committed or self.committed < self.stream_length(rank):
            return False
        # padded or cut, all streams are equally long, so every rank is done when this one is
        return self.tail == "drop" or self.committed * self.world_size >= self.progress.remaining

    def quarantine(self, ids: Ranges) -> SamplerState:
        """Return the state with ``ids`` in quarantine as well.

        RecordError if a record cannot hold so many.
        """
        return replace(
            self, quarantined=bounded(self.quarantined | ids, "the quarantine would have")
        )

    def closed(self) -> Progress:
        """Return the progress after the open segment, as if all ranks were as far as this one.

        Padding is not progress. Unless it ``speaks_for_all`` only the numbers in it mean anything.
        """
        if self.taken is not None and self.world_size == 1:
            after = self.progress.take(self.taken)
            return replace(after, per_rank=self.progress.per_rank + self.committed)
        # what is beyond is padding, which is never progress
        prefix = min(self.committed * self.world_size, self.progress.remaining)
        return replace(
            self.progress.extend((prefix,)), per_rank=self.progress.per_rank + self.committed
        )

    def resumed(self) -> tuple[int, Progress]:
        """The epoch and progress that a run goes on with.

        If no epoch is running, that is the start of one.
        """
        progress = self.closed()
        if progress.committed and progress.remaining:
            return self.epoch, progress
        return self.epoch + bool(progress.committed), Progress(progress.length)

    def next_epoch(self) -> SamplerState:
        """Return the start of the next epoch, with nothing committed and nothing left out yet."""
        fresh = Progress(self.progress.length)
        return replace(
            self,
            epoch=self.epoch + 1,
            progress=fresh,
            committed=0,
            taken=None,
            trail=self.left_behind(),
        )

    def left_behind(self) -> str:
        """Return the trail after this segment: a digest of it and of the trail before it.

        Two ranks have different trails if they had different data, orders or histories in any
        epoch since a record was loaded.
        """
        left = [
            self.trail,
            asdict(self.dataset),
            dict(self.order),
            self.seed,
            self.epoch,
            self.tail,
            self.world_size,
        ]
        layers = [_layer_to_json(layer) for layer in self.progress.history]
        return hashlib.blake2b(strict.canonical([*left, layers]), digest_size=16).hexdigest()

    def normal(self, rank: int) -> SamplerState:
        """Return the state as it is written: the end of an epoch is the start of the next one."""
        return self.after_epoch() if self.is_complete(rank) else self

    def after_epoch(self) -> SamplerState:
        """Return the start of the next epoch, for a rank that has completed this one."""
        return replace(self.next_epoch(), finished_epoch=self.epoch)

    def to_dict(self) -> dict[str, Any]:
        """Return the state as new JSON values, as ``state_dict`` returns it.

        The keys are always the same, and no list holds an object: torch.distributed.checkpoint
        flattens objects into keys, and loads only the keys that the state of a new sampler has.
        ``committed``, ``skipped`` and ``remaining`` are sums, for people.

        Raises
        ------
        RecordError
            If a reader would refuse the state, because its history is too long.
        """
        # what is taken becomes a layer of the history when the segment is closed
        refuse_too_much([*self.progress.history, *([Taken(self.taken)] if self.taken else [])])
        done = self.closed()
        return {
            "format": FORMAT,
            "version": self._version,
            "dataset": asdict(self.dataset),
            "order": strict.plain(dict(self.order), "order"),
            "seed": self.seed,
            "epoch": self.epoch,
            "tail": self.tail,
            "length": self.progress.length,
            "segments": [_layer_to_json(layer) for layer in self.progress.history],
            "per_rank": self.progress.per_rank,
            "open": {"world_size": self.world_size, "count": self._count},
            "finished_epoch": self.finished_epoch,
            "trail": self.trail,
            "skip": _pairs(self.skip),
            "committed": done.committed,
            "skipped": done.skipped,
            "remaining": done.remaining,
            "quarantined": _pairs(self.quarantined),
        }

    @property
    def _count(self) -> int | list[list[int]]:
        """``open.count`` of a record."""
        if self.taken is None:
            return self.committed
        # of a single rank that has its first ids nothing needs to be said but how many
        is_first = self.world_size == 1 and self.taken == Ranges.of(range(self.committed))
        return self.committed if is_first else _pairs(self.taken)

    @property
    def _version(self) -> int:
        """The first version whose readers know all that is in this state."""
        # older readers go on reading what they know
        regrouped = any(isinstance(layer, Taken) for layer in self.progress.history)
        return 2 if regrouped or type(self._count) is list else 1

    @classmethod
    def from_dict(cls, state: Any) -> SamplerState:
        """Return the state that ``to_dict`` wrote.

        RecordError names what is missing, unknown or impossible.
        """
        _refuse_whole_record(state)
        schema.header(state, "sampler state", FORMAT, VERSION)
        fields = schema.fields(state, "sampler state", _FIELDS)
        count = fields["open"]["count"]
        taken = _ascending([] if type(count) is int else count)
        value = cls(
            dataset=DatasetIdentity(**fields["dataset"]),
            order=_order(fields["order"]),
            seed=fields["seed"],
            epoch=fields["epoch"],
            tail=fields["tail"],
            progress=_progress(
                fields["length"],
                fields["segments"],
                fields["per_rank"],
                fields["dataset"]["num_samples"],
            ),
            world_size=fields["open"]["world_size"],
            committed=count if type(count) is int else taken.size,
            taken=None if type(count) is int else taken,
            finished_epoch=fields["finished_epoch"],
            trail=fields["trail"],
            # These lists may have ids of appended files, which only the next epoch has.
            skip=_ranges(fields["skip"], None),
            quarantined=_ranges(fields["quarantined"], None),
        )
        if state["version"] < value._version:
            raise RecordError(
                f"sampler state: version {state['version']} knows no regrouped ids, but it has some; it was edited or "
                "damaged"
            )
        # whose state it is, is not in it: the longest stream of any rank bounds its count
        longest = partition.stream_length(
            value.progress.remaining, rank=0, world_size=value.world_size, tail="pad"
        )
        if max(value.committed, taken.pairs[-1][1] if taken.pairs else 0) > longest:
            raise RecordError(
                f"sampler state: open.count is {count!r:.80}, but a rank was dealt only {longest} ids; it was "
                "edited or damaged"
            )
        done = value.closed()
        # they are for people, but a record that says two things was edited
        sums = {"committed": done.committed, "skipped": done.skipped, "remaining": done.remaining}
        for name, computed in sums.items():
            if fields[name] != computed:
                raise RecordError(
                    f"sampler state: {name} is {fields[name]}, but its segments say {computed}; it was edited or "
                    "damaged"
                )
        return value


def _order(described: Any) -> dict[str, Any]:
    try:
        order: dict[str, Any] = strict.plain(described, "order")
    except (TypeError, ValueError) as error:
        raise RecordError(f"sampler state: {error}") from None
    return order


def _refuse_whole_record(state: Any) -> None:
    states = state.get("states") if isinstance(state, Mapping) else None
    # the usual mistake: the file that was read in place of the part of it that is the sampler's
    if isinstance(states, Mapping) and state.get("format") == "globidx.record":
        names = [
            name
            for name, held in states.items()
            if isinstance(held, Mapping) and held.get("format") == FORMAT
        ]
        shown = (
            " or ".join(f"record['states'][{name!a:.40}]" for name in names[:3])
            or "none of its states"
        )
        raise RecordError(
            f"this is a whole record, but a sampler loads its own state only: pass {shown}, or load the record with a "
            "CheckpointManager"
        )


def _layer_to_json(layer: Layer) -> Any:
    if isinstance(layer, Segment):
        return list(layer.counts)
    if isinstance(layer, Taken):
        return ["taken", _pairs(layer.indices)]
    return ["skip", layer.positions, _pairs(layer.ids)]


def _pairs(ranges: Ranges) -> list[list[int]]:
    return [list(pair) for pair in ranges.pairs]


def _progress(length: int, layers: Sequence[Any], per_rank: int, num_samples: int) -> Progress:
    progress = Progress(length)
    for layer in layers:
        try:
            if layer[0] == "skip":
                progress = progress.skip(_ranges(layer[2], num_samples), layer[1])
            elif layer[0] == "taken":
                progress = progress.take(_ascending(layer[1]))
            else:
                progress = progress.extend(layer)
        except (ValueError, TypeError) as error:
            raise RecordError(
                f"sampler state: its segments do not fit {length} positions: {error}"
            ) from None
    refuse_too_much(progress.history)
    # also where a rank had padding: its share is never more than what remained
    if per_rank > progress.committed:
        raise RecordError(
            f"sampler state: per_rank is {per_rank}, but all ranks together have committed {progress.committed} "
            "positions; it was edited or damaged"
        )
    return replace(progress, per_rank=per_rank)


def _ascending(pairs: Sequence[Sequence[int]]) -> Ranges:
    ranges = Ranges(tuple((start, stop) for start, stop in pairs))
    # ascending and disjoint in one look: every end is above the one before it
    ends = [end for pair in ranges.pairs for end in pair]
    if any(low >= high for low, high in pairwise(ends)):
        raise RecordError(f"sampler state: ranges of ids must ascend, got {list(pairs)!r:.80}")
    return ranges


def _ranges(pairs: Sequence[Sequence[int]], num_samples: int | None) -> Ranges:
    ranges = _ascending(pairs)
    if ranges.size > MAX_IDS:
        raise RecordError(
            f"sampler state: a list has {ranges.size} ids, but at most {MAX_IDS} are allowed"
        )
    last = ranges.pairs[-1][1] if ranges.pairs else 0
    if num_samples is not None and last > num_samples:
        raise RecordError(
            f"sampler state: skipped ids reach {last}, but there are {num_samples} samples"
        )
    return ranges


def _layer(value: Any, where: str) -> Any:
    """Check one layer of a history.

    It is ``["skip", positions, ranges]``, ``["taken", ranges]``, or the counts of the ranks of a
    segment.
    """
    if type(value) is list and value[:1] == ["skip"]:
        if len(value) != 3:
            raise RecordError(f'{where} must be ["skip", positions, ranges], got {value!r:.80}')
        return ["skip", _COUNT(value[1], f"{where}[1]"), _RANGES(value[2], f"{where}[2]")]
    if type(value) is list and value[:1] == ["taken"]:
        if len(value) != 2:
            raise RecordError(f'{where} must be ["taken", ranges], got {value!r:.80}')
        return ["taken", _MANY_RANGES(value[1], f"{where}[1]")]
    # A quick check for the usual case: a call for each of many thousand ranks would be slow.
    if (
        type(value) is list
        and set(map(type, value)) == {int}
        and min(value) >= 0
        and max(value) <= _LARGEST
    ):
        return value
    return _COUNTS(value, where)


_LARGEST = 2**62
_COUNT = schema.Integer(0, _LARGEST)
_COUNTS = schema.List(_COUNT, at_least=1)
_RANGES = schema.List(schema.List(_COUNT, at_least=2, at_most=2), at_most=MAX_RANGES)
#: those of all ranks together
_MANY_RANGES = schema.List(
    schema.List(_COUNT, at_least=2, at_most=2), at_least=1, at_most=2 * MAX_RANGES
)


def _open_count(value: Any, where: str) -> Any:
    """Check how many ids of the open segment are committed, or which."""
    check = _RANGES if type(value) is list and value else _COUNT
    return check(value, where)


_FIELDS = {
    "dataset": schema.Fields(
        num_samples=_COUNT,
        num_files=schema.Optional(_COUNT),
        fingerprint=schema.Optional(schema.Text(256)),
    ),
    "order": schema.Json(),
    "seed": _COUNT,
    "epoch": _COUNT,
    "tail": schema.OneOf(partition.TAILS),
    "length": _COUNT,
    "segments": schema.List(_layer, at_most=MAX_LAYERS),
    "per_rank": _COUNT,
    "open": schema.Fields(world_size=schema.Integer(1, MAX_WORLD_SIZE), count=_open_count),
    "finished_epoch": schema.Optional(_COUNT),
    "trail": schema.Text(32),
    "skip": _RANGES,
    "committed": _COUNT,
    "skipped": _COUNT,
    "remaining": _COUNT,
    "quarantined": _RANGES,
}
