"""Ragged runs of numbers against lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.ragged import spread


@given(runs=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 9)), max_size=9))
def test_spread_is_ranges_one_behind_the_other(runs):
    """Empty ones too."""
    starts, lengths = (np.array([run[part] for run in runs], np.int64) for part in (0, 1))
    expected = [row for start, length in runs for row in range(start, start + length)]
    assert spread(starts, lengths).tolist() == expected
