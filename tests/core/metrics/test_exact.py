"""Exact sums against fractions."""

import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_oracle import rounded

from globidx.core.json import strict
from globidx.core.metrics.exact import ExactSum
from globidx.errors import RecordError

FINITE = st.integers(-(2**90), 2**90) | st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.lists(FINITE, max_size=30)


def summed(numbers):
    """The sum of numbers, one after another."""
    total = ExactSum()
    for number in numbers:
        total.add(number)
    return total


def through_json(total):
    """What comes out of a record."""
    state = strict.plain(total.state(), "state")
    loaded = ExactSum()
    loaded.load(strict.parse(json.dumps(state).encode()), "sum")
    return loaded


@given(NUMBERS)
def test_a_sum_is_rounded_once(numbers):
    """Sum and mean are the floats next to the exact ones; integers stay integers."""
    total, exact = summed(numbers), sum(map(Fraction, numbers), Fraction(0))
    if not numbers:
        assert (total.value, total.mean) == (None, None)
        return
    is_integer = all(type(number) is int for number in numbers)
    expected = int(exact) if is_integer else rounded(exact)
    assert total.value == expected and type(total.value) is type(expected)
    assert total.mean == rounded(exact / len(numbers))


@given(st.lists(NUMBERS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merges_in_any_sequence_are_one_sum(parts, random):
    """Whatever was merged into what, and whether it came out of a record: the same state, to the last bit."""
    left = [summed(part) for part in parts]
    while len(left) > 1:
        one, other = (left.pop(random.randrange(len(left))) for _ in range(2))
        one.merge(through_json(other) if random.random() < 0.5 else other)
        left.append(one)
    numbers = [number for part in parts for number in part]
    random.shuffle(numbers)
    assert left[0].state() == summed(numbers).state()


@given(NUMBERS)
def test_a_sum_comes_back_from_json(numbers):
    """With everything that follows from it."""
    total = summed(numbers)
    back = through_json(total)
    assert back.state() == total.state()
    assert (back.value, back.mean, back.count) == (total.value, total.mean, len(numbers))


def test_a_sum_beyond_all_floats_is_infinite():
    """And the mean of the same numbers is not."""
    total = summed([1.7e308, 1.7e308])
    assert (total.value, total.mean) == (float("inf"), 1.7e308)


@pytest.mark.parametrize(
    "change",
    [
        {"count": -1},
        {"sum": 0.5},
        {"shift": 1},
        {"shift": 10**9, "is_integer": False},
        {"is_integer": 1},
        {"more": 1},
    ],
)
def test_what_is_no_sum_is_refused(change):
    """A shift of a thousand million bits, too, before there is such an integer."""
    with pytest.raises(RecordError):
        ExactSum().load(summed([1, 2]).state() | change, "sum")
