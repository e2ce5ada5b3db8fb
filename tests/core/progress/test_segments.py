"""The segment algebra against lists of positions."""

import json
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracle import Epoch

from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress, Segment
from globidx.core.progress.state import SamplerState


def identity(ids):
    """Ids are positions."""
    return ids


@st.composite
def histories(draw):
    """(n, [(world size, counts)]): any number of segments, lock-step, uneven or wild."""
    n = draw(st.integers(0, 120))
    epoch, segments = Epoch(list(range(n))), []
    for _ in range(draw(st.integers(0, 6))):
        world_size = draw(st.integers(1, 9))
        dealt = [len(hand) for hand in epoch.real(world_size)]
        style = draw(st.sampled_from(["lock-step", "nearly", "wild"]))
        if style == "wild":
            counts = [draw(st.integers(0, most)) for most in dealt]
        else:
            common = draw(st.integers(0, max(dealt)))
            counts = [
                min(most, common + (draw(st.integers(0, 2)) if style == "nearly" else 0))
                for most in dealt
            ]
        epoch.commit(world_size, counts)
        segments.append(counts)
    return n, segments, epoch


@given(histories())
def test_what_remains_is_what_nobody_committed(history):
    """After any history, forward enumerates the remaining positions in order, and is_committed tells them apart."""
    n, segments, epoch = history
    progress = Progress(n)
    for counts in segments:
        progress = progress.extend(counts)
    assert progress.committed == len(epoch.committed)
    remaining = Remaining(progress, identity)
    assert remaining.forward(np.arange(progress.remaining)).tolist() == epoch.left
    committed = set(epoch.committed)
    assert remaining.inverse(np.arange(n))[0].tolist() == [
        position in committed for position in range(n)
    ]
    assert progress.per_rank == sum(map(max, segments))


@given(
    n=st.integers(0, 500),
    legs=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 40)), max_size=12),
)
def test_lock_step_history_is_one_integer(n, legs):
    """However often resumed on whatever world size, progress in lock-step is a single prefix."""
    progress, done = Progress(n), 0
    for world_size, rounds in legs:
        rounds = min(rounds, (n - done) // world_size)
        progress = progress.extend([rounds] * world_size)
        done += rounds * world_size
    assert progress.history == ((Segment((done,)),) if done else ())


@given(histories())
def test_unevenness_is_forgotten_once_it_is_read_past(history):
    """A prefix over everything that is left leaves one segment: the whole epoch."""
    n, segments, _ = history
    progress = Progress(n)
    for counts in segments:
        progress = progress.extend(counts)
    finished = progress.extend([progress.remaining])
    assert finished.remaining == 0
    assert finished.history == ((Segment((n,)),) if n else ())


def test_the_worked_example_of_the_architecture():
    """14 samples, four ranks that committed 3, 2, 1 and 2, then two ranks."""
    progress = Progress(14).extend((3, 2, 1, 2))
    assert progress.history == (Segment((4,)), Segment((2, 1, 0, 1)))
    assert Remaining(progress, identity).forward(np.arange(6)).tolist() == [6, 9, 10, 11, 12, 13]
    assert Remaining(progress.extend((2, 1)), identity).forward(np.arange(3)).tolist() == [
        11,
        12,
        13,
    ]


@pytest.mark.parametrize("counts", [(4, 2), (3, 3), (-1, 2), (1.0, 2), (True, 2), ()])
def test_counts_nobody_was_dealt_are_refused(counts):
    """Of five positions two ranks are dealt three and two."""
    with pytest.raises((ValueError, TypeError)):
        Progress(5).extend(counts)


def test_a_thousand_restarts_are_a_small_record():
    """Also where each leaves its ranks unevenly far, or one rank alone gets anywhere: under 64 kB of JSON."""
    dice = random.Random(5)
    for style in ("nearly in step", "wild", "one rank alone"):
        progress = Progress(10**8)
        for _ in range(1000):
            world_size = dice.choice((2, 3, 4, 6, 8))
            one = dice.randrange(world_size)
            counts = {
                "nearly in step": [100 + dice.randint(0, 3) * 8 for _ in range(world_size)],
                "wild": [dice.randint(0, 40) for _ in range(world_size)],
                "one rank alone": [8 * (rank == one) for rank in range(world_size)],
            }[style]
            progress = progress.extend(counts)
        state = SamplerState(DatasetIdentity(10**8), {}, 0, 0, "pad", progress, world_size)
        assert len(json.dumps(state.to_dict())) < 64_000
        assert SamplerState.from_dict(state.to_dict()).progress == progress
        numbers = np.arange(10_000)
        positions = Remaining(progress, identity).forward(numbers)
        assert Remaining(progress, identity).inverse(positions)[1].tolist() == numbers.tolist()
        assert (np.diff(positions) > 0).all()
