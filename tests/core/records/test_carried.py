"""A record that another program carries: whole in ``text``, and also as values that the program may take apart."""

from __future__ import annotations

import copy

import pytest

from globidx.core.records import record
from globidx.errors import RecordCorruptError

SEALED = record.build(
    number=3,
    token="0123456789ab",
    step=40,
    time="",
    states={"train": {"a": 1}},
    extras={"loss": [1, 2]},
)


def without(state, *path):
    """A copy of nested dicts that lacks the value at ``path``."""
    state = copy.deepcopy(state)
    inner = state
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return state


def test_what_is_carried_comes_back():
    """With ``text``, without it, and if the other program has dropped values that its objects have no key for."""
    carried = record.carried(SEALED)
    for state in (
        carried,
        SEALED,
        without(carried, "extras"),
        without(carried, "states", "train", "a"),
    ):
        assert record.uncarried(state, "x") == SEALED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": 41}, "differs from the record in its text"),
        ({"extras": {"loss": [1, 3]}}, "differs from the record in its text"),
        ({"more": 1}, "differs from the record in its text"),
        ({"text": b"{}"}, "its text is a bytes"),
        ({"text": "\ud800"}, "x"),
    ],
)
def test_a_change_is_seen(change, reason):
    """A value that differs from ``text``, or is not in it, and a text that is no record."""
    with pytest.raises(RecordCorruptError, match=reason):
        record.uncarried(record.carried(SEALED) | change, "x")
    with pytest.raises(RecordCorruptError):
        record.uncarried(without(SEALED, "step"), "x")
