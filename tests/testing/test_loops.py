"""Ranks that are played in one process are handed what the oracle deals them, and padding is told from ids that are repeated."""

from itertools import chain

import pytest
from faulty_loaders import maker
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch
from torch.utils.data import BatchSampler, DataLoader

from globidx import ResumableDistributedSampler
from globidx.orders import Shuffle
from globidx.testing import strategies
from globidx.testing.loops import Job, Share, sampler_of, whole_epoch


@given(
    n=strategies.lengths(60),
    world_size=strategies.world_sizes(4),
    batch=strategies.batch_sizes(),
    tail=st.sampled_from(("pad", "drop", "exact")),
)
def test_a_part_is_what_the_ranks_are_dealt(n, world_size, batch, tail):
    """Streams, batches, the count without padding, and the sets of each step are those of hands of cards."""
    order = Shuffle().bind(n, seed=0, epoch=1).take(range(n)).tolist()
    hands = Epoch(order).deal(world_size, tail)
    real = [
        hand[: len(own)] for hand, own in zip(Epoch(order).real(world_size), hands, strict=True)
    ]
    part = Job(maker(n, batch, tail=tail), world_size, None).play(1)
    assert [share.stream for share in part.shares] == hands
    assert [[*chain(*share.batches)] for share in part.shares] == hands
    assert sorted(part.count().elements()) == sorted(part.left().elements()) == sorted(chain(*real))
    steps = [set(chain(*(hand[k : k + batch] for hand in real))) for k in range(0, n, batch)]
    assert part.global_batches() == [step for step in steps if step]
    assert part.ended


@given(n=strategies.lengths(60), world_size=strategies.world_sizes(4), stop=st.integers(1, 4))
def test_a_part_that_stops_holds_its_last_batch(n, world_size, stop):
    """The state of every sampler counts what was handed out, the batch that the loop still holds included."""
    job = Job(maker(n, 3), world_size, None)
    part = job.play(0, stop_after=stop)
    for rank, share in zip(job.ranks, part.shares, strict=True):
        handed = sum(map(len, share.batches))
        if handed < len(share.stream):
            assert rank.sampler.remaining == max(0, n - world_size * handed)


@pytest.mark.parametrize(
    ("stream", "batches", "real"),
    [
        ([0, 2, 1], [[0, 2], [1]], [[0, 2], []]),
        ([0, 2, 1], [[1, 0], [2]], [[0], [2]]),
        ([0, 2, 1], [[0, 2]], [[0, 2]]),
        ([0, 2, 1], [[0, 2], [1, 1]], [[0, 2], [1]]),
        ([1, 2, 1], [[1, 2]], [[1, 2]]),
        ([1, 2, 1], [[1, 2], [1]], [[1, 2], []]),
    ],
)
def test_padding_is_taken_off_once_where_it_came(stream, batches, real):
    """One that came amid others, did not come, came twice, or is an id that the rank draws besides."""
    assert Share(stream, [1], batches).without_padding() == real


def test_the_sampler_is_found_where_frameworks_put_it():
    """In the loader, or in its batch sampler."""
    sampler = ResumableDistributedSampler(range(9), 1, 0)
    assert sampler_of(DataLoader(range(9), sampler=sampler)) is sampler
    cut = DataLoader(range(9), batch_sampler=BatchSampler(sampler, 2, drop_last=False))
    assert sampler_of(cut) is sampler


def test_a_whole_epoch_leaves_out_what_is_skipped():
    """Every other id once, whichever epoch."""
    sampler = ResumableDistributedSampler(range(9), 3, 1)
    sampler.skip([2, 5])
    for epoch in range(2):
        assert sorted(whole_epoch(sampler, epoch).elements()) == [0, 1, 3, 4, 6, 7, 8]
