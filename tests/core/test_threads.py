"""Threads that begin with one order at the same moment get what one thread gets: nothing is computed halfway."""

from __future__ import annotations

import numpy as np
import pytest
from threads import in_threads

from globidx.core.index.chunking import Chunking
from globidx.core.orders.lanes import Lanes
from globidx.orders import ChunkShuffle, Grouped, Sequential, Shuffle, Weighted

NUM = 300
ORDERS = {
    "sequential": Sequential,
    "shuffle": Shuffle,
    "chunks": lambda: ChunkShuffle(3),
    "weighted": lambda: Weighted(np.arange(1.0, NUM + 1)),
    "grouped": lambda: Grouped([number % 3 for number in range(NUM)]),
}


class Data:
    """Three files of a hundred samples, in chunks of seven."""

    def __init__(self):
        self.chunking = Chunking.of([100] * 3, np.full((3, 1), 7))

    def __len__(self):
        return NUM


def bound(order, epoch):
    """An epoch of it."""
    lanes = Lanes(2, 1, 8)
    return order.plan(Data(), NUM, lambda: lanes).bind(NUM, seed=5, epoch=epoch)


@pytest.mark.parametrize("name", ORDERS)
def test_threads_draw_the_ids_that_one_thread_draws(name):
    """Of ten epochs, each begun by all at once, parts that overlap and go backwards."""
    alone = [bound(ORDERS[name](), epoch) for epoch in range(10)]
    expected = [one.take(range(len(one))) for one in alone]
    order = ORDERS[name]()
    shared = [bound(order, epoch) for epoch in range(10)]

    def work(number):
        for epoch, arrangement in enumerate(shared):
            for start in range(280 - number, -1, -40):
                places = range(start, start + 20)
                np.testing.assert_array_equal(
                    arrangement.take(places), expected[epoch][places.start : places.stop]
                )

    in_threads(6, work)
