"""Ranges against sets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.progress.ranges import Ranges

ids = st.sets(st.integers(0, 40))


@given(ids, ids)
def test_ranges_are_sets_of_ids(one, other):
    """Union, difference, size and order are those of sets; pairs are sorted, disjoint and as few as possible."""
    a, b = Ranges.of(sorted(one)), Ranges.of_ids(np.array(list(other), np.int64))
    for ranges, expected in (
        (a, one),
        (b, other),
        (a | b, one | other),
        (a - b, one - other),
        (a.below(17), {i for i in one if i < 17}),
    ):
        assert ranges.ids().tolist() == sorted(expected)
        assert len(ranges) == len(expected)
        ends = [end for pair in ranges.pairs for end in pair]
        assert ends == sorted(set(ends))


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (3, [3]),
        (range(2, 5), [2, 3, 4]),
        ([(2, 4), 9, range(4, 6)], [2, 3, 4, 5, 9]),
        ([], []),
        (range(5, 2), []),
        (np.array([4, 2, 4]), [2, 4]),
        (np.int32(3), [3]),
        ([[1, 3]], [1, 2]),
    ],
)
def test_what_people_write_is_understood(given_, expected):
    """An id, a range, pairs, and any mix."""
    assert Ranges.of(given_).ids().tolist() == expected


@pytest.mark.parametrize(
    "bad",
    [
        -1,
        1.5,
        True,
        "3",
        [1.0],
        [(1, 2, 3)],
        [(5, 2)],
        range(0, 9, 2),
        [None],
        np.array([0.5]),
        [-3],
    ],
)
def test_what_is_no_id_is_refused(bad):
    """Floats, bools, negative ids, strides, and pairs that end before they start."""
    with pytest.raises((TypeError, ValueError, IndexError)):
        Ranges.of(bad)
