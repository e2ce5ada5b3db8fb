"""What a record may hold: each checker takes what it says, and refuses the rest by place, value and rule."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sealed_record import json_values

from globidx.core.json import schema
from globidx.errors import RecordError, RecordVersionError

ANY_KEYS = schema.Json(schema.Integer(0, 9))
#: A checker, values that it takes, and (value, words of the error) that it refuses.
CHECKERS = {
    "Integer": (
        schema.Integer(-1, 2),
        [-1, 0, 2],
        [
            (3, "x must be an integer in [-1, 2], got 3"),
            (True, "got True"),
            (1.0, "got 1.0"),
            ("1", "got '1'"),
            (None, "got None"),
        ],
    ),
    "Text": (
        schema.Text(3),
        ["", "abc"],
        [("abcd", "x must be a string of at most 3 characters, got 'abcd'"), (1, "got 1")],
    ),
    "OneOf": (
        schema.OneOf(("a", "b")),
        ["a", "b"],
        [("c", "x must be one of a, b, got 'c'"), (None, "got None"), (["a"], "got ['a']")],
    ),
    "Optional": (
        schema.Optional(schema.Integer(0, 1)),
        [None, 1],
        [(2, "x must be an integer in [0, 1], got 2")],
    ),
    "List": (
        schema.List(schema.Integer(0, 9), at_least=1, at_most=2),
        [[1], [1, 2]],
        [
            ([], "x must be a list of 1 to 2, got []"),
            ([1, 2, 3], "x must be a list of 1 to 2, got [1, 2, 3]"),
            ([1, "a"], "x[1] must be an integer in [0, 9], got 'a'"),
            ({}, "got {}"),
        ],
    ),
    "Json": (
        ANY_KEYS,
        [{}, {"any": 3}],
        [
            ({"any": "a"}, "x: any must be an integer in [0, 9], got 'a'"),
            ([], "x must be an object, got []"),
        ],
    ),
    "Fields": (
        schema.Fields(seed=schema.Integer(0, 9)),
        [{"seed": 7}],
        [
            ({}, "x: missing seed"),
            ({"sead": 7}, "x: missing seed, unknown sead"),
            ({"seed": 7, "a\nb": 1}, r"x: unknown 'a\nb'"),
            ({"seed": "7"}, "x: seed must be an integer in [0, 9], got '7'"),
        ],
    ),
}


@pytest.mark.parametrize("name", CHECKERS)
def test_what_fits_is_returned_and_all_else_is_refused_by_its_place(name):
    """Neither converted nor repaired."""
    check, taken, refused = CHECKERS[name]
    for value in taken:
        assert check(value, "x") == value
    for value, told in refused:
        with pytest.raises(RecordError, match=re.escape(told)):
            check(value, "x")


@given(st.sampled_from(sorted(CHECKERS)), json_values)
def test_any_json_is_returned_as_it_is_or_refused_in_a_line(name, value):
    """A record error that is short, whatever stands there."""
    try:
        found = CHECKERS[name][0](value, "x")
    except RecordError as error:
        found, words = value, str(error)
        assert len(words) < 300
    assert found == value


def test_a_header_is_of_this_format_and_no_newer_version():
    """``fields`` leaves these two keys to ``header``."""
    whole = {"format": "globidx.thing", "version": 2, "seed": 7}
    schema.header(whole, "x", "globidx.thing", 2)
    schema.header(whole, "x", "globidx.thing", 3)
    assert schema.fields(whole, "x", {"seed": schema.Integer(0, 9)}) == {"seed": 7}
    for other, told in (
        ({"format": "globidx.index", "version": 1}, "its format is 'globidx.index'"),
        ({"version": 1}, "it is {'version': 1}"),
        ([1], r"it is \[1\]"),
        (None, "it is None"),
    ):
        rule = r"x is not of format 'globidx\.thing', which it must name under the key 'format': "
        with pytest.raises(RecordError, match=f"{rule}{told}; pass what globidx wrote"):
            schema.header(other, "x", "globidx.thing", 1)
    for version in (0, -1, True, "1", None):
        with pytest.raises(
            RecordError, match="version must be a positive integer.*edited or damaged"
        ):
            schema.header(whole | {"version": version}, "x", "globidx.thing", 1)
    with pytest.raises(
        RecordVersionError, match=r"written in version 2 of globidx\.thing.*up to 1; upgrade"
    ):
        schema.header(whole, "x", "globidx.thing", 1)
