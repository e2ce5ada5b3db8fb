"""The ids of a rank after any history: an order, what is left of it, and the deal, played out with lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch

from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress
from globidx.core.progress.view import EpochView

N = 60


@st.composite
def histories(draw):
    """(arrangement, progress, the epoch played out with lists)."""
    order = draw(st.sampled_from([Sequential(), Shuffle()]))
    arrangement = order.bind(N, seed=draw(st.integers(0, 9)), epoch=draw(st.integers(0, 3)))
    epoch, progress = Epoch(arrangement.take(range(N)).tolist()), Progress(N)
    for _ in range(draw(st.integers(0, 3))):
        world_size = draw(st.integers(1, 5))
        counts = [draw(st.integers(0, min(4, len(hand)))) for hand in epoch.real(world_size)]
        epoch.commit(world_size, counts)
        progress = progress.extend(counts)
    return arrangement, progress, epoch


@given(histories(), st.integers(1, 6), st.integers(0, 20))
def test_a_rank_is_given_the_rest_in_the_epochs_order(history, world_size, stop):
    """In any stretch, padding included."""
    arrangement, progress, epoch = history
    view = EpochView(arrangement, progress)
    if len(epoch.left) < world_size:
        return
    for rank, hand in enumerate(epoch.deal(world_size, "pad")):
        found = view.stream(0, min(stop, len(hand)), rank=rank, world_size=world_size)
        assert found.tolist() == hand[:stop]


@given(histories(), st.lists(st.integers(0, N - 1), max_size=12))
def test_positions_left_are_those_whose_ids_are_still_to_come(history, ids):
    """Ids that were committed have none."""
    arrangement, progress, epoch = history
    left = EpochView(arrangement, progress).positions_left(Ranges.of(ids))
    assert left == len(set(ids) & set(epoch.left))


def test_a_view_of_a_huge_epoch_costs_what_is_asked_of_it():
    """No list of its positions is made."""
    n = 10**12
    view = EpochView(Shuffle().bind(n, seed=1, epoch=0), Progress(n).extend((7,)))
    ids = view.stream(10**9, 10**9 + 5, rank=2, world_size=8)
    assert len(np.unique(ids)) == 5
    assert ids.min() >= 0
    assert ids.max() < n
