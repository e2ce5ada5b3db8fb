"""What counts as a number, and what is counted apart."""

import json
import math
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.json import strict
from globidx.core.metrics.numeric import Apart, from_json, number_of, to_json
from globidx.errors import RecordError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1),
        (np.True_, 1),
        (np.int8(-3), -3),
        (np.uint64(2**64 - 1), 2**64 - 1),
        (np.float32(0.1), float(np.float32(0.1))),
        (np.float16(0.5), 0.5),
        (np.array(2.5), 2.5),
        (10**400, 10**400),
    ],
)
def test_numbers_of_numpy_are_pythons(value, expected):
    """The same value, and the type that JSON has."""
    number = number_of(value)
    assert number == expected and type(number) is type(expected)


@pytest.mark.parametrize("value", ["1", b"1", None, 1j, [1], np.ones(1), np.array("a"), Decimal(1)])
def test_what_is_no_number_is_refused(value):
    """Text in digits too: it is most likely a field that was not converted."""
    with pytest.raises(TypeError, match="which is no number; pass an int, a float"):
        number_of(value)


def test_minus_zero_is_zero():
    """Else the greatest of both would be the one that came first."""
    assert math.copysign(1, number_of(-0.0)) == math.copysign(1, number_of(np.float32(-0.0))) == 1


@given(st.lists(st.floats(), max_size=20))
def test_what_is_not_finite_is_counted_by_kind(values):
    """Each value is either given back, or counted once."""
    apart = Apart()
    kept = [value for value in values if apart.finite(value) is not None]
    assert kept == [value for value in values if math.isfinite(value)]
    counts = {
        "_count_nan": sum(map(math.isnan, values)),
        "_count_inf": values.count(math.inf),
        "_count_neg_inf": values.count(-math.inf),
    }
    assert apart.results() == {name: count for name, count in counts.items() if count}
    other = Apart()
    other.load(strict.parse(json.dumps(apart.state()).encode()), "apart")
    other.merge(apart)
    assert other.results() == {name: 2 * count for name, count in apart.results().items()}


@given(
    st.integers()
    | st.integers(-(2**3000), 2**3000)
    | st.floats(allow_nan=False, allow_infinity=False)
)
def test_a_number_comes_back_from_json(number):
    """Of the same type, and strict JSON takes it, however many digits it has."""
    text = strict.canonical(strict.plain(to_json(number), "x"))
    back = from_json(strict.parse(text), "x")
    assert back == number and type(back) is type(number)


@pytest.mark.parametrize("value", [None, "", "x", True, [1], math.nan, math.inf, {"a": 1}])
def test_what_is_no_number_in_a_state_is_named(value):
    """With its place."""
    with pytest.raises(RecordError, match="sum must be a number, got"):
        from_json(value, "sum")


@pytest.mark.parametrize("state", [None, {"nan": -1}, {"nan": True}, {"huge": 1}, [1]])
def test_counts_that_cannot_be_are_refused(state):
    """Negative ones, and ones of another name."""
    with pytest.raises(RecordError, match="apart"):
        Apart().load(state, "apart")
