"""Turns: exact shares in each period, near ones in each stretch, and arithmetic both ways."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.mixture.interleave import Interleave

TURNS = st.lists(st.integers(0, 12), min_size=1, max_size=7).filter(any).map(tuple)


def counted(turns, length):
    """How often each turn was theirs before it, and each one's turns in all, counted one by one."""
    whose, _ = Interleave(turns).forward(np.arange(length))
    seen = [0] * len(turns)
    before = []
    for one in whose.tolist():
        before.append(seen[one])
        seen[one] += 1
    return before, seen


@given(TURNS)
def test_the_first_turns_of_a_period_are_within_one_of_exact(turns):
    """Tijdeman's bound: 1 - 1 / (2 m - 2), for m that take part."""
    period, many = sum(turns), sum(map(bool, turns))
    whose, _ = Interleave(turns).forward(np.arange(period))
    bound = 1 - Fraction(1, max(2, 2 * many - 2))
    for one, turn in enumerate(turns):
        for length in range(period + 1):
            served = int((whose[:length] == one).sum())
            assert abs(served - Fraction(turn * length, period)) <= bound


@given(TURNS, st.integers(1, 5000))
def test_counts_and_their_inverse_are_those_of_counting(turns, length):
    """Over blocks between which the pattern is turned on."""
    before, seen = counted(turns, length)
    some = Interleave(turns)
    found, draws = some.forward(np.arange(length))
    assert draws.tolist() == before
    assert some.inverse(found, draws).tolist() == list(range(length))
    assert some.served(length) == seen


@pytest.mark.parametrize("turns", [(6, 3, 1), (1, 1), (1, 3, 4), (50, 30, 15, 5)])
def test_every_window_of_a_thousand_is_within_one_of_exact(turns):
    """At whatever turn it begins, over 100,000 of them."""
    whose, _ = Interleave(turns).forward(np.arange(100_000))
    for one, turn in enumerate(turns):
        served = np.concatenate([[0], np.cumsum(whose == one)])
        windows = served[1000:] - served[:-1000]
        assert np.abs(windows - 1000 * turn / sum(turns)).max() <= 1


def test_no_rank_gets_all_turns_of_one():
    """Ten ranks share a pattern of ten turns: each has a tenth of the turns that come once in it."""
    whose, _ = Interleave((6, 3, 1)).forward(np.arange(1030 * 10))
    ranks = np.flatnonzero(whose == 2) % 10
    assert np.bincount(ranks, minlength=10).tolist() == [103] * 10


def test_far_turns_cost_what_near_ones_do():
    """Positions of 2**60 are computed, and lead back."""
    far = np.arange(2**60, 2**60 + 100)
    some = Interleave((6, 3, 1))
    whose, draws = some.forward(far)
    assert (some.inverse(whose, draws) == far).all()
    assert sum(some.served(2**60)) == 2**60
