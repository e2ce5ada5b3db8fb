"""Who answers when a collective has failed: each rank sets its key, and the others see who did not."""

import threading
import time

import pytest
import torch.distributed as dist

from globidx.torch.ranks.rollcall import RollCall


@pytest.fixture
def store():
    return dist.HashStore()


def call(store, present, ranks, patience):
    """What each of the present ranks says who is missing."""
    said = {}
    threads = [
        threading.Thread(
            target=lambda rank=rank: said.update(
                {rank: RollCall(store, "failure 1", rank, ranks).missing(patience)}
            )
        )
        for rank in present
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return [said[rank] for rank in present]


def test_where_all_answer_nobody_is_missing_and_nobody_waits(store):
    """Long before the patience is over."""
    started = time.monotonic()
    assert call(store, [0, 1, 2], [0, 1, 2], patience=60) == [[], [], []]
    assert time.monotonic() - started < 30


@pytest.mark.parametrize("absent", [0, 1, 3])
def test_who_does_not_answer_is_named_by_all_others(store, absent):
    """By its index among the ranks that called, which need not be all of the job."""
    ranks = [4, 5, 6, 7]
    present = [rank for rank in ranks if rank != ranks[absent]]
    assert call(store, present, ranks, patience=0.3) == [[absent]] * 3


def test_an_answer_to_another_failure_does_not_count(store):
    """Each roll call has keys of its own."""
    RollCall(store, "failure 0", 1, [0, 1]).missing(0)
    assert call(store, [0], [0, 1], patience=0.1) == [[1]]
