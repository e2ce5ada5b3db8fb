"""States of ranks are merged if they are those of one run, and refused by a sentence if not."""

from dataclasses import replace

import pytest

from globidx.core.progress.limits import MAX_IDS, MAX_RANGES
from globidx.core.progress.ranges import Ranges
from globidx.core.streams.shard_progress import Row, ShardProgress
from globidx.core.streams.shard_state import ShardState, merged, names_of
from globidx.errors import RecordError, RecordMismatchError

START = ShardProgress().commit([Row(1, 0, True), Row(2, 0, False)])
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
    assert list(together.left()) == [(2, 5), (3, 0), (4, 0), (5, 2)]
    assert states[1].own == ShardProgress(begun={0: 5})


def test_a_rank_counts_its_shards_by_its_own_numbers():
    """So that a long pass is one range, on any number of ranks, and so is that of all of them."""
    ranks = [ShardState(10**5, "", False, 0, world_size=3, rank=rank) for rank in range(3)]
    for number in range(100):
        ranks = [committed(rank, 3 * number + rank.rank, 0, 1, last=True) for rank in ranks]
    assert {rank.own for rank in map(Hashed, ranks)} == {(((0, 100),), ())}
    assert merged([rank.to_dict() for rank in ranks])["start"] == {"done": [[0, 300]], "begun": []}


class Hashed:
    """What a rank has of its own, to compare."""

    def __init__(self, rank):
        self.own = rank.own.done.pairs, tuple(rank.own.begun.items())


def test_epochs_of_an_infinite_stream_are_counted_on():
    """Of two ranks one is in epoch 2 and the other in epoch 1; what all have finished is left out."""
    ranks = [
        ShardState(4, "", False, 0, world_size=2, rank=rank, infinite=True) for rank in range(2)
    ]
    for epoch, rank, shards in ((0, 0, (0, 2)), (0, 1, (1, 3)), (1, 0, (0, 2)), (2, 0, (0,))):
        for shard in shards:
            ranks[rank] = ranks[rank].commit([(epoch, shard, 0, 1)])
    ranks[1] = ranks[1].commit([(1, 1, 0, 0)])
    assert [rank.running_epoch for rank in ranks] == [2, 1]
    together = ShardState.from_dict(merged([rank.to_dict() for rank in ranks]))
    alone = ShardState(4, "", False, 0, infinite=True)
    resumed = together.read_by(alone)
    assert resumed.epoch == resumed.running_epoch == 1
    left = [next_ for next_, _ in zip(resumed.left(), range(4), strict=False)]
    assert left == [(1, 1), (3, 0), (5, 0), (6, 0)]
    with pytest.raises(RecordMismatchError, match="in epoch 1 and in later ones"):
        together.read_by(replace(alone, infinite=False))


def test_ranks_that_are_too_far_apart_are_not_recorded():
    """A record could not be read again."""
    ahead = ShardState(10**7, "", False, 0, world_size=2, rank=0)
    behind = replace(ahead, rank=1)
    for shards in (MAX_RANGES + 1, MAX_IDS + 1):
        far = replace(ahead, own=ShardProgress(Ranges(((0, shards),))))
        with pytest.raises(RecordError, match="save again when the ranks that are behind"):
            merged([far.to_dict(), behind.to_dict()])


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
        ({"own": {"done": [[3, 3]], "begun": []}}, "impossible"),
        ({"own": {"done": [[0, 3], [3, 5]], "begun": []}}, "impossible"),
        ({"own": {"done": [[0, 1]], "begun": [[0, 3]]}}, "impossible"),
        ({"own": {"done": [], "begun": [[0, 3], [0, 4]]}}, "impossible"),
        ({"own": {"done": [[0, 2**62]], "begun": []}}, "has read shard number 4611686018427387903"),
        ({"start": {"done": [[0, 2**63 - 1]], "begun": []}}, "done"),
    ],
)
def test_what_is_no_state_is_refused(change, match):
    """Edited by hand, or of something else."""
    with pytest.raises(RecordError, match=match):
        ShardState.from_dict(RANKS[0].to_dict() | change)


def test_a_finite_stream_refuses_shards_that_it_was_not_dealt():
    """Rank 0 of 2 has five of six left, and so is dealt three."""
    state = replace(RANKS[0], own=ShardProgress(Ranges(((0, 4),))))
    with pytest.raises(RecordMismatchError, match="only an infinite stream") as caught:
        ShardState.from_dict(state.to_dict()).read_by(RANKS[0])
    assert caught.value.field == "infinite"
