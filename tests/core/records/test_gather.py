"""What ranks bring to a save, united, or the rank that does not fit."""

import pytest
from sampling import Sampler

from globidx import errors
from globidx.core.progress.merge import merge_states
from globidx.core.records.gather import united


def part(state, rank=None, ranks=None, **more):
    """What one rank brings: one object, x."""
    return {
        "step": 1,
        "states": {"x": state},
        "ranks": {} if rank is None else {"x": [rank, ranks]},
        **more,
    }


def test_equal_states_are_one():
    """An object without a rank is the same everywhere."""
    assert united([part({"a": 1})] * 3, {}) == {"x": {"a": 1}}


def test_a_state_that_differs_is_refused_by_rank_and_value():
    """Never rank 0's in silence."""
    with pytest.raises(
        errors.RecordMismatchError,
        match="'x' differs between ranks 0 and 2: a is 1 and 3; .*merge_states",
    ):
        united([part({"a": 1}), part({"a": 1}), part({"a": 3})], {})


def test_an_objects_own_merge_sees_all_ranks_in_their_sequence():
    """What it makes of them is written."""
    parts = [part({"sum": value}) for value in (5, 1, 2)]
    assert united(parts, {"x": lambda states: {"sums": [state["sum"] for state in states]}}) == {
        "x": {"sums": [5, 1, 2]}
    }
    with pytest.raises(TypeError, match=r"states\['x'\]"):
        united(parts, {"x": lambda states: {"sums": {1}}})


@pytest.mark.parametrize("turn", [(0, 0, 1, 1), (0, 1, 0, 1), (1, 1, 0, 0)])
def test_tensor_parallel_peers_count_once(turn):
    """Two ranks of data, each on two ranks of the job, however the mesh lies."""
    samplers = [Sampler(range(10), 2, rank, shuffle=False) for rank in (0, 1)]
    samplers[0].commit(3)
    samplers[1].commit(1)
    states = [sampler.state_dict() for sampler in samplers]
    parts = [part(states[rank], rank, 2) for rank in turn]
    assert united(parts, {"x": merge_states}) == {"x": merge_states(states)}


def test_peers_that_differ_are_refused():
    """Rank 3 has read another batch than its peer, rank 2."""
    parts = [part({"n": n}, rank, 2) for rank, n in ((0, 1), (0, 1), (1, 1), (1, 2))]
    with pytest.raises(errors.RecordMismatchError, match="between ranks 2 and 3: n is 1 and 2"):
        united(parts, {"x": merge_states})


@pytest.mark.parametrize(
    ("ranks", "kind", "told"),
    [
        ([(0, 2), (0, 2)], errors.RecordMismatchError, r"have the ranks \[0, 0\] of 2"),
        ([(0, 2), (1, 2), (1, 2)], errors.RecordMismatchError, "equally often"),
        ([(0, 2), (1, 2), (1, 2), (1, 2)], errors.RecordMismatchError, "equally often"),
        (
            [(0, 2), (1, 3)],
            errors.RecordMismatchError,
            "rank 1 saves a world size of 'x', 3, but rank 0 saves 2",
        ),
        ([(1, 4)], errors.CommitError, "has 4 ranks, but the manager gathers from 1"),
    ],
)
def test_ranks_that_are_missing_or_there_too_often_are_refused(ranks, kind, told):
    """No state may speak for two, none be left out."""
    with pytest.raises(kind, match=told):
        united([part({}, rank, size) for rank, size in ranks], {"x": merge_states})


def test_steps_and_names_must_be_the_same():
    """A rank that is a step behind, or keeps other things."""
    with pytest.raises(errors.RecordMismatchError, match="rank 1 saves step 2, but rank 0 saves 1"):
        united([part({}), part({}) | {"step": 2}], {})
    with pytest.raises(errors.RecordMismatchError, match="rank 1 saves objects"):
        united([part({}), part({}) | {"states": {"y": {}}}], {})
