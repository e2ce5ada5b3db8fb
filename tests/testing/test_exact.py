"""assert_exact_epoch passes what reads each sample once, and says of what does not what is wrong with it."""

import numpy as np
import pytest
import torch.utils.data
from faulty_loaders import (
    N,
    Samples,
    Wrapped,
    maker,
    plain,
    reordered,
    with_one_twice,
    without_last,
    without_second,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from regrouping import Buckets, Sorted

import globidx
from globidx.orders import ChunkShuffle, Sequential, Weighted
from globidx.testing import assert_exact_epoch, assert_resumes, strategies


@settings(max_examples=30)
@given(
    n=strategies.lengths(60),
    worlds=st.lists(strategies.world_sizes(4), min_size=1, max_size=3),
    batch=strategies.batch_sizes(),
    tail=st.sampled_from(("pad", "drop", "exact")),
    by_hand=st.booleans(),
)
def test_any_right_loader_is_exact(n, worlds, batch, tail, by_hand):
    """Any length, world sizes, batch size and tail, with globidx's loader and with torch's, two epochs."""
    loader = torch.utils.data.DataLoader if by_hand else globidx.DataLoader
    assert_exact_epoch(maker(n, batch, loader=loader, tail=tail), worlds, epochs=2)


@pytest.mark.parametrize(
    "order", [Sequential(), ChunkShuffle(chunk=4), Weighted(np.arange(1.0, N + 1))], ids=repr
)
def test_any_order_is_exact(order):
    """Chunks that are planned for ranks, and samples that are drawn more than once."""
    assert_exact_epoch(maker(order=order), epochs=2)
    assert_exact_epoch(lambda rank, world: maker(batch=12 // world, order=order)(rank, world))


def test_workers_may_prefetch():
    """What they fetch ahead of the loop does not count."""
    assert_exact_epoch(maker(30, num_workers=1), (1, 2))


def test_global_batches_are_compared_while_world_size_times_batch_size_stays():
    """Ranks that cut their ids differently hand out other global batches than one rank does, though each sample comes once."""

    def make_loader(rank, world_size, sizes):
        return maker(batch=sizes[rank])(rank, world_size)

    assert_exact_epoch(
        lambda rank, world: make_loader(rank, world, [12 // world] * world), (1, 2, 3, 4)
    )
    with pytest.raises(
        AssertionError,
        match="world size 2, epoch 0: global batch 0 is another one than on world size 1",
    ):
        assert_exact_epoch(
            lambda rank, world: make_loader(rank, world, [12] if world == 1 else [4, 8]), (1, 2)
        )


def test_skipped_ids_are_not_lost():
    """What the sampler leaves out on purpose is no loss."""

    def make_loader(rank, world_size):
        loader = maker()(rank, world_size)
        loader.sampler.skip(range(3, 9))
        loader.sampler.reset()
        return loader

    assert_exact_epoch(make_loader)


FAULTS = {
    "loses its last batch": (
        plain(without_last),
        r"world size 1, epoch 0: of 41 samples, 1 was lost \(\d+\)\. Rank 0 of 1: its loop ended 1 ids before .*drop_last",
    ),
    "drop_last": (
        maker(10, drop_last=True),
        r"of 10 samples, 2 were lost \(\d, \d\)\. Rank 0 of 1: its loop ended 2 ids before .*drop_last=True",
    ),
    "reorders": (
        plain(reordered),
        "world size 1, epoch 0: batches are out of sequence. Rank 0 of 1: .* reorders them",
    ),
    "repeats a batch": (
        plain(with_one_twice),
        r"of 41 samples, 4 were repeated \(.*\)\. Rank 0 of 1: .*more often than .* repeats them",
    ),
    "leaves out a batch": (
        plain(without_second),
        r"of 41 samples, 4 were lost \(.*\)\. Rank 0 of 1: its loader leaves out 4 ids amid",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_name(fault):
    """What is lost or repeated, on which world size, and what a loader does to cause it."""
    make_loader, message = FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        try:
            assert_exact_epoch(make_loader)
        except (
            globidx.errors.CommitError
        ) as error:  # a batch that was handed out twice is refused before
            pytest.fail(f"not told: {error}")


def test_ranks_that_are_not_told_apart_are_named():
    """A loader that takes no notice of its rank reads what the others do."""
    with pytest.raises(
        AssertionError, match=r"make_loader\(0, 2\) made the loader of rank 0 of 1,"
    ):
        assert_exact_epoch(lambda rank, world_size: maker()(0, 1), (1, 2))


def test_a_loader_that_does_not_read_by_its_sampler_is_named():
    """Ids that the sampler did not draw are no part of its epoch."""

    def make_loader(rank, world_size):
        loader = torch.utils.data.DataLoader(Samples(), batch_size=4)
        loader.__dict__["sampler"] = maker()(rank, world_size).sampler
        return loader

    with pytest.raises(
        AssertionError, match="world size 2.* its batches hold ids that its sampler did not draw"
    ):
        assert_exact_epoch(make_loader, (2,))


def test_a_commit_that_is_refused_is_raised():
    """A wrapper that commits by itself is committed a second time, though its ids are right."""

    class Commits(Wrapped):
        def __iter__(self):
            for batch in self.loader:
                self.sampler.commit(len(batch[1]))
                yield batch

    def make_loader(rank, world_size):
        return Commits(maker(loader=torch.utils.data.DataLoader)(rank, world_size), None)

    for check in (assert_exact_epoch, assert_resumes):
        with pytest.raises(globidx.errors.CommitError):
            check(make_loader)


def test_only_loaders_of_a_resumable_sampler_are_taken():
    """Any other says what it lacks."""
    with pytest.raises(TypeError, match="without a ResumableDistributedSampler"):
        assert_exact_epoch(lambda rank, world_size: torch.utils.data.DataLoader(Samples()))


@pytest.mark.parametrize("kind", [Buckets, Sorted])
def test_a_batch_sampler_may_regroup_ids(kind):
    """What its batches held is recorded, so they may come in any sequence: exact, and exact after a resume."""

    def make_loader(rank, world_size):
        sampler = globidx.ResumableDistributedSampler(range(41), world_size, rank)
        return globidx.DataLoader(range(41), batch_sampler=kind(sampler, 4, drop_last=False))

    assert_exact_epoch(make_loader, epochs=2, ids=lambda batch: batch)
    assert_resumes(make_loader, ids=lambda batch: batch)
