"""The last values over ranks are those that one process would have had last."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.json import strict
from globidx.core.metrics.recent import Recent
from globidx.errors import RecordError


@given(
    size=st.integers(1, 12),
    world_size=st.integers(1, 5),
    batch_size=st.integers(1, 4),
    total=st.integers(0, 60),
    random=st.randoms(use_true_random=False),
)
def test_ranks_in_step_have_the_last_positions(size, world_size, batch_size, total, random):
    """Positions are dealt like cards; those of the last step may be few."""
    ranks = [Recent(size) for _ in range(world_size)]
    for position in range(total):
        card, rank = divmod(position, world_size)
        ranks[rank].add(position, (card // batch_size, card % batch_size, rank))
    random.shuffle(ranks)
    for other in ranks[1:]:
        ranks[0].merge(other)
    assert ranks[0].values == list(range(total))[-size:]


def test_a_state_comes_back_and_is_cut_to_the_room_there_is():
    """The latest are kept; a long integer and a float stay what they are."""
    recent = Recent(4)
    for update, number in enumerate((1, 2.5, 10**30, -3)):
        recent.add(number, (update, 0, 0))
    state = strict.parse(json.dumps(strict.plain(recent.state(), "x")).encode())
    for size, expected in ((9, [1, 2.5, 10**30, -3]), (4, [1, 2.5, 10**30, -3]), (2, [10**30, -3])):
        loaded = Recent(size)
        loaded.load(state, "recent")
        assert loaded.values == expected


@pytest.mark.parametrize(
    "change", [{"value": [1, 2]}, {"rank": []}, {"place": [-1]}, {"update": [0.5]}, {"more": []}]
)
def test_what_is_no_window_is_refused(change):
    """A value without a moment, or a moment that cannot be."""
    recent = Recent(4)
    recent.add(7, (0, 0, 0))
    with pytest.raises(RecordError):
        Recent(4).load(recent.state() | change, "recent")
