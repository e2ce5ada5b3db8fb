"""The orders that depend on the number of samples alone: each is a bijection, for any n, seed and epoch."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.permutation import LIMIT
from globidx.core.orders.plain import Sequential, Shuffle


@given(n=st.integers(0, 300), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 9))
def test_each_sample_stands_at_one_position(n, seed, epoch):
    """Positions are all ids, each once, and the position of an id is where it stands."""
    for order in (Sequential(), Shuffle()):
        arrangement = order.bind(n, seed=seed, epoch=epoch)
        ids = arrangement.take(range(n)).tolist()
        assert sorted(ids) == list(range(n))
        assert arrangement.inverse(np.array(ids, np.int64)).tolist() == list(range(n))
        assert all(ids[arrangement.position(id)] == id for id in range(0, n, 50))


@given(n=st.integers(1, LIMIT), seed=st.integers(0, 9), positions=st.lists(st.integers(0, 2**62)))
def test_a_position_costs_nothing_of_those_before_it(n, seed, positions):
    """Anywhere in an epoch of any size: there and back, and no other id."""
    some = np.unique(np.array([position % n for position in positions], np.int64))
    arrangement = Shuffle().bind(n, seed=seed, epoch=0)
    ids = arrangement.take(some)
    assert len(set(ids.tolist())) == len(some)
    assert arrangement.inverse(ids).tolist() == some.tolist()


def test_seed_and_epoch_matter_to_a_shuffle_only():
    """Two seeds, or two epochs, are two shuffles and one sequence."""
    choices = [(0, 0), (1, 0), (0, 1), (1, 1)]
    for order, distinct in ((Shuffle(), 4), (Sequential(), 1)):
        epochs = [order.bind(100, seed=seed, epoch=epoch) for seed, epoch in choices]
        assert len({tuple(epoch.take(range(100)).tolist()) for epoch in epochs}) == distinct


def test_what_is_no_epoch_is_refused():
    """A negative seed or epoch, and more samples than can be permuted, are told by name."""
    for arguments, named in (
        ({"seed": -1, "epoch": 0}, "seed"),
        ({"seed": 0, "epoch": -1}, "epoch"),
    ):
        with pytest.raises(ValueError, match=f"{named} must be in"):
            Shuffle().bind(10, **arguments)
    with pytest.raises(ValueError, match="num_samples must be in"):
        Shuffle().bind(LIMIT + 1, seed=0, epoch=0)
