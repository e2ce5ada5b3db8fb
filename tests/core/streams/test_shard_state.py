"""States of ranks are merged if they are those of one run, and refused by a sentence if not."""

from dataclasses import replace

import pytest

from globidx.core.streams.shard_progress import ShardProgress
from globidx.core.streams.shard_state import ShardState, merged, names_of
from globidx.errors import RecordError, RecordMismatchError

START = ShardProgress().commit([(0, 1, 0, 1), (0, 2, 0, 0)])
RANKS = [
    ShardState(6, names_of("abcdef"), True, 7, start=START, world_size=2, rank=rank)
    for rank in range(2)
]


def committed(state, shard, first, rows, *, last=False):
    """A state with rows of a shard committed."""
    return state.commit([(0, shard, first + row, last and row + 1 == rows) for row in range(rows)])


def test_a_merged_state_has_the_rows_of_all_ranks():
    """Left are shards 0, 2 from row 1, 3, 4, 5, dealt as 0 3 5 and 2 4."""
    assert [[part.shard for part in rank.left()] for rank in RANKS] == [[0, 3, 5], [2, 4]]
    states = [
        committed(committed(RANKS[0], 0, 0, 3, last=True), 5, 0, 2),
        committed(RANKS[1], 2, 1, 4),
    ]
    together = ShardState.from_dict(merged([state.to_dict() for state in states]))
    assert together.left() == [(2, 5), (3, 0), (4, 0), (5, 2)]
    assert states[1].own == ShardProgress(begun={2: 5})


def test_a_state_is_read_back_as_it_was():
    """Of one rank, in the middle of an epoch."""
    state = committed(RANKS[1], 2, 1, 4)
    assert ShardState.from_dict(state.to_dict()) == state


@pytest.mark.parametrize(
    ("states", "match"),
    [
        (RANKS[:1], "rank 0 of 2"),
        (RANKS[::-1], "state 0 of 2 is that of rank 1"),
        ([RANKS[0], replace(RANKS[1], epoch=1)], "rank 1 has another epoch"),
        ([RANKS[0], replace(RANKS[1], start=ShardProgress())], "rank 1 has another start"),
        ([RANKS[0], replace(RANKS[1], seed=8)], "seed"),
    ],
)
def test_states_of_other_runs_are_not_merged(states, match):
    """The message says which and what."""
    with pytest.raises((RecordError, RecordMismatchError), match=match):
        merged([state.to_dict() for state in states])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "globidx.sampler"}, "format"),
        ({"version": 2}, "version 2"),
        ({"shards": 0}, "shards"),
        ({"shuffle": 1}, "true or false"),
        ({"rank": 2}, "rank 2 of 2"),
        ({"more": 1}, "unknown more"),
        ({"own": {"done": [[0, 7]], "begun": []}}, "impossible"),
        ({"own": {"done": [[0, 1]], "begun": [[0, 3]]}}, "impossible"),
    ],
)
def test_what_is_no_state_is_refused(change, match):
    """Edited by hand, or of something else."""
    with pytest.raises(RecordError, match=match):
        ShardState.from_dict(RANKS[0].to_dict() | change)
