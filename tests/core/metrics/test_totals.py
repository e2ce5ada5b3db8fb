"""Sum and mean, where floats by themselves would go wrong."""

import math
from functools import reduce
from itertools import permutations
from operator import add

import pytest

from globidx.core.metrics.totals import Mean, Sum
from globidx.errors import RecordError


def made(kind, values):
    """One that had these values."""
    aggregate = kind()
    for value in values:
        aggregate.add(value, (0, 0, 0))
    return aggregate


def test_integers_are_exact_beyond_63_bits_and_beyond_floats():
    """Tokens of a long run, and more."""
    assert made(Sum, [2**63 - 1, 1, 1]).results() == {"": 2**63 + 1}
    assert made(Sum, [2**53, 1, 1]).results() == {"": 2**53 + 2}


def test_a_sum_of_floats_does_not_depend_on_their_sequence():
    """Where adding them up does."""
    values = [1e16, 1.0, -1e16, 0.1]
    assert {made(Sum, some).results()[""] for some in permutations(values)} == {1.1}
    assert len({reduce(add, some) for some in permutations(values)}) > 1


def test_a_mean_counts_every_value_once():
    """However many each part had: parts of 1 and 3 values do not count equally."""
    one, three = made(Mean, [8]), made(Mean, [0, 0, 0])
    one.merge(three)
    assert one.results() == {"": 2.0}


@pytest.mark.parametrize("kind", [Sum, Mean])
def test_of_no_values_there_is_none(kind):
    """None and not 0, also if all there was is NaN."""
    assert kind().results() == {"": None} == made(kind, [None]).results()
    assert made(kind, [math.nan, -math.inf]).results() == {
        "": None,
        "_count_nan": 1,
        "_count_neg_inf": 1,
    }


@pytest.mark.parametrize("state", [{}, {"apart": {}}, Sum().state() | {"more": 1}])
def test_what_is_no_total_is_refused(state):
    """It is from a record that somebody edited."""
    with pytest.raises(RecordError):
        Sum().load(state)
