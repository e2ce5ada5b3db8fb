"""The greatest and the least value."""

import math
from itertools import permutations

import pytest

from globidx.core.metrics.extremes import Maximum, Minimum
from globidx.errors import RecordError


def made(kind, values):
    """One that had these values."""
    aggregate = kind()
    for value in values:
        aggregate.add(value, (0, 0, 0))
    return aggregate


@pytest.mark.parametrize(("kind", "best"), [(Maximum, 7), (Minimum, -4)])
def test_of_equal_values_the_result_does_not_depend_on_their_sequence(kind, best):
    """3 and 3.0 are equal, but not printed alike."""
    values = [float(best), best, 0.0, -0.0]
    told = {repr(made(kind, some).results()[""]) for some in permutations(values)}
    assert told == {repr(best)}


@pytest.mark.parametrize("kind", [Maximum, Minimum])
def test_an_infinity_is_no_extreme(kind):
    """A start at minus infinity would come out where there are no values."""
    assert kind().results() == {"": None}
    assert made(kind, [math.inf, -math.inf, 5]).results() == {
        "": 5,
        "_count_inf": 1,
        "_count_neg_inf": 1,
    }


@pytest.mark.parametrize("state", [{}, {"best": "x", "apart": {}}, {"best": 1, "apart": {"x": 1}}])
def test_what_is_no_extreme_is_refused(state):
    """It is from a record that somebody edited."""
    with pytest.raises(RecordError):
        Maximum().load(state)
