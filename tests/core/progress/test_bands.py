"""The map of one uneven segment against its rows written out."""

import tracemalloc

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.progress.bands import Bands


@given(st.lists(st.integers(0, 5), min_size=1, max_size=70), st.integers(0, 3))
def test_bands_number_what_remains_of_the_rows(counts, more):
    """Row by row, whatever the ranks have committed; and back."""
    world_size = len(counts)
    rows = max(counts) + more
    left = [
        row * world_size + rank
        for row in range(rows)
        for rank in range(world_size)
        if row >= counts[rank]
    ]
    bands = Bands(counts)
    assert bands.forward(np.arange(len(left))).tolist() == left
    committed, numbers = bands.inverse(np.arange(rows * world_size))
    assert np.flatnonzero(~committed).tolist() == left
    assert numbers[~committed].tolist() == list(range(len(left)))


def test_a_bands_memory_does_not_depend_on_the_counts():
    """Bytes for each rank: the same where all counts differ and where two do."""
    sizes = {}
    for kinds in (2, 4096):
        tracemalloc.start()
        kept = Bands(np.arange(4096) % kinds)
        sizes[kinds] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(kept.forward(np.arange(10))) == 10
    assert sizes[4096] < 1.5 * sizes[2]
    assert sizes[4096] < 4096 * 100
