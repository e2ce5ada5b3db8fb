"""Exactly once over 20,000 simulated histories; and every planted bug is found."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import pytest
from cluster import Cluster, play
from planted import PLANTED

SEEDS = int(os.environ.get("GLOBIDX_SIMULATION_SEEDS", "20000"))


def failures(seeds):
    """(seed, what is wrong, story) of those seeds that fail."""
    return [(seed, *wrong) for seed in seeds if (wrong := play(seed)) is not None]


def shortest(found):
    """The failure with the shortest story, as a message."""
    seed, wrong, story = min(found, key=lambda one: len(one[2]))
    return (
        f"{len(found)} seeds fail; the shortest story is that of seed {seed}: {wrong}\n  "
        + "\n  ".join(story)
    )


@pytest.mark.slow
def test_every_history_reads_each_epoch_exactly_once():
    """Kills, resizes, uneven ranks, prefetching, stale and repeated loads, saves at any moment: the book outside agrees."""
    chunks = [range(first, min(first + 250, SEEDS)) for first in range(0, SEEDS, 250)]
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("fork")) as pool:
        found = [failure for part in pool.map(failures, chunks) for failure in part]
    assert not found, shortest(found)


def test_a_seed_replays_to_the_letter():
    """The same seed is the same story, so a failure can be looked at again."""
    for seed in range(20):
        stories = []
        for _ in range(2):
            cluster = Cluster(seed)
            cluster.run()
            stories.append(cluster.story)
        assert stories[0] == stories[1]
        assert len(stories[0]) > 3


@pytest.mark.parametrize("bug", PLANTED)
def test_a_planted_bug_is_found(bug):
    """Each within 3,000 seeds; here the simulation itself is under test."""
    assert any(play(seed, PLANTED[bug]) for seed in range(3000)), f"'{bug}' was not found"
