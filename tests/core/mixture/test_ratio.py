"""Weights as turns: simple ratios stay as they are, all others are near, and none is lost."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.mixture.ratio import LONGEST, ratio


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any), st.floats(1e-3, 1e3))
def test_simple_ratios_are_exact_at_any_scale(turns, scale):
    """Divided by their common divisor, as if the scale and its rounding were not there."""
    common = math.gcd(*turns)
    assert ratio([turn * scale for turn in turns]) == tuple(turn // common for turn in turns)


@given(st.lists(st.floats(1e-3, 1.0), min_size=1, max_size=20))
def test_any_weights_are_rounded_to_one_turn_of_the_longest_period(weights):
    """Together they are a whole period, none is more than a turn off."""
    turns = ratio(weights)
    period, total = sum(turns), sum(map(Fraction, weights))
    assert period <= LONGEST
    for weight, turn in zip(weights, turns, strict=True):
        assert abs(Fraction(turn, period) - Fraction(weight) / total) <= Fraction(1, LONGEST)


@pytest.mark.parametrize(
    ("weights", "error", "words"),
    [
        ([0, 0.0], ValueError, "no weight is above zero"),
        ([1, -0.5], ValueError, "weight of dataset 1 must not be negative, got -0.5"),
        ([float("nan"), 1], ValueError, "weight of dataset 0 must be a finite number"),
        ([float("inf"), 1], ValueError, "weight of dataset 0 must be a finite number"),
        ([True, 1], TypeError, "weight of dataset 0 must be a number, got True"),
        (["a", 1], ValueError, "weight of dataset 0 must be a finite number, got 'a'"),
        ([1, 1e-7], ValueError, "weight 1e-07 of dataset 1 is less than 1 in 65536"),
    ],
)
def test_other_weights_are_refused_by_number_and_rule(weights, error, words):
    """One sentence says which."""
    with pytest.raises(error, match=words):
        ratio(weights)
