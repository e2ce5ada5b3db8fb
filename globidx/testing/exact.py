"""Whether a loop reads each sample of an epoch once, on any number of ranks."""

from __future__ import annotations

from collections.abc import Iterable

from globidx.core import validate
from globidx.core.orders.chunk_shuffle import ChunkShuffle
from globidx.testing.batches import Ids
from globidx.testing.causes import cause, is_cut, listed, wrong
from globidx.testing.loops import Job, MakeLoader, Part, whole_epoch


def assert_exact_epoch(
    make_loader: MakeLoader,
    world_sizes: Iterable[int] = (1, 2, 3),
    *,
    epochs: int = 1,
    ids: Ids | None = None,
) -> None:
    """Check that every sample of an epoch comes exactly once, over all ranks, on each world size.

    Also, that the global batches are the same sets in the same sequence on all world sizes for
    which world size times batch size is the same.

    Parameters
    ----------
    make_loader : callable
        ``make_loader(rank, world_size)`` makes the loader of one rank, over a
        ``ResumableDistributedSampler(dataset, num_replicas=world_size, rank=rank)``: a
        ``globidx.DataLoader``, a torch ``DataLoader`` (its batches are committed by hand), or what
        wraps one and has its ``sampler``.
    world_sizes : iterable of int, default (1, 2, 3)
        On how many ranks.
    epochs : int, default 1
        How many epochs, one after the other with the same loaders.
    ids : callable, optional
        ``ids(batch)`` returns the sample ids of a batch. By default batches are those of a dataset
        ``with_id=True``, whose last part is the ids.

    Raises
    ------
    AssertionError
        If samples are lost, repeated or out of sequence. It names the world size, the ids, and what
        probably causes it.
    TypeError
        If ``make_loader`` returns no such loader, or a batch has no ids.
    globidx.errors.CommitError
        If the loader itself refuses its batches, or the sampler a commit.

    Notes
    -----
    Padding (``tail="pad"``) and what ``tail="drop"`` leaves out are allowed. What one process
    cannot see: ranks that disagree on arguments, collectives that hang, the launcher's environment.
    With ``ChunkShuffle``, and with batch samplers that regroup ids, global batches depend on ranks and
    workers, and are not compared.

    Examples
    --------
    >>> from globidx import DataLoader, ResumableDistributedSampler
    >>> def make_loader(rank, world_size):
    ...     sampler = ResumableDistributedSampler(range(41), world_size, rank)
    ...     return DataLoader(range(41), batch_size=4, sampler=sampler)
    >>> assert_exact_epoch(make_loader, ids=lambda batch: batch)
    """
    epochs = validate.integer(epochs, "epochs", low=1)
    # by epoch and size of the first global batch
    seen: dict[tuple[int, int], Part] = {}
    for world_size in world_sizes:
        job = Job(make_loader, world_size, ids)
        for epoch in range(epochs):
            part = job.play(epoch)
            _refuse_inexact(part, job)
            if not isinstance(job.sampler.order, ChunkShuffle) and _is_cut(part):
                size = sum(len(share.batches[0]) for share in part.shares if share.batches)
                _refuse_other_batches(seen.setdefault((epoch, size), part), part)


def _refuse_inexact(part: Part, job: Job) -> None:
    where = f"world size {part.world_size}, epoch {part.epoch}"
    expected = whole_epoch(job.sampler, part.epoch)
    if job.sampler.tail == "drop":
        expected &= part.left()
    if found := wrong(expected, part.count()):
        raise AssertionError(f"{where}: {found}. {cause([part])}".strip())
    if not job.records_batches and not _is_cut(part):
        raise AssertionError(f"{where}: batches are out of sequence. {cause([part])}")
    job.raise_refused()


def _is_cut(part: Part) -> bool:
    return all(map(is_cut, part.shares))


def _refuse_other_batches(first: Part, part: Part) -> None:
    pairs = zip(first.global_batches(), part.global_batches(), strict=False)
    for step, (one, other) in enumerate(pairs):
        if one != other:
            raise AssertionError(
                f"world size {part.world_size}, epoch {part.epoch}: global batch {step} is another one "
                f"than on world size {first.world_size}: {listed(one - other)} are in that only, "
                f"{listed(other - one)} in this only. Ranks cut their ids into batches of different "
                "sizes, or the order depends on the world size"
            )
