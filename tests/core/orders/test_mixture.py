"""Mixtures of datasets: exact shares, own passes, stop rules, and weights that change."""

import json
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.base import Left
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.mixture import STOPS, Mixture
from globidx.core.orders.plain import Sequential
from globidx.core.orders.weighted import Weighted
from globidx.errors import RecordError

GOLDEN = Path(__file__).parents[2] / "golden" / "mixture-1.json"
SIZES = (50, 30, 7)


def mixture(sizes=SIZES, weights=(0.5, 0.25, 0.25), **options):
    """A mixture whose weights need no warning."""
    return Mixture(sizes, weights, **options)


def ids_of(order, epoch=0, seed=3, sizes=SIZES):
    """All ids of one epoch."""
    epoch_order = order.bind(sum(sizes), seed=seed, epoch=epoch)
    return epoch_order.take(range(len(epoch_order)))


def split(ids, sizes=SIZES):
    """The ids of each dataset, in the sequence of the epoch, counted from its own start."""
    starts = np.cumsum([0, *sizes])
    which = np.searchsorted(starts, ids, side="right") - 1
    return [ids[which == one] - starts[one] for one in range(len(sizes))]


@pytest.mark.parametrize("stop", STOPS)
def test_each_dataset_is_shuffled_anew_on_its_own_passes(stop):
    """Every pass has every sample once, and no two of them are in the same order."""
    parts = split(ids_of(mixture(stop=stop)))
    for part, size in zip(parts, SIZES, strict=True):
        passes = [tuple(part[at : at + size].tolist()) for at in range(0, len(part), size)]
        assert all(len(set(one)) == len(one) for one in passes)
        assert len(set(passes)) == len(passes)
    counts = [len(part) for part in parts]
    if stop == "ALL_DATASETS_EXHAUSTED":
        assert counts == list(SIZES)
    if stop == "FIRST_DATASET_EXHAUSTED":
        assert counts[2] == 7 and counts[0] in range(12, 17)
    if stop == "CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED":
        assert counts[1] == 30 and counts[0] >= 50 and counts[2] > 4 * 7


def test_an_epoch_that_cycles_forever_goes_on_where_the_last_one_ended():
    """Over epochs, every sample of a dataset comes once on each of its passes."""
    order = mixture(stop="CYCLE_FOREVER", num_samples=41)
    ids = np.concatenate([ids_of(order, epoch) for epoch in range(12)])
    for part, size in zip(split(ids), SIZES, strict=True):
        for at in range(0, len(part) - size, size):
            assert sorted(part[at : at + size].tolist()) == list(range(size))
    shares = [len(part) / len(ids) for part in split(ids)]
    assert np.abs(np.array(shares) - [0.5, 0.25, 0.25]).max() < 1 / 400


@given(
    sizes=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    stop=st.sampled_from(STOPS),
    epoch=st.integers(0, 3),
    data=st.data(),
)
def test_occurrences_and_inverse_are_those_of_looking(sizes, stop, epoch, data):
    """Of samples that come once, several times, or not at all."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        order = Mixture(sizes, data.draw(st.tuples(*[st.integers(1, 4) for _ in sizes])), stop=stop)
    bound = order.bind(sum(sizes), seed=1, epoch=epoch)
    ids = ids_of(order, epoch, seed=1, sizes=sizes)
    asked = data.draw(st.lists(st.integers(0, sum(sizes) - 1), unique=True, max_size=9))
    found = bound.occurrences(np.array(asked, np.int64))
    assert sorted(found.tolist()) == np.flatnonzero(np.isin(ids, asked)).tolist()
    for id in asked:
        at = np.flatnonzero(ids == id)
        if len(at):
            assert bound.position(id) == at[0]
        else:
            with pytest.raises(ValueError, match=f"sample {id} is not drawn"):
                bound.position(id)


def test_mixtures_nest():
    """Shares multiply, and passes of the inner datasets are whole."""
    inner = mixture((20, 5), (0.8, 0.2), stop="ALL_DATASETS_EXHAUSTED")
    outer = Mixture((25, 50), (0.5, 0.5), orders=[inner, Sequential()])
    ids = ids_of(outer, sizes=(25, 50))
    counts = Counter(np.digitize(ids, [20, 25]).tolist())
    assert counts == {0: 40, 1: 10, 2: 50}
    assert [id for id in ids.tolist() if id >= 25] == list(range(25, 75))


def test_other_weights_hold_from_where_a_run_was_left():
    """What was drawn stands; what follows has the new shares; a record has both, and no sample is lost."""
    old = mixture(stop="CYCLE_FOREVER", num_samples=400)
    before = ids_of(old)
    left = Left(epoch=0, position=160)
    new = mixture(weights=(0.1, 0.1, 0.8), stop="CYCLE_FOREVER", num_samples=400)
    assert new.matches(old.describe())
    gone_on = new.go_on(new.recorded(old.describe(), None, 87), left, Lanes)
    ids = ids_of(gone_on)
    assert ids[:160].tolist() == before[:160].tolist()
    assert [len(part) for part in split(ids[160:])] == [24, 24, 192]
    again = new.recorded(json.loads(json.dumps(gone_on.describe())), None, 87)
    assert again == gone_on and ids_of(again).tolist() == ids.tolist()
    # going on with the same weights changes nothing, and the next epoch goes on from there
    assert new.go_on(again, Left(0, 300), Lanes) == again
    later = ids_of(new.after(again, Left(0, 400), 1), epoch=1)
    for part, size in zip(split(np.concatenate([ids, later])), SIZES, strict=True):
        for at in range(0, len(part) - size, size):
            assert sorted(part[at : at + size].tolist()) == list(range(size))


def test_other_weights_end_an_epoch_elsewhere():
    """The rule looks at what was drawn over both; the record keeps no more than it needs."""
    old, changed = mixture((10, 10), (0.5, 0.5)), mixture((10, 10), (0.9, 0.1))
    gone_on = changed.go_on(old, Left(0, 4), Lanes)
    # two of the rare ones were drawn: eight are left, one in ten positions
    assert old.epoch_length(20, 0) == 20 and 74 <= gone_on.epoch_length(20, 0) <= 84
    after = changed.after(gone_on, Left(0, gone_on.epoch_length(20, 0)), 1)
    assert after.describe()["plan"] == {"weights": [[0, 4, 9, 1]]}
    assert after.epoch_length(20, 1) == changed.epoch_length(20, 1)


def test_weights_that_do_not_sum_to_one_are_taken_relative_with_a_warning():
    """It says which shares they are."""
    with pytest.warns(
        UserWarning, match=r"the weights sum to 10, and are taken as the shares 0.6, 0.3, 0.1"
    ):
        order = Mixture((3, 3, 3), [6, 3, 1])
    assert order == Mixture((3, 3, 3), [0.6, 0.3, 0.1])


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (((3, 3), [1.0]), {}, "there are 2 datasets, 1 weights"),
        (((3, 3), [0.5, 0.5]), {"stop": "never"}, "stop must be one of ALL_DATASETS_EXHAUSTED"),
        (((3, 3), [1.0, 0.0]), {}, "dataset 1 has weight 0"),
        (((3, 0), [0.5, 0.5]), {}, "dataset 1 has weight but no samples"),
        (
            ((3, 3), [0.5, 0.5]),
            {"num_samples": 4},
            "num_samples is the length of an epoch with stop='CYCLE_FOREVER'",
        ),
        (((3, 3), [0.5, 0.5]), {"orders": [Sequential()]}, "2 weights and 1 orders"),
    ],
)
def test_what_makes_no_epoch_is_refused(arguments, options, words):
    """One sentence each."""
    with pytest.raises(ValueError, match=words):
        Mixture(*arguments, **options)


def test_other_datasets_are_another_order():
    """Sizes, orders, rules and lengths are compared; only weights may differ."""
    described = mixture().describe()
    assert mixture(weights=(0.1, 0.1, 0.8)).matches(described)
    for other in (
        mixture((50, 30, 8)),
        mixture(stop="ALL_DATASETS_EXHAUSTED"),
        mixture(orders=[Sequential()] * 3),
        Weighted([1.0] * 87),
    ):
        assert not other.matches(described)
    with pytest.raises(ValueError, match="have 87 samples together, but there are 88"):
        mixture().length(88)


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [[0, 0, 1]],
        [[0, 0, 0, 0, 0]],
        [[0, 0, 70000, 0, 0]],
        [[0, 0, 1, 1, 0]],
        [[0, 5, 1, 1, 1], [0, 5, 1, 1, 1]],
        [[0, 0, 1, 1, -1]],
    ],
)
def test_weights_of_an_edited_record_are_refused(weights):
    """They are turns of each dataset, by ascending position, or nothing."""
    with pytest.raises(RecordError, match="sampler state: order"):
        mixture().recorded(mixture().describe() | {"plan": {"weights": weights}}, None, 87)


def test_golden_vectors():
    """The ids that name and version stand for."""
    golden = json.loads(GOLDEN.read_text())
    for case in golden["cases"]:
        order = Mixture(case["sizes"], case["weights"], stop=case["stop"])
        bound = order.bind(sum(case["sizes"]), seed=case["seed"], epoch=case["epoch"])
        assert bound.take(case["positions"]).tolist() == case["ids"]
