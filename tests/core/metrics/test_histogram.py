"""The histogram of a run against all its numbers, sorted."""

import json
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.json import strict
from globidx.core.metrics.histogram import PARTS, LogHistogram
from globidx.errors import RecordError

NUMBERS = st.one_of(
    st.integers(-300, 300),
    st.integers(-(2**1100), 2**1100),
    st.floats(allow_nan=False, allow_infinity=False),
)


def counted(numbers):
    """The histogram of numbers."""
    histogram = LogHistogram()
    for number in numbers:
        histogram.add(number)
    return histogram


@given(st.lists(NUMBERS, min_size=1, max_size=40), st.integers(1, 100))
def test_a_quantile_is_at_most_a_128th_from_the_number_it_is_for(numbers, percent):
    """Towards zero, and never beyond; integers up to 256 are exact."""
    true = sorted(map(Fraction, numbers))[math.ceil(Fraction(percent * len(numbers), 100)) - 1]
    told = Fraction(counted(numbers).quantile(percent))
    assert told * true >= 0
    assert 0 <= abs(true) - abs(told) <= abs(true) / PARTS
    if true.denominator == 1 and abs(true) <= 256:
        assert told == true


@given(st.lists(st.lists(NUMBERS, max_size=12), min_size=1), st.randoms(use_true_random=False))
def test_merges_in_any_sequence_are_one_histogram(parts, random):
    """The same state, whatever was merged into what."""
    left = [counted(part) for part in parts]
    random.shuffle(left)
    while len(left) > 1:
        one, other = (left.pop(random.randrange(len(left))) for _ in range(2))
        one.merge(other)
        left.append(one)
    whole = counted([number for part in parts for number in part])
    assert left[0].state() == whole.state()
    assert left[0].count == whole.count == sum(map(len, parts))


@given(st.lists(NUMBERS, max_size=20))
def test_a_histogram_comes_back_from_json(numbers):
    """Strict JSON takes it."""
    histogram, back = counted(numbers), LogHistogram()
    state = strict.plain(histogram.state(), "state")
    back.load(strict.parse(json.dumps(state).encode()), "run")
    assert back.state() == state
    assert [back.quantile(p) for p in (5, 95)] == [histogram.quantile(p) for p in (5, 95)]


@pytest.mark.parametrize("number", [2**54 - 1, 2**1030 - 1, -(2**60) + 1])
def test_a_long_integer_is_not_rounded_up(number):
    """Its float is in the next octave."""
    told = counted([number]).quantile(50)
    assert abs(told) == 255 * 2 ** (number.bit_length() - 8) and told * number > 0


def test_of_no_numbers_there_is_no_quantile():
    """None, and not 0."""
    assert LogHistogram().quantile(50) is None


def test_buckets_are_the_same_on_every_platform():
    """They are in records: what must never change."""
    state = counted([1, 1.0, 3, 0.75, -1000, 5e-324, 1.7976931348623157e308, 0]).state()
    assert state == {
        "above": [[-137344, 64, 128, 320, 131199], [1, 1, 2, 1, 1]],
        "zeros": 1,
        "below": [[1402], [1]],
    }


@pytest.mark.parametrize(
    "change",
    [
        {"zeros": -1},
        {"above": [[1]]},
        {"above": [[1], [1, 2]]},
        {"above": [[1], [0]]},
        {"below": [[2**60], [1]]},
        {"below": [[0.5], [1]]},
        {"more": 1},
    ],
)
def test_what_is_no_histogram_is_refused(change):
    """A bucket whose lower end would fill the memory, too."""
    with pytest.raises(RecordError):
        LogHistogram().load(counted([1, -2]).state() | change, "run")
