"""All metrics of a run on random ranks, with resumes, against one process that keeps every value."""

import copy
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_oracle import CATEGORIES, NUMBERS, by_hand

from globidx.core.json import strict
from globidx.core.metrics.metric import AggregationType, Metric
from globidx.core.metrics.tally import Tally, merged
from globidx.errors import RecordError, RecordMismatchError, RecordVersionError

GOLDEN = Path(__file__).parents[2] / "golden" / "metrics-1.json"
#: Key and type; each sample brings one value of each key.
NUMERIC = {
    ("a", "total"): "sum",
    ("b", "total"): "mean",
    ("a", "most"): "max",
    ("a", "least"): "min",
    ("b", "length"): "distribution",
}
LEG = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 5))


def of_sample(value, category):
    """The metrics of one sample."""
    numbers = [Metric(*key, value, kind) for key, kind in NUMERIC.items()]
    return [*numbers, Metric("b", "kind", category, "categorical_count")]


def through_json(state):
    """What comes out of a record."""
    return strict.parse(json.dumps(strict.plain(state, "x")).encode())


def taken_over(state, window, world_size):
    """The tallies of ranks that start from one state: rank 0 has all of it."""
    ranks = [Tally(window) for _ in range(world_size)]
    for rank, tally in enumerate(ranks):
        if state is not None:
            tally.load(through_json(state), "state")
            if rank:
                tally.forget()
    return ranks


@given(
    legs=st.lists(LEG, min_size=1, max_size=4),
    window=st.integers(1, 20),
    values=st.lists(st.tuples(NUMBERS, CATEGORIES), max_size=60),
)
def test_a_run_on_any_ranks_with_any_resumes_is_one_process(legs, window, values):
    """Legs of (ranks, batch size, steps): sums, means, extremes, counts, the last values and the run's histogram."""
    state, samples, done = None, [of_sample(*value) for value in values], 0
    for world_size, batch_size, steps in legs:
        ranks = taken_over(state, window, world_size)
        for _ in range(steps):
            batch = samples[done : done + world_size * batch_size]
            done += len(batch)
            for rank, tally in enumerate(ranks):
                dealt = batch[rank::world_size]
                tally.update([metric for sample in dealt for metric in sample], rank)
        parts = [tally.state(rank) for rank, tally in enumerate(ranks)]
        state = merged([through_json(part) for part in parts], Tally(window)).state(0)
        # a save changes nothing at the ranks, so that the next one does not count it again
        again = merged([tally.state(rank) for rank, tally in enumerate(ranks)], Tally(window))
        assert again.state(0) == state
    total = Tally(window)
    total.load(state, "state")
    seen = [metric for sample in samples[:done] for metric in sample]
    expected = by_hand(
        [(it.dataset_name, it.metric_name, it.value, it.agg_type) for it in seen], window
    )
    assert total.results() == expected
    for name, value in total.results().items():
        if name.endswith("count") or "/total" in name:
            assert type(value) is type(expected[name])


@given(
    st.lists(st.tuples(NUMBERS, CATEGORIES), max_size=30),
    st.integers(2, 6),
    st.randoms(use_true_random=False),
)
def test_merges_of_any_ranks_in_any_sequence_are_one_state(values, world_size, random):
    """Ranks with no metrics are among them, and parts are merged by themselves first."""
    ranks = [Tally(9) for _ in range(world_size)]
    for number, (value, category) in enumerate(values):
        rank = random.randrange(world_size)
        metrics = of_sample(value, category)
        kept = [metric for metric in metrics if random.random() < 0.8]
        for tally in ranks:
            tally.update(kept if tally is ranks[rank] else [], rank)
        assert number < ranks[0].state(0)["updates"]
    expected = merged([tally.state(rank) for rank, tally in enumerate(ranks)], Tally(9)).state(0)
    while len(ranks) > 1:
        one, other = (ranks.pop(random.randrange(len(ranks))) for _ in range(2))
        one.merge(other)
        ranks.append(one)
    assert ranks[0].state(0) == expected


def test_a_rank_without_metrics_or_with_other_keys_distorts_nothing():
    """A mean weighs by count, and an extreme is one of a value that there was."""
    ranks = [Tally(5) for _ in range(3)]
    ranks[1].update([Metric("a", "x", value, "mean") for value in (-3, -6)], 1)
    ranks[2].update([Metric("a", "y", -1, "max"), Metric("b", "x", 2, "sum")], 2)
    total = merged([tally.state(rank) for rank, tally in enumerate(ranks)], Tally(5))
    assert total.results() == {"a/x": -4.5, "a/y": -1, "b/x": 2}


def test_none_makes_a_key_known_and_counts_nothing():
    """It is reported as None."""
    tally = Tally(5)
    for kind in ("sum", "mean", "max", "min"):
        tally.update([Metric("a", kind, None, kind)], 0)
    assert tally.results() == {"a/max": None, "a/mean": None, "a/min": None, "a/sum": None}


@pytest.mark.parametrize(
    ("metric", "error", "words"),
    [
        (
            Metric("a", "x", 1, "mean"),
            ValueError,
            "metric 'x' of dataset 'a' is aggregated by sum, and now by mean; give each",
        ),
        (
            Metric("a", "z", 1, "median"),
            ValueError,
            "by median, which has no handler; there are su",
        ),
        (Metric("a", "x", "1", "sum"), TypeError, r"metric 'x' of dataset 'a' \(sum\): got '1'"),
        (Metric("a", "", 1, "sum"), ValueError, "the metric_name of a metric must be 1 to 200"),
        (Metric(3, "x", 1, "sum"), TypeError, "the dataset_name of a metric must be text, got 3"),
        ([Metric("a", "x", 1, "sum")], TypeError, "takes a list of Metric, got a list of list"),
    ],
)
def test_what_cannot_be_aggregated_is_refused_by_name(metric, error, words):
    """And the rest of the tally stands."""
    tally = Tally(5)
    tally.update([Metric("a", "x", 1, AggregationType.SUM)], 0)
    with pytest.raises(error, match=words):
        tally.update([metric], 0)
    assert tally.results() == {"a/x": 1}


def test_one_name_may_have_other_types_in_other_datasets():
    """The key is both."""
    tally = Tally(5)
    tally.update([Metric("a", "x", 1, "sum"), Metric("b", "x", 1, "mean")], 0)
    assert tally.results() == {"a/x": 1, "b/x": 1.0}


@pytest.mark.parametrize(
    "metrics",
    [
        [Metric("a", "x", 1, "distribution"), Metric("a", "x_stat_mean", 1, "sum")],
        [Metric("a", "b/c", 1, "sum"), Metric("a/b", "c", 1, "sum")],
    ],
)
def test_two_results_of_one_name_are_refused(metrics):
    """One of them would be lost in the log."""
    tally = Tally(5)
    tally.update(metrics, 0)
    with pytest.raises(ValueError, match="two results are called 'a/"):
        tally.results()


def test_ranks_that_aggregate_a_key_differently_are_named():
    """Both of them."""
    states = []
    for rank, kind in enumerate(["sum", "sum", "max"]):
        tally = Tally(5)
        tally.update([Metric("a", "x", 1, kind)], rank)
        states.append(tally.state(rank))
    with pytest.raises(
        ValueError, match="'x' of dataset 'a' is aggregated by sum on rank 0, and by max on rank 2"
    ):
        merged(states, Tally(5))


def test_ranks_with_windows_of_other_sizes_are_named():
    """The last values of both would be of no window."""
    with pytest.raises(ValueError, match="rank 1 has dist_window_size=6, but rank 0 has 5"):
        merged([Tally(5).state(0), Tally(6).state(1)], Tally(5))


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"format": "other"}, RecordError),
        ({"version": 2}, RecordVersionError),
        ({"updates": -1}, RecordError),
        ({"metrics": {"a": 1}}, RecordError),
        ({"metrics": {"a": {"x": {"agg_type": "sum"}}}}, RecordError),
        ({"metrics": {"a": {"x": {"agg_type": "sum", "state": {}}}}}, RecordError),
        ({"metrics": {"a": {"x": {"agg_type": "last", "state": {}}}}}, RecordMismatchError),
    ],
)
def test_a_state_that_is_none_is_refused_and_changes_nothing(change, error):
    """Newer versions and types without a handler by their name."""
    tally = Tally(5)
    tally.update([Metric("a", "x", 1, "sum")], 0)
    before = tally.state(0)
    with pytest.raises(error):
        tally.load(before | change, "the state")
    assert tally.state(0) == before


def golden_state():
    """One of two ranks, with values of each kind and some that are not finite."""
    ranks = [Tally(4) for _ in range(2)]
    values = [3, 0.1, -(2**70), float("nan"), None, 1e300, 250, 1000.5]
    for position, value in enumerate(values):
        ranks[position % 2].update(of_sample(value, "ab"[position % 3 > 1]), position % 2)
    return merged([tally.state(rank) for rank, tally in enumerate(ranks)], Tally(4)).state(0)


def test_golden_bytes():
    """The state of version 1 is written as it ever was, and read."""
    assert strict.pretty(golden_state()) == GOLDEN.read_bytes()
    tally = Tally(4)
    tally.load(strict.parse(GOLDEN.read_bytes()), "the golden state")
    assert tally.state(0) == golden_state()


def places_of(value, path=()):
    """The path of every value inside a JSON value."""
    yield path
    if isinstance(value, (dict, list)):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places_of(value[key], (*path, key))


@given(st.data())
def test_a_hostile_state_is_loaded_or_refused_and_nothing_else(data):
    """Any value in any place: a record error, or a state that says the same again and has results."""
    state = copy.deepcopy(golden_state())
    *path, last = data.draw(st.sampled_from([place for place in places_of(state) if place]))
    parent = state
    for key in path:
        parent = parent[key]
    scalars = st.none() | st.booleans() | st.text(max_size=3) | st.floats(allow_nan=False)
    numbers = st.integers(-3, 1100) | st.sampled_from([2**27, 2**63 - 1, 2**63, 10**19, -(2**62)])
    some = st.lists(scalars | numbers, max_size=4)
    parent[last] = data.draw(scalars | numbers | some | st.dictionaries(st.text(max_size=3), some))
    tally = Tally(4)
    try:
        tally.load(state, "the state")
    except RecordError:
        return
    tally.results()
    again = Tally(4)
    again.load(tally.state(0), "its state")
    assert again.state(0) == tally.state(0)


def test_a_handler_cannot_be_replaced_under_metrics():
    """They would be of two kinds."""
    tally = Tally(5)
    tally.update([Metric("a", "x", 1, "sum")], 0)
    with pytest.raises(
        ValueError, match="metric 'x' of dataset 'a' is aggregated by 'sum' already"
    ):
        tally.register("sum", list)


def test_a_state_is_as_small_as_it_needs_to_be():
    """A window of 1000 lengths and the histogram of a million: some kB in a record."""
    tally = Tally(1000)
    for update in range(1000):
        tally.update(
            [
                Metric("a", "x", 1 + (7 * update + place) % 4000, "distribution")
                for place in range(20)
            ],
            0,
        )
    assert len(strict.pretty(tally.state(0))) < 40_000
