"""What remains after any history against lists, however many ranks, segments and skips there are."""

import random
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch

from globidx import errors
from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.progress import limits
from globidx.core.progress.bands import Bands
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.merge import merge_states
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress, Segment, Skip
from globidx.core.progress.state import SamplerState

REVERSED = 200  # ids of the order below: position p holds id 199 - p


def where(ids):
    """Positions of ids that stand the other way round."""
    return REVERSED - 1 - ids


@given(st.lists(st.integers(0, 5), min_size=1, max_size=70), st.integers(0, 3))
def test_bands_number_what_remains_of_the_rows(counts, more):
    """Row by row, whatever the ranks have committed; and back."""
    world_size = len(counts)
    rows = max(counts) + more
    left = [row * world_size + rank for row in range(rows) for rank in range(world_size) if row >= counts[rank]]
    bands = Bands(counts)
    assert bands.select(np.arange(len(left))).tolist() == left
    committed, numbers = bands.seek(np.arange(rows * world_size))
    assert np.flatnonzero(~committed).tolist() == left
    assert numbers[~committed].tolist() == list(range(len(left)))


sets = st.sets(st.integers(0, 60), max_size=40)


@given(sets, sets)
def test_gaps_of_gaps_are_gaps(first, second):
    """Numbers left out of what the first ones leave, in one; no run is empty or touches the next."""
    stays = [number for number in range(200) if number not in first]
    stays = [number for place, number in enumerate(stays) if place not in second]
    joined = Gaps.of(np.array(sorted(first), np.int64)).then(Gaps.of(np.array(sorted(second), np.int64)))
    assert joined.select(np.arange(len(stays))).tolist() == stays
    gone, numbers = joined.seek(np.arange(200))
    assert np.flatnonzero(~gone).tolist() == stays
    assert numbers[~gone].tolist() == list(range(len(stays)))
    assert (joined.starts < joined.ends).all()
    assert (joined.ends[:-1] < joined.starts[1:]).all()


@st.composite
def histories(draw):
    """(progress, positions that remain) after uneven segments, prefixes and skips in any sequence."""
    epoch, progress = Epoch(list(range(REVERSED))), Progress(REVERSED)
    for _ in range(draw(st.integers(0, 9))):
        if draw(st.integers(0, 3)) == 0:
            ids = Ranges.of(draw(st.lists(st.integers(0, REVERSED - 1), max_size=6))) - progress.left_out
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
    """Whether segments are listed and joined or stay arithmetic; seek is select's inverse."""
    progress, left = history
    remaining = Remaining(progress, where, few=how[0], effort=how[1])
    assert remaining.select(np.arange(progress.remaining)).tolist() == left
    gone, numbers = remaining.seek(np.arange(REVERSED))
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
    [(50, 4096, 4096), (64, 4096, 30), (2, 2**17, 2**30), (1024, 256, 2**20), (1024, 2, 2**14), (1000, 64, 40)],
)
def test_going_on_from_a_long_history_is_bounded(segments, ranks, most):
    """As much as a record may hold: within 64 MiB, and 20 times the seconds that it takes on an idle machine."""
    progress = long_history(segments, ranks, most)
    limits.refuse_too_much(progress.history)
    tracemalloc.start()
    remaining = Remaining(progress, np.asarray)
    positions = remaining.select(np.arange(64))
    remaining.select(np.arange(2**14))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**26
    assert remaining.seek(positions)[1].tolist() == list(range(64))
    progress = long_history(segments, ranks, most, seed=1)  # nothing of it is kept from before
    begun = time.process_time()
    Remaining(progress, np.asarray).select(np.arange(64))
    assert time.process_time() - begun < 2.0


def test_a_bands_memory_does_not_depend_on_the_counts():
    """Bytes for each rank: the same where all counts differ and where two do."""
    sizes = {}
    for kinds in (2, 4096):
        tracemalloc.start()
        kept = Bands(np.arange(4096) % kinds)
        sizes[kinds] = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        assert len(kept.select(np.arange(10))) == 10
    assert sizes[4096] < 1.5 * sizes[2]
    assert sizes[4096] < 4096 * 100


UNEVEN = Segment((0, 5))
TOO_MUCH = {
    "segments of uneven ranks": [UNEVEN] * (limits.MAX_UNEVEN + 1),
    "uneven segments": [Segment((0, *[2] * 4095))] * (limits.MAX_RANKS // 4096 + 1),
    "segments and skips": [Segment((1,)), Skip(Ranges(((0, 1),)), 0)] * (limits.MAX_LAYERS // 2 + 1),
    "ids left out": [Skip(Ranges(((0, limits.MAX_IDS + 1),)), 0)],
    "ranges of ids left out": [Skip(Ranges(tuple((2 * n, 2 * n + 1) for n in range(limits.MAX_RANGES))), 0)] * 3,
    "ids left out times": [UNEVEN] * 100 + [Skip(Ranges(((0, limits.MAX_LOOKUPS // 90),)), 0)],
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_is_more_than_a_reader_takes_is_not_written(what):
    """The writer and the reader have one limit, and the sentence says what there is too much of and what to do."""
    history = TOO_MUCH[what]
    done = sum(layer.committed for layer in history if isinstance(layer, Segment))
    progress = Progress(2**60, tuple(history), committed=done)
    state = SamplerState(DatasetIdentity(2**60), {}, 0, 0, "pad", progress)
    with pytest.raises(errors.RecordError, match=f"{what}.* the most that a record may hold is .*; .*(save|use|leave)"):
        state.to_dict()
    fits = SamplerState(DatasetIdentity(2**60), {}, 0, 0, "pad", Progress(2**60)).to_dict()
    layers = [
        list(layer.counts) if isinstance(layer, Segment) else ["skip", 0, list(map(list, layer.ids.pairs))]
        for layer in history
    ]
    with pytest.raises(errors.RecordError, match="the most|a list of 0 to"):
        SamplerState.from_dict(fits | {"segments": layers})


def test_a_run_that_cannot_be_saved_can_be_once_its_ranks_have_caught_up():
    """The longest history there may be, and a rank that again gets nowhere: refused; when it has read on, all is one number."""
    progress = Progress(10**6, (UNEVEN,) * limits.MAX_UNEVEN, committed=5 * limits.MAX_UNEVEN)
    state = SamplerState(DatasetIdentity(10**6), {}, 0, 0, "pad", progress, world_size=2)
    assert SamplerState.from_dict(state.to_dict()).progress == progress
    ranks = [state.commit(count, rank).to_dict() for rank, count in enumerate((0, 7))]
    with pytest.raises(errors.RecordError, match="save again when the ranks that are behind have gone on"):
        merge_states(ranks)
    ranks = [state.commit(count, rank).to_dict() for rank, count in enumerate((20, 27))]
    assert len(merge_states(ranks)["segments"]) == 2
