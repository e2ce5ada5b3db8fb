"""A sampler's state: what one rank says of an epoch.

In a running segment a rank knows only its own count. Alone, it speaks for all as if they were in lock-step
(``closed``); together, ``globidx.core.progress.merge`` takes each rank's own count. Both come out as the same kind of
value, which any world size can start from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any, NoReturn

from globidx.core.datasets.identity import DatasetIdentity, advice
from globidx.core.json import schema, strict
from globidx.core.orders.base import Order
from globidx.core.progress import partition
from globidx.core.progress.limits import MAX_IDS, MAX_LAYERS, MAX_RANGES, MAX_WORLD_SIZE, bounded, refuse_too_much
from globidx.core.progress.partition import Tail
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress, Segment, Skip
from globidx.errors import CommitError, RecordError, RecordMismatchError

FORMAT, VERSION = "globidx.sampler", 1


@dataclass(frozen=True)
class SamplerState:
    """How far one rank is: ``progress`` of earlier segments of the epoch, and ``committed`` ids of the open one.

    ``skip`` lists ids to leave out; those that the running epoch leaves out already stand in ``progress``. ``trail`` is
    what ``left_behind`` made of the epochs before this one. ``quarantined`` lists ids that others stood in for, in the
    whole run: they count as delivered, and are left out only if ``skip`` lists them too.
    ``finished_epoch`` is the epoch this rank completed to get here: it tells a merge that a rank one epoch ahead of
    the others has not left theirs, but done all of it.
    """

    dataset: DatasetIdentity
    order: Mapping[str, Any]
    seed: int
    epoch: int
    tail: Tail
    progress: Progress
    world_size: int = 1
    committed: int = 0
    finished_epoch: int | None = None
    trail: str = ""
    skip: Ranges = field(default_factory=Ranges)
    quarantined: Ranges = field(default_factory=Ranges)

    def stream_length(self, rank: int) -> int:
        """How many ids ``rank`` yields in the open segment, padding included."""
        remaining = self.progress.remaining
        return partition.stream_length(remaining, rank=rank, world_size=self.world_size, tail=self.tail)

    def dealt_to(self, world_size: int) -> SamplerState:
        """The state with the open segment dealt to so many ranks; itself where it is, as it is at nearly all times."""
        return self if self.world_size == world_size else replace(self, world_size=world_size)

    def commit(self, amount: int, rank: int) -> SamplerState:
        """The state with ``amount`` more ids of ``rank`` committed; CommitError if it had fewer left."""
        left = self.stream_length(rank) - self.committed
        if amount > left:
            raise CommitError(
                f"commit({amount}), but this rank has only {left} ids left in epoch {self.epoch}; "
                "commit each batch once, with the number of ids in it"
            )
        return replace(self, committed=self.committed + amount)

    def is_complete(self, rank: int) -> bool:
        """Whether the epoch is done if all ranks keep step: with an exact tail others may have one id more."""
        if self.progress.committed and not self.progress.remaining:
            return True  # all that was left of it when it was loaded is skipped
        if not self.committed or self.committed < self.stream_length(rank):
            return False
        return self.tail == "drop" or self.committed * self.world_size >= self.progress.remaining

    def quarantine(self, ids: Ranges) -> SamplerState:
        """The state with ``ids`` in quarantine, too; RecordError for more than a record may hold."""
        return replace(self, quarantined=bounded(self.quarantined | ids, "the quarantine would list"))

    def closed(self) -> Progress:
        """Progress with the open segment ended, all ranks as far as this one; padding does not count."""
        prefix = min(self.committed * self.world_size, self.progress.remaining)
        return replace(self.progress.extend((prefix,)), per_rank=self.progress.per_rank + self.committed)

    def resumed(self) -> tuple[int, Progress]:
        """The epoch and progress that a run goes on with: of an epoch that is not running, the start of one."""
        progress = self.closed()
        if progress.committed and progress.remaining:
            return self.epoch, progress
        return self.epoch + bool(progress.committed), Progress(progress.length)

    def next_epoch(self) -> SamplerState:
        """The start of the next epoch, with nothing done in it and nothing left out yet."""
        fresh = Progress(self.progress.length)
        return replace(self, epoch=self.epoch + 1, progress=fresh, committed=0, trail=self.left_behind())

    def left_behind(self) -> str:
        """The trail once this segment is left: a digest of it, over all that led here since a record was loaded.

        Ranks that dealt from different data, orders or histories in any epoch since have different trails.
        """
        left = [self.trail, asdict(self.dataset), dict(self.order), self.seed, self.epoch, self.tail, self.world_size]
        layers = [_layer_to_json(layer) for layer in self.progress.history]
        return hashlib.blake2b(strict.canonical([*left, layers]), digest_size=16).hexdigest()

    def normal(self, rank: int) -> SamplerState:
        """The state as it is written: a completed epoch is the next one's start."""
        return self.after_epoch() if self.is_complete(rank) else self

    def after_epoch(self) -> SamplerState:
        """The start of the next epoch, of a rank that has done this one to its end."""
        return replace(self.next_epoch(), finished_epoch=self.epoch)

    def to_dict(self) -> dict[str, Any]:
        """The state as fresh JSON values, as ``state_dict`` returns it.

        ``committed``, ``skipped`` and ``remaining`` are sums, for people.

        Whatever it says, it has the same keys, and lists hold no objects: torch.distributed.checkpoint takes objects
        apart, and loads only what a fresh sampler's state has a place for.

        Raises
        ------
        RecordError
            Where it would be more than a reader accepts.
        """
        refuse_too_much(self.progress.history)
        done = self.closed()
        return {
            "format": FORMAT,
            "version": VERSION,
            "dataset": asdict(self.dataset),
            "order": strict.plain(dict(self.order), "order"),
            "seed": self.seed,
            "epoch": self.epoch,
            "tail": self.tail,
            "length": self.progress.length,
            "segments": [_layer_to_json(layer) for layer in self.progress.history],
            "per_rank": self.progress.per_rank,
            "open": {"world_size": self.world_size, "count": self.committed},
            "finished_epoch": self.finished_epoch,
            "trail": self.trail,
            "skip": [list(pair) for pair in self.skip.pairs],
            "committed": done.committed,
            "skipped": done.skipped,
            "remaining": done.remaining,
            "quarantined": [list(pair) for pair in self.quarantined.pairs],
        }

    @classmethod
    def from_dict(cls, state: Any) -> SamplerState:
        """The state that ``to_dict`` wrote; RecordError names what is missing, unknown or impossible."""
        _refuse_whole_record(state)
        schema.header(state, "sampler state", FORMAT, VERSION)
        fields = schema.fields(state, "sampler state", _FIELDS)
        value = cls(
            dataset=DatasetIdentity(**fields["dataset"]),
            order=strict.plain(fields["order"], "order"),
            seed=fields["seed"],
            epoch=fields["epoch"],
            tail=fields["tail"],
            progress=_progress(
                fields["length"], fields["segments"], fields["per_rank"], fields["dataset"]["num_samples"]
            ),
            world_size=fields["open"]["world_size"],
            committed=fields["open"]["count"],
            finished_epoch=fields["finished_epoch"],
            trail=fields["trail"],
            skip=_ranges(fields["skip"], None),  # ids of files appended since may be told before an epoch has them
            quarantined=_ranges(fields["quarantined"], None),
        )
        longest = partition.stream_length(value.progress.remaining, rank=0, world_size=value.world_size, tail="pad")
        if value.committed > longest:
            raise RecordError(
                f"sampler state: open.count is {value.committed}, but a rank had only {longest} to commit"
            )
        done = value.closed()
        sums = {"committed": done.committed, "skipped": done.skipped, "remaining": done.remaining}
        for name, found in sums.items():
            if fields[name] != found:
                raise RecordError(
                    f"sampler state: {name} is {fields[name]}, but its segments say {found}; it was edited or damaged"
                )
        return value

    def refuse_other_run(self, *, dataset: Any, order: Order, seed: int) -> None:
        """RecordMismatchError with the first difference between this run and the one that wrote the state."""
        if not self.dataset.begins(dataset):
            found = DatasetIdentity.of(dataset)
            name = next(
                n for n in ("fingerprint", "num_files", "num_samples") if getattr(self.dataset, n) != getattr(found, n)
            )
            _mismatch(
                f"dataset.{name}",
                getattr(self.dataset, name),
                getattr(found, name),
                advice(dataset),
            )
        if self.seed != seed:
            _mismatch("seed", self.seed, seed, f"pass seed={self.seed}")
        if not order.matches(self.order):
            _mismatch("order", dict(self.order), order.describe(), "pass the same order")


def _refuse_whole_record(state: Any) -> None:
    states = state.get("states") if isinstance(state, Mapping) else None
    if isinstance(states, Mapping) and state.get("format") == "globidx.record":
        names = [name for name, held in states.items() if isinstance(held, Mapping) and held.get("format") == FORMAT]
        shown = ", ".join(f"record['states'][{name!a:.40}]" for name in names[:3]) or "none of it"
        raise RecordError(
            f"this is a whole record, and a sampler takes its own state out of it: {shown}; a CheckpointManager takes "
            "all of it"
        )


def _mismatch(field: str, recorded: Any, found: Any, cure: str) -> NoReturn:
    error = RecordMismatchError(
        f"the record was written with {field} {recorded!r}, this run has {found!r}; "
        f"resuming would read the wrong samples: {cure}, or start a new run"
    )
    error.field = field
    raise error


def _layer_to_json(layer: Segment | Skip) -> Any:
    if isinstance(layer, Segment):
        return list(layer.counts)
    return ["skip", layer.positions, [list(pair) for pair in layer.ids.pairs]]


def _progress(length: int, layers: Sequence[Any], per_rank: int, num_samples: int) -> Progress:
    progress = Progress(length)
    for layer in layers:
        try:
            if layer[0] == "skip":
                progress = progress.skip(_ranges(layer[2], num_samples), layer[1])
            else:
                progress = progress.extend(layer)
        except (ValueError, TypeError) as error:
            raise RecordError(f"sampler state: segments do not fit {length} positions: {error}") from None
    refuse_too_much(progress.history)
    return replace(progress, per_rank=per_rank)


def _ranges(pairs: Sequence[Sequence[int]], num_samples: int | None) -> Ranges:
    ranges = Ranges(tuple((start, stop) for start, stop in pairs))
    ends = [end for pair in ranges.pairs for end in pair]
    if any(low >= high for low, high in pairwise(ends)):
        raise RecordError(f"sampler state: skipped ranges must ascend, got {list(pairs)!r:.80}")
    if ranges.size > MAX_IDS:
        raise RecordError(f"sampler state: {ranges.size} ids are listed, the most is {MAX_IDS}")
    if ends and num_samples is not None and ends[-1] > num_samples:
        raise RecordError(f"sampler state: skipped ids reach {ends[-1]}, but there are {num_samples} samples")
    return ranges


def _layer(value: Any, where: str) -> Any:
    """``["skip", positions, ranges]``, or the counts of a segment's ranks."""
    if type(value) is list and value[:1] == ["skip"]:
        if len(value) != 3:
            raise RecordError(f'{where} must be ["skip", positions, ranges], got {value!r:.80}')
        return ["skip", _COUNT(value[1], f"{where}[1]"), _RANGES(value[2], f"{where}[2]")]
    # what nearly all are, without a call for each of many thousand ranks
    if type(value) is list and set(map(type, value)) == {int} and min(value) >= 0 and max(value) <= _LARGEST:
        return value
    return _COUNTS(value, where)


_LARGEST = 2**62
_COUNT = schema.Integer(0, _LARGEST)
_COUNTS = schema.List(_COUNT, at_least=1)
_RANGES = schema.List(schema.List(_COUNT, at_least=2, at_most=2), at_most=MAX_RANGES)
_FIELDS = {
    "dataset": schema.Fields(
        num_samples=_COUNT, num_files=schema.Optional(_COUNT), fingerprint=schema.Optional(schema.Text(256))
    ),
    "order": schema.Json(),
    "seed": _COUNT,
    "epoch": _COUNT,
    "tail": schema.OneOf(partition.TAILS),
    "length": _COUNT,
    "segments": schema.List(_layer, at_most=MAX_LAYERS),
    "per_rank": _COUNT,
    "open": schema.Fields(world_size=schema.Integer(1, MAX_WORLD_SIZE), count=_COUNT),
    "finished_epoch": schema.Optional(_COUNT),
    "trail": schema.Text(32),
    "skip": _RANGES,
    "committed": _COUNT,
    "skipped": _COUNT,
    "remaining": _COUNT,
    "quarantined": _RANGES,
}
