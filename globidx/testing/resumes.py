"""Whether a run that stops in mid-epoch goes on with what is left, on any number of ranks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from globidx.core import validate
from globidx.core.progress.merge import merge_states
from globidx.testing.batches import Ids
from globidx.testing.causes import cause, offset, wrong
from globidx.testing.loops import Job, MakeLoader, Part, counted, sampler_of, whole_epoch
from globidx.torch.collating.rows import Bits, bits_of, bits_of_rows

#: Returns one value a sample of a batch.
Values = Callable[[Any], Sequence[Any]]


def assert_resumes(
    make_loader: MakeLoader,
    *,
    world_sizes: Iterable[Sequence[int]] = ((2, 1), (2, 3)),
    stop_after: int | Iterable[int] | None = None,
    save: Callable[[list[Any]], Any] | None = None,
    load: Callable[[Any, Any], None] | None = None,
    ids: Ids | None = None,
    values: Values | None = None,
) -> None:
    """Check that a run which is stopped in mid-epoch and resumed reads each sample exactly once.

    The epoch that was stopped and the one after it must be whole, and every sample must have the
    value, bit for bit, that it has in a run without a stop.

    Parameters
    ----------
    make_loader : callable
        As for ``assert_exact_epoch``. A loader is made anew for each rank and each resume.
    world_sizes : iterable of sequences of int, default ((2, 1), (2, 3))
        Runs: each stops and is saved on its first world size, resumes on the second, and so on.
    stop_after : int or iterable of int, optional
        After how many batches a rank stops, one value a run; by default after the first, in the
        middle, and before the last.
    save : callable, optional
        ``save(loaders)`` returns what is saved of the loaders of all ranks, while each loop holds
        its last batch. By default ``merge_states`` of the ``state_dict()`` of all samplers.
    load : callable, optional
        ``load(loader, saved)`` resumes the new loader of one rank. By default
        ``loader.sampler.load_state_dict(saved)``.
    ids : callable, optional
        ``ids(batch)`` returns the sample ids of a batch, as for ``assert_exact_epoch``.
    values : callable, optional
        ``values(batch)`` returns one value a sample. By default these are the rows of all that is
        in the batch; where a batch has no rows, as with ``collate.concat``, or pads them, pass it.

    Raises
    ------
    AssertionError
        If samples are lost, repeated, or have other values. It names the world sizes, the batch
        that was stopped after, the ids, and what probably causes it.
    TypeError
        If ``make_loader`` returns no such loader, or a batch has no ids or no rows.
    globidx.errors.CommitError
        If the loader itself refuses its batches, or the sampler a commit.
    ValueError
        If a run has one world size, or is stopped after its end.

    Notes
    -----
    All ranks stop after the same batch, in one process. It does not see ranks that are killed while
    they save, ranks that progressed by different amounts, or a global random state that a new
    process would not have.

    Examples
    --------
    >>> from globidx import DataLoader, ResumableDistributedSampler
    >>> def make_loader(rank, world_size):
    ...     sampler = ResumableDistributedSampler(range(41), world_size, rank)
    ...     return DataLoader(range(41), batch_size=4, sampler=sampler)
    >>> assert_resumes(make_loader, ids=lambda batch: batch)
    """
    for run in [_run_of(sizes) for sizes in world_sizes]:
        whole, steps = _uninterrupted(make_loader, run[0], ids, values)
        for stop in _stops(stop_after, steps):
            resumed = _Run(make_loader, run, stop, ids, _Seen(values, whole))
            resumed.play(save or _save, load or _load)


def _run_of(sizes: Sequence[int]) -> list[int]:
    if not isinstance(sizes, Sequence) or len(sizes) < 2:
        raise ValueError(
            f"each of world_sizes is a run that stops and resumes, such as (2, 3), got {sizes!r}"
        )
    return [validate.integer(world_size, "a world size", low=1) for world_size in sizes]


def _save(loaders: list[Any]) -> Any:
    samplers = [sampler_of(loader) for loader in loaders]
    for sampler in samplers:
        sampler._ledger.expect_all_ranks()
    record = merge_states([sampler.state_dict() for sampler in samplers])
    # a record is JSON once it is saved
    return json.loads(json.dumps(record))


def _load(loader: Any, saved: Any) -> None:
    sampler_of(loader).load_state_dict(saved)


def _stops(given: int | Iterable[int] | None, steps: int) -> list[int]:
    if given is None:
        stops = sorted({1, steps // 2, steps - 1} - {0})
    else:
        stops = list(given) if isinstance(given, Iterable) else [given]
    for stop in stops:
        if validate.integer(stop, "stop_after", low=1) >= steps:
            raise ValueError(
                f"stop_after={stop} is not in mid-epoch: a rank has {steps} batches; make the "
                "dataset larger, the batches smaller, or stop earlier"
            )
    return stops


class _Seen:
    """The bits of each sample by epoch and id; AssertionError for others than an earlier run's."""

    def __init__(self, values: Values | None, before: _Seen | None = None) -> None:
        self._values, self._before = values, before
        self.bits: dict[tuple[int, int], Bits] = {}

    def __call__(self, epoch: int, batch: Any, ids: list[int]) -> None:
        for id, bits in zip(ids, self._bits(batch, len(ids)), strict=True):
            self.bits[epoch, id] = bits
            expected = bits if self._before is None else self._before.bits.get((epoch, id), bits)
            if bits != expected:
                raise AssertionError(_other_value(epoch, id, expected, bits))

    def _bits(self, batch: Any, count: int) -> list[Bits]:
        if self._values is None:
            return bits_of_rows(batch, count)
        return [{"": bits_of(value)} for value in self._values(batch)]


def _other_value(epoch: int, id: int, expected: Bits, bits: Bits) -> str:
    places = sorted(place for place in expected | bits if expected.get(place) != bits.get(place))
    where = f" at {places[0]!r}" if places[0] else ""
    return (
        f"sample {id} of epoch {epoch} has another value{where} than in the run without a stop. A "
        "transform draws from a global generator, which resumes elsewhere: let it take its sample's, "
        "transform(sample, rng), or make the dataset with seed_transforms=True"
    )


def _uninterrupted(
    make_loader: MakeLoader, world_size: int, ids: Ids | None, values: Values | None
) -> tuple[_Seen, int]:
    """The values of two epochs, and how many batches a rank has of the first."""
    job, seen = Job(make_loader, world_size, ids), _Seen(values)
    first = job.play(0, seen)
    job.play(1, seen)
    return seen, max(len(share.batches) for share in first.shares)


class _Run:
    """A run over several world sizes, each but the last stopped after the same number of batches."""

    def __init__(
        self, make_loader: MakeLoader, sizes: Sequence[int], stop: int, ids: Ids | None, seen: _Seen
    ) -> None:
        self._make_loader, self._sizes, self._stop = make_loader, sizes, stop
        self._ids, self._seen = ids, seen
        self._where = f"{' -> '.join(map(str, sizes))} ranks, stopped after batch {stop}"

    def play(self, save: Callable[[list[Any]], Any], load: Callable[[Any, Any], None]) -> None:
        """Stop, save and resume; check the epoch, and the next one."""
        job = Job(self._make_loader, self._sizes[0], self._ids)
        parts = [self._part(job, 0, stop_after=self._stop)]
        behind = ""
        for number, world_size in enumerate(self._sizes[1:], 2):
            saved = save(job.loaders)
            job = Job(self._make_loader, world_size, self._ids)
            for loader in job.loaders:
                load(loader, saved)
            behind = behind or self._offset(job, parts)
            is_last = number == len(self._sizes)
            if job.sampler.epoch == 0:
                parts.append(self._part(job, 0, stop_after=None if is_last else self._stop))
        self._refuse_inexact(job, parts, behind)
        self._refuse_inexact(job, [self._part(job, 1)], "")

    def _part(self, job: Job, epoch: int, stop_after: int | None = None) -> Part:
        try:
            return job.play(epoch, self._seen, stop_after=stop_after)
        except AssertionError as error:
            raise AssertionError(f"{self._where}: {error}") from None

    def _offset(self, job: Job, parts: Sequence[Part]) -> str:
        expected = whole_epoch(job.sampler, 0).total() - counted(parts).total()
        left = job.sampler.remaining if job.sampler.epoch == 0 else 0
        first = parts[0].global_batches()
        return offset(left - expected, len(first[0]) if first else 1)

    def _refuse_inexact(self, job: Job, parts: Sequence[Part], behind: str) -> None:
        expected = whole_epoch(job.sampler, parts[0].epoch)
        if job.sampler.tail == "drop":
            expected &= parts[-1].left() + counted(parts[:-1])
        if found := wrong(expected, counted(parts)):
            raise AssertionError(
                f"{self._where}, epoch {parts[0].epoch}: {found}. {behind or cause(parts)}".strip()
            )
        job.raise_refused()
