"""A sampler's state: what a rank says of an epoch, and how the ranks' words become one.

In a running segment a rank knows only its own count. Alone, it speaks for all as if they were in lock-step
(``closed``); together, ``merge`` takes each rank's own count. Both come out as the same kind of value, which any world
size can start from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NoReturn

from globidx.core import checks, partition, schema
from globidx.core.partition import Tail
from globidx.core.progress import Progress
from globidx.errors import RecordError, RecordMismatchError

FORMAT, VERSION = "globidx.sampler", 1
MAX_WORLD_SIZE = 2**20


@dataclass(frozen=True)
class DatasetIdentity:
    """What must not change under a record: how many samples, and, where the dataset can tell, of which files."""

    num_samples: int
    num_files: int | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, dataset: Any) -> DatasetIdentity:
        """Identity of anything with ``len()``; its ``fingerprint`` and ``num_files`` count where it has them."""
        fingerprint, num_files = getattr(dataset, "fingerprint", None), getattr(dataset, "num_files", None)
        return cls(
            num_samples=checks.integer(len(dataset), "len(dataset)"),
            num_files=num_files if type(num_files) is int else None,
            fingerprint=fingerprint if isinstance(fingerprint, str) else None,
        )

    def begins(self, dataset: Any) -> bool:
        """Whether ``dataset`` is the one identified here, or that one with files appended."""
        found = DatasetIdentity.of(dataset)
        if self.num_files is not None and found.num_files is not None and self.num_files < found.num_files:
            return bool(self.fingerprint == dataset.fingerprint_of(self.num_files))
        return self == found


@dataclass(frozen=True)
class SamplerState:
    """How far one rank has come: closed segments of this epoch, and the open one with ``committed`` ids a rank.

    ``finished_epoch`` is the epoch this rank completed to get here; it tells ``merge`` that a rank one epoch
    ahead of the others has not left theirs, but done all of it.
    """

    dataset: DatasetIdentity
    order: Mapping[str, Any]
    seed: int
    epoch: int
    tail: Tail
    progress: Progress
    world_size: int
    committed: int = 0
    finished_epoch: int | None = None

    def closed(self) -> Progress:
        """Progress with the open segment ended, all ranks having committed as many ids as this one.

        Padding does not count.
        """
        prefix = min(self.committed * self.world_size, self.progress.remaining)
        return replace(self.progress.extend((prefix,)), per_rank=self.progress.per_rank + self.committed)

    def next_epoch(self) -> SamplerState:
        """The start of the epoch after this one, over the same samples."""
        return replace(self, epoch=self.epoch + 1, progress=Progress(self.progress.num_samples), committed=0)

    def to_dict(self) -> dict[str, Any]:
        """The state as fresh JSON values; ``consumed`` and ``remaining`` are for people."""
        done = self.closed()
        return {
            "format": FORMAT,
            "version": VERSION,
            "dataset": asdict(self.dataset),
            "order": dict(self.order),
            "seed": self.seed,
            "epoch": self.epoch,
            "tail": self.tail,
            "segments": [list(segment.counts) for segment in self.progress.segments],
            "per_rank": self.progress.per_rank,
            "open": {"world_size": self.world_size, "committed": self.committed},
            "finished_epoch": self.finished_epoch,
            "consumed": done.committed,
            "remaining": done.remaining,
        }

    def refuse_other_run(self, *, dataset: Any, order: Mapping[str, Any], seed: int) -> None:
        """RecordMismatchError naming the first thing in which the run at hand differs from the one that wrote this
        state.
        """
        if not self.dataset.begins(dataset):
            found = DatasetIdentity.of(dataset)
            name = next(
                n for n in ("fingerprint", "num_files", "num_samples") if getattr(self.dataset, n) != getattr(found, n)
            )
            _mismatch(
                f"dataset.{name}",
                getattr(self.dataset, name),
                getattr(found, name),
                "open the data that the record was written over",
            )
        if self.seed != seed:
            _mismatch("seed", self.seed, seed, f"pass seed={self.seed}")
        if dict(self.order) != dict(order):
            _mismatch("order", dict(self.order), dict(order), "pass the same order")

    @classmethod
    def from_dict(cls, state: Any) -> SamplerState:
        """The state that ``to_dict`` wrote; RecordError names what is missing, unknown or impossible."""
        schema.header(state, "sampler state", FORMAT, VERSION)
        fields = schema.fields(state, "sampler state", _FIELDS)
        opened = fields["open"]
        progress = _progress(fields["dataset"]["num_samples"], fields["segments"], fields["per_rank"])
        value = cls(
            dataset=DatasetIdentity(**fields["dataset"]),
            order=dict(fields["order"]),
            seed=fields["seed"],
            epoch=fields["epoch"],
            tail=fields["tail"],
            progress=progress,
            world_size=opened["world_size"],
            committed=opened["committed"],
            finished_epoch=fields["finished_epoch"],
        )
        longest = partition.stream_length(progress.remaining, rank=0, world_size=value.world_size, tail="pad")
        if value.committed > longest:
            raise RecordError(
                f"sampler state: open.committed is {value.committed}, but a rank had only {longest} to commit"
            )
        done = value.closed()
        if (fields["consumed"], fields["remaining"]) != (done.committed, done.remaining):
            raise RecordError(
                f"sampler state: consumed and remaining are {fields['consumed']} and {fields['remaining']}, but its "
                f"segments say {done.committed} and {done.remaining}; the state was edited or damaged"
            )
        return value


def merge(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All ranks' states, in rank order, as one: each rank's own count, uneven or not.

    RecordError for a wrong number of states; RecordMismatchError naming the rank and the first field in which it
    differs.
    """
    ranks = [SamplerState.from_dict(state) for state in states]
    if not ranks:
        raise RecordError("merge_states needs the state of every rank, got none")
    epoch = min(rank.epoch for rank in ranks)
    behind = [rank for rank in ranks if rank.epoch == epoch]
    finished = [_has_finished(rank, epoch) for rank in ranks]
    for name, field in _AGREED.items():
        _agree(name, [None if done else field(rank) for rank, done in zip(ranks, finished, strict=True)])
    _agree("world size", [rank.world_size for rank in ranks])
    first = behind[0]
    if len(ranks) != first.world_size:
        raise RecordError(
            f"merge_states got {len(ranks)} states, but they were taken at world size {first.world_size}; "
            "pass the state of every rank, in rank order"
        )
    return _merged(first, ranks, finished).to_dict()


def _merged(first: SamplerState, ranks: Sequence[SamplerState], finished: Sequence[bool]) -> SamplerState:
    remaining, world_size = first.progress.remaining, first.world_size
    counts = []
    for number, (rank, done) in enumerate(zip(ranks, finished, strict=True)):
        share = partition.share(remaining, rank=number, world_size=world_size)
        whole = partition.stream_length(remaining, rank=number, world_size=world_size, tail=first.tail)
        counts.append(min(share, whole if done else rank.committed))
    progress = first.progress.extend(counts)
    merged = replace(first, progress=progress, committed=0)
    return merged.next_epoch() if progress.num_samples and not progress.remaining else merged


def _has_finished(rank: SamplerState, epoch: int) -> bool:
    """Whether a rank stands at the start of the next epoch because it completed ``epoch``."""
    return (
        rank.epoch == epoch + 1 and rank.finished_epoch == epoch and not rank.progress.segments and not rank.committed
    )


def _agree(name: str, values: Sequence[Any]) -> None:
    """RecordMismatchError naming the odd rank out, if there is one; None is a rank that has no say."""
    said = [repr(value) for value in values if value is not None]
    if len(set(said)) <= 1:
        return
    usual = Counter(said).most_common(1)[0][0]
    rank, value = next((rank, v) for rank, v in enumerate(values) if v is not None and repr(v) != usual)
    error = RecordMismatchError(
        f"rank {rank} disagrees on {name}: it has {value!r}, the others {usual}; "
        "every rank must build its sampler over the same dataset, with the same arguments, and restore the same record"
    )
    error.field = name
    raise error


_AGREED: dict[str, Callable[[SamplerState], Any]] = {
    "dataset": lambda s: asdict(s.dataset),
    "order": lambda s: dict(s.order),
    "seed": lambda s: s.seed,
    "tail": lambda s: s.tail,
    "epoch": lambda s: s.epoch,
    "segments": lambda s: (s.progress.segments, s.progress.per_rank),
}


def _mismatch(field: str, recorded: Any, found: Any, cure: str) -> NoReturn:
    error = RecordMismatchError(
        f"the record was written with {field} {recorded!r}, this run has {found!r}; "
        f"resuming would read the wrong samples: {cure}, or start a new run"
    )
    error.field = field
    raise error


def _progress(num_samples: int, segments: Sequence[Sequence[int]], per_rank: int) -> Progress:
    progress = Progress(num_samples)
    for counts in segments:
        try:
            progress = progress.extend(counts)
        except (ValueError, TypeError) as error:
            raise RecordError(f"sampler state: segments do not fit {num_samples} samples: {error}") from None
    return replace(progress, per_rank=per_rank)


_COUNT = schema.Integer(0, checks.INT64_MAX)
_FIELDS = {
    "dataset": schema.Fields(
        num_samples=_COUNT, num_files=schema.Optional(_COUNT), fingerprint=schema.Optional(schema.Text(256))
    ),
    "order": schema.Json(),
    "seed": _COUNT,
    "epoch": _COUNT,
    "tail": schema.OneOf(partition.TAILS),
    "segments": schema.List(schema.List(_COUNT, at_least=1)),
    "per_rank": _COUNT,
    "open": schema.Fields(world_size=schema.Integer(1, MAX_WORLD_SIZE), committed=_COUNT),
    "finished_epoch": schema.Optional(_COUNT),
    "consumed": _COUNT,
    "remaining": _COUNT,
}
