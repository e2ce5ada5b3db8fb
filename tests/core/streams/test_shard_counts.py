"""What is left is counted up to the end of the epoch of whoever asks."""

from dataclasses import replace

from globidx.core.streams.shard_counts import divided, parts_left, rows_in
from globidx.core.streams.shard_state import ShardState

STATE = ShardState(5, "", False, 0, world_size=2, rank=0, infinite=True)


def test_of_others_it_is_known_what_they_were_dealt():
    """And of one's own what was committed since: row 0 of shard 0, and shard 2."""
    state = STATE.commit([(0, 0, 0, 0), (0, 2, 0, 1)])
    assert [parts_left(state, rank) for rank in range(2)] == [[(0, 1), (4, 0)], [(1, 0), (3, 0)]]
    assert divided(state, 2, None, len) == {
        "total": 4,
        "per_rank": [2, 2],
        "per_worker": [1, 1],
        "assigned": 2,
    }
    assert divided(state, 3, 2, len)["assigned"] == 0


def test_the_epoch_is_that_of_who_asks():
    """Rank 0 has read all of its epoch 0, so rank 1's is counted to the end of epoch 1, too."""
    state = STATE.commit([(0, shard, 0, 1) for shard in (0, 2, 4)])
    assert [[part.shard for part in parts_left(state, rank)] for rank in range(2)] == [
        [6, 8],
        [1, 3, 5, 7, 9],
    ]


def test_rows_are_those_of_the_order():
    """Each epoch has its own."""
    state = replace(STATE, shuffle=True, seed=9)
    lengths = [10, 20, 30, 40, 50]
    positions = [1, 6, 11]
    numbers = state.numbers(positions)
    assert len(set(numbers)) > 1
    parts = [part for part in parts_left(replace(STATE, world_size=1), 0) if part.shard == 1]
    assert rows_in(state, parts, lengths) == lengths[numbers[0]]
