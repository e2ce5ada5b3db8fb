"""The map of what is left out against a list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.progress.gaps import Gaps

sets = st.sets(st.integers(0, 60), max_size=40)


@given(sets, sets)
def test_gaps_of_gaps_are_gaps(first, second):
    """Numbers left out of what the first ones leave, in one; no run is empty or touches the next."""
    stays = [number for number in range(200) if number not in first]
    stays = [number for place, number in enumerate(stays) if place not in second]
    joined = Gaps.of(np.array(sorted(first), np.int64)).then(
        Gaps.of(np.array(sorted(second), np.int64))
    )
    assert joined.forward(np.arange(len(stays))).tolist() == stays
    gone, numbers = joined.inverse(np.arange(200))
    assert np.flatnonzero(~gone).tolist() == stays
    assert numbers[~gone].tolist() == list(range(len(stays)))
    assert (joined.starts < joined.ends).all()
    assert (joined.ends[:-1] < joined.starts[1:]).all()
