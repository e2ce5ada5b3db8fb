"""Legs of a mixture against a loop that draws one sample at a time."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.mixture.course import Change, Course, StopCriteria
from globidx.core.mixture.interleave import Interleave

LIMIT = 250


@st.composite
def courses(draw):
    """Sizes, changes of weights, and a rule that ends the epoch."""
    many = draw(st.integers(1, 4))
    sizes = draw(st.lists(st.integers(1, 30), min_size=many, max_size=many))
    positions = draw(st.lists(st.integers(1, 120), max_size=2, unique=True).map(sorted))
    turns = st.lists(st.integers(1, 5), min_size=many, max_size=many).map(tuple)
    changes = [Change(position, draw(turns)) for position in [0, *positions]]
    return sizes, changes, draw(st.sampled_from(StopCriteria))


def drawn_one_by_one(sizes, changes, stop):
    """(dataset, draw) of each position, until the rule ends it: a loop that counts what it draws."""
    drawn, course, waiting = [0] * len(sizes), [], dict(changes)
    turns = begun = leg = None
    while len(course) < LIMIT:
        turns = waiting.pop(len(course), turns)
        left = [size > done for size, done in zip(sizes, drawn, strict=True)]
        taking = tuple(
            turn if more or stop != "ALL_DATASETS_EXHAUSTED" else 0
            for turn, more in zip(turns, left, strict=True)
        )
        if not any(taking) or (stop.startswith("CYCLE_UNTIL") and not any(left)):
            break
        # the pattern begins anew where anybody's turns change
        if (taking, len(waiting)) != leg:
            leg, begun = (taking, len(waiting)), len(course)
        # in the fewest turns that have this ratio, where some are left out
        common = math.gcd(*taking) if stop == "ALL_DATASETS_EXHAUSTED" else 1
        turn = Interleave(tuple(one // common for one in taking))
        which = int(turn.forward(np.array([len(course) - begun]))[0][0])
        if stop == "FIRST_DATASET_EXHAUSTED" and not left[which]:
            break
        course.append((which, drawn[which]))
        drawn[which] += 1
    return course


@given(courses())
def test_a_course_is_what_a_loop_draws(course):
    """Its length, each position, its inverse and the counts before any position."""
    sizes, changes, stop = course
    expected = drawn_one_by_one(sizes, changes, stop)
    some = Course(sizes, changes, stop)
    assert min(some.length, LIMIT) == len(expected)
    positions = np.arange(len(expected))
    which, draws = some.forward(positions)
    assert list(zip(which.tolist(), draws.tolist(), strict=True)) == expected
    for one in range(len(sizes)):
        own = positions[which == one]
        assert some.inverse(one, draws[own]).tolist() == own.tolist()
    for position in range(0, len(expected) + 1, 7):
        assert some.drawn(position) == [
            int((which[:position] == i).sum()) for i in range(len(sizes))
        ]
