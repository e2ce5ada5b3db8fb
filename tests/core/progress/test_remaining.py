"""What remains after any history against lists, however many ranks, segments and skips there are."""

import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch

from globidx.core.progress import limits
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress

REVERSED = 200  # ids of the order below: position p holds id 199 - p


def where(ids):
    """Positions of ids that stand the other way round."""
    return REVERSED - 1 - ids


@st.composite
def histories(draw):
    """(progress, positions that remain) after uneven segments, prefixes and skips in any sequence."""
    epoch, progress = Epoch(list(range(REVERSED))), Progress(REVERSED)
    for _ in range(draw(st.integers(0, 9))):
        if draw(st.integers(0, 3)) == 0:
            ids = (
                Ranges.of(draw(st.lists(st.integers(0, REVERSED - 1), max_size=6)))
                - progress.left_out
            )
            gone = set(where(ids.ids()).tolist())
            progress = progress.skip(ids, sum(position in gone for position in epoch.left))
            epoch.left = [position for position in epoch.left if position not in gone]
            continue
        world_size = draw(st.integers(1, 9))
        counts = [draw(st.integers(0, min(4, len(hand)))) for hand in epoch.real(world_size)]
        epoch.commit(world_size, counts)
        progress = progress.extend(counts)
    return progress, epoch.left


@given(histories(), st.sampled_from([(0, 0), (5, 10**6), (10**6, 30), (10**6, 10**6)]))
def test_what_remains_is_what_is_neither_committed_nor_left_out(history, how):
    """Whether segments are listed and joined or stay arithmetic; inverse is forward's inverse."""
    progress, left = history
    remaining = Remaining(progress, where, few=how[0], effort=how[1])
    assert remaining.forward(np.arange(progress.remaining)).tolist() == left
    gone, numbers = remaining.inverse(np.arange(REVERSED))
    assert np.flatnonzero(~gone).tolist() == left
    assert numbers[~gone].tolist() == list(range(len(left)))


def long_history(segments, ranks, most, *, seed=0):
    """Segments of uneven ranks of which one never gets anywhere, so that none is forgotten."""
    dice, progress = random.Random(seed), Progress(2**60)
    for _ in range(segments):
        progress = progress.extend([0, *(dice.randrange(1, most) for _ in range(ranks - 1))])
    return progress


@pytest.mark.parametrize(
    ("segments", "ranks", "most"),
    [
        (50, 4096, 4096),
        (64, 4096, 30),
        (2, 2**17, 2**30),
        (1024, 256, 2**20),
        (1024, 2, 2**14),
        (1000, 64, 40),
    ],
)
def test_going_on_from_a_long_history_is_bounded(segments, ranks, most):
    """As much as a record may hold: within 64 MiB, and 20 times the seconds that it takes on an idle machine."""
    progress = long_history(segments, ranks, most)
    limits.refuse_too_much(progress.history)
    tracemalloc.start()
    remaining = Remaining(progress, np.asarray)
    positions = remaining.forward(np.arange(64))
    remaining.forward(np.arange(2**14))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
    assert remaining.inverse(positions)[1].tolist() == list(range(64))
    progress = long_history(segments, ranks, most, seed=1)  # nothing of it is kept from before
    begun = time.process_time()
    Remaining(progress, np.asarray).forward(np.arange(64))
    assert time.process_time() - begun < 2.0
