"""Which records stay: tables, without a file."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.records.policies import Entry, best, every, last

STEPS = (0, 100, 250, 260, 399, 500, 510)
LOSSES = (9, 4, 4, None, 2, "low", True)
ENTRIES = [
    Entry(n, step, {} if loss is None else {"loss": loss})
    for n, (step, loss) in enumerate(zip(STEPS, LOSSES, strict=True))
]


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (last(1), [6]),
        (last(3), [4, 5, 6]),
        (last(99), [0, 1, 2, 3, 4, 5, 6]),
        (every(1), [0, 1, 2, 3, 4, 5, 6]),
        (every(100), [0, 1, 2, 4, 5]),
        (every(250), [0, 2, 5]),
        (every(1000), [0]),
        (best("loss"), [4]),
        (best("loss", count=2), [1, 4]),
        (best("loss", "max"), [0]),
        (best("loss", "max", 3), [0, 1, 2]),
        (best("accuracy"), []),
        (last(1) | best("loss"), [4, 6]),
        (every(250) | last(2) | best("loss"), [0, 2, 4, 5, 6]),
        (last(1) | (lambda entries: frozenset({entries[0].number})), [0, 6]),
    ],
)
def test_what_is_kept_of_seven_records(policy, kept):
    """Of steps 0, 100, 250, 260, 399, 500, 510, of which four have a loss."""
    assert sorted(policy(ENTRIES)) == kept


@pytest.mark.parametrize(
    "policy", [last(2), every(3), best("loss"), last(1) | every(4) | best("loss", "max", 2)]
)
def test_nothing_is_kept_of_nothing(policy):
    """An empty folder is no error."""
    assert policy([]) == frozenset()


@given(
    found=st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(0, 5)), max_size=12),
    count=st.integers(1, 3),
    steps=st.integers(1, 5),
)
def test_pruning_after_each_save_keeps_what_pruning_once_would(found, count, steps):
    """So a record that a policy is to keep for good is not lost on the way to it."""
    policy = last(count) | every(steps) | best("loss", count=count)
    entries, step, left = [], 0, []
    for number, (more, loss) in enumerate(found):
        step += more
        entries.append(Entry(number, step, {} if loss is None else {"loss": loss}))
        left = [
            entry for entry in [*left, entries[-1]] if entry.number in policy([*left, entries[-1]])
        ]
    assert {entry.number for entry in left} == policy(entries)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: last(0),
        lambda: every(0),
        lambda: every(1.5),
        lambda: best("x", "least"),
        lambda: best("x", count=0),
    ],
)
def test_policies_that_cannot_be_are_refused(bad):
    """When they are made, not when they prune."""
    with pytest.raises((TypeError, ValueError)):
        bad()
