"""Integers that users pass: taken as they are, or refused by name, value and rule."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core import validate

numbers = st.integers(-(2**65), 2**65) | st.integers(-3, 12)
KINDS = [int, np.int8, np.int64, np.uint64]
NOT_INTEGERS = [True, np.True_, 1.0, np.float64(1), "1", None, [1], 1j]


@given(numbers, st.integers(-3, 5), st.integers(5, 12))
def test_an_integer_is_taken_in_its_range_and_nowhere_else(value, low, high):
    """Both ends included."""
    if low <= value <= high:
        assert validate.integer(value, "step", low=low, high=high) == value
    else:
        with pytest.raises(ValueError, match=rf"step must be in \[{low}, {high}\], got {value}"):
            validate.integer(value, "step", low=low, high=high)


@pytest.mark.parametrize("kind", KINDS)
def test_numpys_integers_are_integers(kind):
    """They come out as Python's own."""
    assert type(validate.integer(kind(7), "seed")) is int
    assert type(validate.sample_id(kind(7), 8)) is int


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_what_is_no_integer_is_refused_by_its_type(value):
    """Booleans and whole floats too: they are mistakes."""
    for check in (lambda: validate.integer(value, "seed"), lambda: validate.sample_id(value, 9)):
        # numpy 1 calls its own one bool_
        kind = type(value).__name__.rstrip("_")
        with pytest.raises(TypeError, match=f"must be an integer, got .*{kind}"):
            check()


@given(numbers, st.integers(0, 10))
def test_a_sample_id_is_inside_and_never_counts_from_the_end(value, num_samples):
    """IndexError, as of any sequence."""
    if value in range(num_samples):
        assert validate.sample_id(value, num_samples) == value
    else:
        with pytest.raises(IndexError, match=rf"sample id {value} is outside \[0, {num_samples}\)"):
            validate.sample_id(value, num_samples)


@given(st.lists(numbers, max_size=6), st.sampled_from([list, tuple, iter]))
def test_many_are_taken_as_one_by_one(values, make):
    """The first that would be refused refuses all; an array of its own comes out."""
    stop = 10
    if all(value in range(stop) for value in values):
        found = validate.integers(list(make(values)), "sample id", stop)
        assert found.dtype == np.int64
        assert found.tolist() == values
    else:
        with pytest.raises(IndexError, match="sample id -?[0-9]+ is outside "):
            validate.integers(list(make(values)), "sample id", stop)


@pytest.mark.parametrize(
    ("values", "error", "told"),
    [
        ([0.5], TypeError, "sample id must be an integer, got 0.5"),
        ([True], TypeError, "got True"),
        (np.array([0.5]), TypeError, "must be integers, got an array of float64"),
        (np.array([True]), TypeError, "array of bool"),
        (np.zeros((2, 2), int), ValueError, "one-dimensional, got shape"),
        (7, TypeError, "sequence of integers, got 7"),
        (np.array([2**63], "u8"), IndexError, "outside the int64 range"),
        (np.array([10]), IndexError, r"sample id 10 is outside \[0, 10\)"),
    ],
)
def test_arrays_of_anything_else_are_refused(values, error, told):
    """Nothing is rounded, wrapped or flattened."""
    with pytest.raises(error, match=told):
        validate.integers(values, "sample id", 10)


def test_the_array_that_comes_out_is_not_the_one_that_went_in():
    """The caller may write to it."""
    given_ = np.arange(3)
    assert validate.integers(given_, "sample id", 3) is not given_
    assert validate.integers(range(3), "sample id", 3).tolist() == [0, 1, 2]
    assert validate.integers([], "sample id", 0).tolist() == []


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (slice(2, 4), "several are a list of integers, such as range"),
        ("3", "convert it by int"),
        ([1], "a list of integers has no lists in it"),
        (1.5, r"\(float\)$"),
    ],
)
def test_a_usual_mistake_is_told_what_to_do(value, hint):
    """A slice of a dataset, a number from a command line, a batch of batches."""
    with pytest.raises(TypeError, match=hint):
        validate.sample_id(value, 9)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (2**63 - 1, "2**63 - 1"),
        (2**40, "2**40"),
        (-(2**63), "-2**63"),
        (2**16 - 1, "2**16 - 1"),
        (2**15, "32768"),
        (10**18, f"{10**18}"),
        (0, "0"),
    ],
)
def test_a_bound_is_written_as_people_write_it(number, words):
    """Nobody knows 9223372036854775807 by sight."""
    assert validate.bound(number) == words
    assert eval(words) == number
