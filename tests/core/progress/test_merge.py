"""The states of all ranks are one record, or an error that names the rank that disagrees."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch
from sampling import Sampler

from globidx import errors
from globidx.core.progress.merge import merge_states
from globidx.core.progress.ranges import Ranges


def rank_states(world_size=3, commits=(2, 2, 1), n=12, **by_rank):
    """States of all ranks; ``by_rank`` gives one rank's argument another value: rank_1={'seed': 5}."""
    states = []
    for rank in range(world_size):
        sampler = Sampler(range(n), world_size, rank, **by_rank.get(f"rank_{rank}", {}))
        sampler.commit(commits[rank])
        states.append(sampler.state_dict())
    return states


@pytest.mark.parametrize("count", [0, 1, 2, 4])
def test_merge_wants_every_rank(count):
    """One state too few or too many is refused with both numbers."""
    states = rank_states()
    with pytest.raises(errors.RecordError, match="merge_states"):
        merge_states((states * 2)[:count])


@pytest.mark.parametrize(
    ("rank", "arguments", "field"),
    [
        (1, {"seed": 5}, "seed"),
        (0, {"seed": 5}, "seed"),
        (2, {"shuffle": False}, "order"),
        (1, {"tail": "exact"}, "tail"),
    ],
)
def test_merge_names_the_rank_and_the_field_that_disagree(rank, arguments, field):
    """The odd one out, also where it is rank 0."""
    with pytest.raises(
        errors.RecordMismatchError, match=f"rank {rank} disagrees on {field}"
    ) as caught:
        merge_states(rank_states(**{f"rank_{rank}": arguments}))
    assert caught.value.field == field


def test_merge_refuses_ranks_of_different_epochs_and_datasets():
    """A rank that was set to the next epoch has not finished this one: counting it as done would lose its samples."""
    states = rank_states()
    ahead = Sampler(range(12), 3, 1)
    ahead.tracker.begin(1)
    with pytest.raises(errors.RecordMismatchError, match="rank 1 disagrees on epoch"):
        merge_states([states[0], ahead.state_dict(), states[2]])
    other = Sampler(range(13), 3, 1)
    with pytest.raises(errors.RecordMismatchError, match="rank 1 disagrees on dataset"):
        merge_states([states[0], other.state_dict(), states[2]])


def test_merge_counts_a_rank_that_finished_the_epoch_as_done():
    """It already says (next epoch, nothing done), while the others are still in this one."""
    states = rank_states(commits=(4, 3, 0))
    assert states[0]["epoch"] == 1
    record = merge_states(states)
    assert (record["epoch"], record["committed"]) == (0, 7)
    assert merge_states(rank_states(commits=(4, 4, 4)))["epoch"] == 1


def test_merge_refuses_a_finished_rank_of_other_data():
    """Its epoch was not the others'."""
    ranks = [Sampler(range(n), 2, rank, shuffle=False) for rank, n in enumerate((8, 12))]
    ranks[1].commit(6)
    with pytest.raises(errors.RecordMismatchError, match="disagrees on dataset"):
        merge_states([rank.state_dict() for rank in ranks])


def test_a_rank_that_finished_and_is_dealt_nothing_next_is_not_forgotten():
    """It trained on id 1, and nobody is given that again."""
    ranks = [Sampler(range(3), 3, rank, shuffle=False, tail="exact") for rank in range(3)]
    for sampler in ranks:
        sampler.tracker.skip(Ranges.of([0, 2]))
    ranks[1].commit(1)
    record = merge_states({rank: sampler.state_dict() for rank, sampler in enumerate(ranks)})
    assert record["committed"] == 1
    alone = Sampler(range(3), 1, 0, shuffle=False, tail="exact")
    alone.load_state_dict(record)
    assert (alone.state_dict()["epoch"], list(alone)) == (1, [])


@pytest.mark.parametrize(
    ("states", "told"),
    [
        (lambda a, b: {0: a}, "world size 2"),
        (lambda a, b: {0: a, 2: b}, r"ranks \[0, 2\]; pass those of all ranks \[0, 2\)"),
        (lambda a, b: a, "got one state"),
        (
            lambda a, b: [b, a],
            "state given for rank 1 has 2 ids committed, but this rank was dealt 1",
        ),
    ],
)
def test_states_that_can_be_seen_to_be_wrong_are_refused(states, told):
    """A missing rank, a rank that is none, one state for all, and another rank's state."""
    ranks = [Sampler(range(3), 2, rank, shuffle=False, tail="exact") for rank in range(2)]
    for sampler, count in zip(ranks, (2, 1), strict=True):
        sampler.commit(count)
    one, other = (dict(sampler.tracker.state.to_dict()) for sampler in ranks)
    with pytest.raises(errors.RecordError, match=told):
        merge_states(states(one, other))


@given(st.data())
def test_a_record_is_what_all_ranks_have_done_together(data):
    """Whatever each has committed: what is left is what cards that were dealt and played leave."""
    n, world_size = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 5))
    tail = data.draw(st.sampled_from(["pad", "drop", "exact"]))
    epoch = Epoch(list(range(n)))
    ranks = [Sampler(range(n), world_size, r, shuffle=False, tail=tail) for r in range(world_size)]
    streams = [len(hand) for hand in epoch.deal(world_size, tail)]
    counts = [data.draw(st.integers(0, length)) for length in streams]
    for rank, count in zip(ranks, counts, strict=True):
        rank.commit(count)
    real = [
        min(len(hand), count) for hand, count in zip(epoch.real(world_size), counts, strict=True)
    ]
    epoch.commit(world_size, real)
    record = merge_states([rank.state_dict() for rank in ranks])
    is_over = any(counts) and (counts == streams or not epoch.left)
    assert (record["epoch"], record["committed"]) == ((1, 0) if is_over else (0, sum(real)))
    alone = Sampler(range(n), 1, 0, shuffle=False, tail="exact")
    alone.load_state_dict(record)
    assert list(alone) == (list(range(n)) if is_over else epoch.left)


def test_a_record_is_the_same_whatever_the_ranks_are_passed_in():
    """A list in rank order, or by rank in any sequence."""
    states = rank_states()
    by_rank = {rank: states[rank] for rank in (2, 0, 1)}
    assert merge_states(by_rank) == merge_states(states)
