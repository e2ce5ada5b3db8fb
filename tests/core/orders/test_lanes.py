"""Lanes: which worker of which rank reads a position, for any ranks, workers and batch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.lanes import Lanes


@given(
    ranks=st.integers(1, 5),
    workers=st.integers(1, 4),
    batch=st.integers(1, 40),
    n=st.integers(0, 500),
)
def test_lanes_are_what_ranks_and_workers_read(ranks, workers, batch, n):
    """Positions dealt one by one, as the sampler and the loader do: lane, index in it, inverse and sizes."""
    lanes, read = Lanes(ranks, workers, batch), [[] for _ in range(ranks * workers)]
    for position in range(n):
        step, slot = divmod(position, batch)
        read[step % workers * ranks + slot % ranks].append(position)
    assert lanes.quotas(n).tolist() == [len(positions) for positions in read]
    for lane, positions in enumerate(read):
        where, index = lanes.forward(np.array(positions, np.int64))
        assert (where == lane).all() and index.tolist() == list(range(len(positions)))
        assert lanes.inverse(where, index).tolist() == positions
