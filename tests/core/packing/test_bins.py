"""The methods of packing against loops that place one document after the other."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.packing.bins import first_fit_decreasing, next_fit


@st.composite
def jobs(draw):
    """(lengths, budget), with many equal lengths and some that fill a bin."""
    budget = draw(st.integers(1, 40))
    return draw(st.lists(st.integers(1, budget), max_size=60)), budget


def first_fit(lengths, budget):
    """The bin of each piece, one after the other."""
    room, bins = [], []
    for length in lengths:
        fits = [number for number, left in enumerate(room) if left >= length]
        if not fits:
            fits = [len(room)]
            room.append(budget)
        room[fits[0]] -= length
        bins.append(fits[0])
    return bins


@settings(max_examples=200)
@given(job=jobs())
def test_first_fit_decreasing_is_that_of_a_loop_over_pieces(job):
    """Bin by bin, and so are as many bins as naive first-fit-decreasing needs."""
    lengths, budget = sorted(job[0], reverse=True), job[1]
    found = first_fit_decreasing(np.array(lengths, np.int32), budget)
    assert found.tolist() == first_fit(lengths, budget)


@settings(max_examples=100)
@given(job=jobs())
def test_next_fit_looks_at_the_last_bin_alone(job):
    """A piece goes behind the one before it, or opens a bin."""
    lengths, budget = job
    firsts, room = [], 0
    for piece, length in enumerate(lengths):
        if length > room:
            firsts.append(piece)
            room = budget
        room -= length
    assert next_fit(np.array(lengths, np.int32), budget).tolist() == firsts


def test_budgets_up_to_the_largest_are_exact():
    """Room is counted in int32, and the sum of many lengths is not."""
    budget = 2**31 - 1
    lengths = np.array([budget, budget - 5, 2**30, 2**30 - 1, 5, 5], np.int32)
    assert first_fit_decreasing(lengths, budget).tolist() == first_fit(lengths.tolist(), budget)
    assert next_fit(lengths, budget).tolist() == [0, 1, 2, 4]
