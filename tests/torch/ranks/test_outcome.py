"""What a rank's work came to travels as JSON, and comes out as the error or the value that it was."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx import errors
from globidx.torch.ranks.outcome import decode, encode, outcome_of

OWN = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == errors.__name__
]


@pytest.mark.parametrize("kind", [*OWN, TypeError, ValueError, NotADirectoryError])
def test_an_error_comes_out_as_its_own_class(kind):
    """With its message behind the rank that raised it."""
    found = decode(encode(kind("went wrong")), "rank 3: ")
    assert type(found) is kind
    assert "rank 3: went wrong" in str(found)


def test_what_it_carries_comes_out_too():
    """The field that differs, and what became of the record."""
    error = errors.SaveError("no space")
    error.state = errors.UNKNOWN
    assert decode(encode(error), "").state == errors.UNKNOWN
    mismatch = errors.RecordMismatchError("other")
    mismatch.field = "seed"
    assert decode(encode(mismatch), "").field == "seed"


class Strange(Exception):
    """Of nobody else's."""


@pytest.mark.parametrize(
    "name", ["Strange", "SystemExit", "__builtins__", "annotations", "UNKNOWN", "os"]
)
def test_any_other_class_is_a_save_error(name):
    """No name from another rank makes an object that is no error of ours."""
    payload = json.dumps({"error": name, "message": "went wrong"}).encode()
    assert type(decode(payload, "rank 1: ")) is errors.SaveError
    assert type(decode(encode(Strange("went wrong")), "")) is errors.SaveError


def test_a_long_message_is_cut():
    """Every rank sends room for it."""
    assert len(encode(ValueError("x" * 10**6))) < 5000


@given(st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_a_value_is_its_json_and_none_is_no_bytes(value):
    """Nothing is pickled."""
    payload, error = outcome_of(lambda: value)
    assert error is None
    assert payload == b"" if value is None else json.loads(payload) == value


def test_an_error_is_kept_beside_its_bytes():
    """The rank itself raises the one that it had."""
    payload, error = outcome_of(lambda: 1 // 0)
    assert isinstance(error, ZeroDivisionError)
    assert "division" in json.loads(payload)["message"]
