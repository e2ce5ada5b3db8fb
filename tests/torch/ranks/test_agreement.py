"""All ranks do something, or none does, and what any raises every one raises."""

import pytest
from processes import run_ranks

from globidx import CheckpointManager, ResumableDistributedSampler, errors


def mismatched(rank, world_size, folder):
    """Rank 1 restores while the others save; then all save."""
    sampler = ResumableDistributedSampler(range(50))
    manager = CheckpointManager(folder, sampler, timeout=60)
    try:
        manager.restore() if rank == 1 else manager.save(1)
    except errors.SaveError as error:
        said = str(error)
    return said, manager.save(2)


@pytest.mark.slow
def test_ranks_that_call_different_things_are_told_so(tmp_path):
    """At once, on every rank, and nothing is broken by it."""
    said, ids = zip(*run_ranks(2, mismatched, tmp_path), strict=True)
    assert set(said) == {
        "rank 1 called restore() while rank 0 called save(); every rank must make the same calls, equally often"
    }
    assert len(set(ids)) == 1


def asking(rank, world_size, folder):
    """Every rank expects the record of another model checkpoint."""
    manager = CheckpointManager(folder, ResumableDistributedSampler(range(50)), timeout=60)
    manager.save(1)
    try:
        manager.restore(expect=f"id {rank}")
    except errors.RecordMismatchError as error:
        return str(error)


@pytest.mark.slow
def test_ranks_that_expect_different_records_restore_none(tmp_path):
    """Rank 0 does not decide for the others."""
    said = run_ranks(2, asking, tmp_path)
    assert said[0] == said[1]
    assert (
        "rank 1 restores with expect, fallback = ['id 1', False], rank 0 with ['id 0', False]"
        in said[0]
    )


def heavy(rank, world_size, folder):
    """Rank 1 brings a state far beyond what fits."""
    from globidx.torch.ranks import agreement

    agreement._MOST_BYTES = 10**5
    sampler = ResumableDistributedSampler(range(50))
    manager = CheckpointManager(folder, sampler, timeout=60)
    try:
        manager.save(1, extras={"x": "y" * 10**6 if rank == 0 else ""})
    except errors.SaveError as error:
        return str(error)


@pytest.mark.slow
def test_a_part_of_another_size_is_refused_before_it_is_sent(tmp_path):
    """The sizes come first."""
    said = run_ranks(2, heavy, tmp_path)
    assert said[0] == said[1]
    assert said[0].startswith("rank 0 brings 1000")
