"""Weighted orders draw by weight, from any position, on any number of ranks."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import Sampler

from globidx import errors, merge_states
from globidx.orders import Weighted

WEIGHTS = [0.0, 1.0, 2.0, 0.5, 4.0, 0.0, 0.25]
GOLDEN = Path(__file__).parents[2] / "golden" / "weighted-1.json"


def test_with_replacement_frequencies_follow_the_weights():
    """Chi-square of 200,000 draws against the weights; zero weights are never drawn."""
    ids = Weighted(WEIGHTS, 200_000).bind(7, seed=3, epoch=1).take(range(200_000))
    counts = np.bincount(ids, minlength=7)
    expected = np.array(WEIGHTS) / sum(WEIGHTS) * len(ids)
    drawable = expected > 0
    assert counts[~drawable].sum() == 0
    chi2 = ((counts - expected)[drawable] ** 2 / expected[drawable]).sum()
    assert chi2 < 4 + 5 * math.sqrt(8)
    pairs = np.bincount(ids[:-1] * 7 + ids[1:], minlength=49).reshape(
        7, 7
    )  # neighbours are independent
    assert np.abs(pairs - np.outer(expected, expected) / len(ids)).max() < 5 * math.sqrt(
        pairs.max()
    )


def test_without_replacement_no_sample_is_drawn_twice_and_heavy_ones_come_first():
    """The first draw follows the weights; all draws are distinct."""
    first = np.zeros(7)
    for seed in range(4000):
        ids = Weighted(WEIGHTS, 5, replacement=False).bind(7, seed=seed, epoch=0).take(range(5))
        assert len(set(ids.tolist())) == 5
        first[ids[0]] += 1
    expected = np.array(WEIGHTS) / sum(WEIGHTS) * 4000
    drawable = expected > 0
    assert first[~drawable].sum() == 0
    assert ((first - expected)[drawable] ** 2 / expected[drawable]).sum() < 4 + 5 * math.sqrt(8)


@given(
    seed=st.integers(0, 99),
    replacement=st.booleans(),
    draws=st.integers(1, 5),
    legs=st.lists(
        st.tuples(st.integers(1, 4), st.lists(st.floats(0, 0.9), min_size=4, max_size=4)),
        max_size=3,
    ),
)
def test_every_draw_is_made_once_over_resumes(seed, replacement, draws, legs):
    """Positions are dealt like any others: over kills and resizes the epoch's draws come out as one run's."""
    order = Weighted(WEIGHTS, draws * (8 if replacement else 1), replacement=replacement)
    expected = order.bind(7, seed=seed, epoch=0).take(range(order.length(7))).tolist()
    record, got = None, []
    for world, shares in [*legs, (3, [1.0] * 3)]:
        ranks = [
            Sampler(range(7), world, r, seed=seed, order=order, tail="exact") for r in range(world)
        ]
        for rank, share in zip(ranks, shares, strict=False):
            if record:
                rank.load_state_dict(record)
            ids = list(rank)
            count = len(ids) if share == 1.0 else int(share * len(ids))
            got += ids[:count]
            rank.commit(count)
        record = merge_states([rank.state_dict() for rank in ranks])
    assert sorted(got) == sorted(expected)
    assert record["epoch"] == 1


def test_an_epoch_has_as_many_positions_as_draws():
    """len counts draws, not samples; epochs differ; positions can be looked up."""
    order = Weighted(WEIGHTS, num_samples=20)
    sampler = Sampler(range(7), 4, 1, order=order)
    assert len(sampler) == len(list(sampler)) == 5
    bound = order.bind(7, seed=0, epoch=0)
    ids = bound.take(range(20))
    assert not np.array_equal(ids, order.bind(7, seed=0, epoch=1).take(range(20)))
    for id in set(ids.tolist()):
        assert bound.position(id) == ids.tolist().index(id)
        assert bound.occurrences(np.array([id])).tolist() == np.flatnonzero(ids == id).tolist()
    with pytest.raises(ValueError, match="sample 0 is not drawn"):
        bound.position(0)


def test_golden_vectors():
    """The numbers of weighted version 1 are what they always were."""
    for case in json.loads(GOLDEN.read_text()):
        order = Weighted(case["weights"], case["draws"], replacement=case["replacement"])
        assert order.describe() == case["order"]
        drawn = order.bind(len(case["weights"]), seed=case["seed"], epoch=case["epoch"])
        assert drawn.take(range(case["draws"])).tolist() == case["ids"], case


def test_other_weights_without_replacement_are_another_order():
    """Who was drawn by the old ones is not known by the new ones: a record is refused."""
    one = Sampler(range(7), 1, 0, order=Weighted(WEIGHTS, 5, replacement=False))
    other = Sampler(range(7), 1, 0, order=Weighted(WEIGHTS[::-1], 5, replacement=False))
    one.commit(2)
    with pytest.raises(errors.RecordMismatchError, match="order"):
        other.load_state_dict(one.state_dict())


@pytest.mark.parametrize(
    ("weights", "arguments", "told"),
    [
        ([], {}, "one-dimensional"),
        ([[1.0]], {}, "one-dimensional"),
        ([1.0, -1.0], {}, "got -1.0 for sample 1"),
        ([float("nan")], {}, "finite"),
        ([float("inf")], {}, "finite"),
        ([0.0, 0.0], {}, "all weights are zero"),
        ([0.0, 1.0], {"replacement": False}, "only 1 samples"),
        ([1.0], {"num_samples": -1}, "num_samples"),
        ([1.0], {"num_samples": 1.5}, "num_samples"),
    ],
)
def test_bad_weights_are_named(weights, arguments, told):
    """At construction."""
    with pytest.raises((TypeError, ValueError), match=told):
        Weighted(weights, **arguments)


def test_weights_at_the_edge_of_floats_still_weigh():
    """Sums that overflow and weights that nearly vanish; what has weight zero is never drawn."""
    ids = Weighted([1e308] * 10, 1000).bind(10, seed=0, epoch=0).take(range(1000))
    assert len(set(ids.tolist())) == 10
    for seed in range(50):
        order = Weighted([0, 1e-310, 1e-310], num_samples=1, replacement=False)
        assert order.bind(3, seed=seed, epoch=0).take([0])[0] != 0


def test_there_must_be_one_weight_a_sample():
    """Too few or too many are refused when the sampler is built."""
    with pytest.raises(ValueError, match="7 weights for 8 samples"):
        Sampler(range(8), 1, 0, order=Weighted(WEIGHTS))


@pytest.mark.parametrize("draws", [6, None])
@pytest.mark.parametrize("added", [1.0, 50.0])
def test_an_epoch_keeps_its_draws_where_files_are_appended(draws, added):
    """Heavy ones do not change it; the next epoch has all samples."""
    weights = [0.3, 1.0, 0.7, 0.1]
    first, grown = Weighted(weights, draws), Weighted([*weights, *[added] * 6], draws)
    assert grown.matches(first.describe())
    recorded = grown.recorded(first.parameters(), None, 4)
    length = draws or 4
    assert recorded.parameters() == first.parameters() and recorded.length(4) == length
    expected = first.bind(4, seed=7, epoch=2).take(range(length)).tolist()
    assert recorded.bind(4, seed=7, epoch=2).take(range(length)).tolist() == expected
    assert grown.length(10) == draws or 10


def test_a_record_of_an_epoch_that_this_order_cannot_go_on_with_says_why():
    """Other numbers of draws, and samples of which none has a weight any longer."""
    described = Weighted([1, 1, 1], 2).parameters()
    with pytest.raises(
        errors.RecordMismatchError, match="has 2 draws, this order has 3: pass num_sam"
    ):
        Weighted([1, 1, 1]).recorded(described, None, 3)
    with pytest.raises(
        errors.RecordMismatchError, match="3 samples, to which others were appended since"
    ):
        Weighted([0, 0, 0, 1], 2).recorded(described, None, 3)
