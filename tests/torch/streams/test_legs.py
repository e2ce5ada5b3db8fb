"""Legs are what the sampler would yield, epoch by epoch, and leave the sampler as it is."""

import itertools

import pytest

from globidx import ResumableDistributedSampler
from globidx.orders import Weighted
from globidx.torch.streams.legs import Legs, next_epoch


def ids_of(leg):
    """All ids of a leg, asked for in two parts."""
    half = leg.length // 2
    return leg.ids(0, half) + leg.ids(half, leg.length)


@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
@pytest.mark.parametrize("order", [None, Weighted([1, 2, 3, 4, 5, 6, 7])])
@pytest.mark.parametrize("rank", [0, 1])
def test_each_leg_is_the_next_epoch_of_the_sampler(tail, order, rank):
    """From the middle of one on."""
    sampler, other = (
        ResumableDistributedSampler(range(7), 2, rank, tail=tail, order=order) for _ in range(2)
    )
    sampler.commit(2)
    other.commit(2)
    before = sampler.state_dict()
    for leg in itertools.islice(Legs(sampler, endless=True), 4):
        assert ids_of(leg) == [int(id) for id in other]
        assert leg.moment == (other.seed, other.epoch)
        other.finish_epoch()
    assert sampler.state_dict() == before


def test_a_pass_that_is_committed_is_followed_by_the_next_epoch():
    """Also where other ranks have a sample more, so that the epoch is not known to be over."""
    sampler = ResumableDistributedSampler(range(3), 2, 1, tail="exact")
    sampler.commit(1)
    assert sampler.epoch == 0
    assert [leg.moment.epoch for leg in Legs(sampler, endless=False)] == [1]


def test_the_first_leg_does_not_move_with_the_sampler():
    """Whoever asks it late must not begin behind what was delivered meanwhile."""
    sampler = ResumableDistributedSampler(range(9), 1, 0, shuffle=False)
    legs = Legs(sampler, endless=False)
    sampler.commit(4)
    assert ids_of(next(iter(legs))) == list(range(9))


def test_epochs_that_deal_nothing_are_refused():
    """All that follow would deal nothing, too."""
    sampler = ResumableDistributedSampler(range(1), 3, 2, tail="exact")
    with pytest.raises(ValueError, match="deal nothing to rank 2 of 3"):
        next_epoch(sampler._ledger)
