"""Decoded blocks: the last ones used, as many bytes as were allowed."""

from __future__ import annotations

import os
import signal
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.reading.planning import Run
from globidx.disk.files.blocks import BlockCache


@given(
    capacity=st.integers(0, 12),
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 14)), max_size=60),
)
def test_the_cache_is_the_blocks_last_used_that_fit(capacity, steps):
    """A list, its newest at the end and cut at the front until it fits, says the same after any gets and puts."""
    cache, model = BlockCache(capacity), []
    for is_put, key, size in steps:
        known = dict(model).get(key)
        if is_put:
            cache.put(key, np.zeros(size, "u1"))
            if size <= capacity:
                model = [pair for pair in model if pair[0] != key] + [(key, size)]
                while sum(size for _, size in model) > capacity:
                    model.pop(0)
        else:
            found = cache.get(key)
            assert (None if found is None else found.nbytes) == known
            if known is not None:
                model = [pair for pair in model if pair[0] != key] + [(key, known)]
        assert cache.nbytes == sum(size for _, size in model) <= capacity
    for key, size in model:
        assert cache.get(key).nbytes == size
    cache.clear()
    assert cache.nbytes == 0 and all(cache.get(key) is None for key in range(7))


def test_rows_are_taken_out_of_a_block_to_where_their_runs_say():
    """Runs count rows of the file, and a block begins at its chunk's first row."""
    cache, rows = BlockCache(100), np.zeros(5, "u1")
    runs = [Run(3, 20, 21, 23, 2), Run(3, 20, 29, 30, 0)]
    assert not cache.take("a", runs, rows)
    with cache.claim("a"):
        block = cache.room("a", (10,), np.dtype("u1"))
        block[...] = range(20, 30)
        cache.put("a", block)
    assert cache.take("a", runs, rows) and rows.tolist() == [29, 0, 21, 22, 0]
    cache.room("b", (95,), np.dtype("u1"))
    assert cache.nbytes == 0


def test_what_goes_to_make_room_for_others_is_told():
    """Once it has gone, and outside of the lock; not what all is cleared with."""
    cache, told = BlockCache(100), []
    cache.on_drop = lambda keys: told.append((keys, cache.has("a")))
    for key in "abc":
        cache.put(key, np.zeros(40, "u1"))
    assert told == [(["a"], False)]
    cache.make_room(70)
    cache.make_room(70)
    assert told[1:] == [(["b", "c"], False)]
    cache.put("d", np.zeros(40, "u1"))
    cache.clear()
    assert len(told) == 2


def test_threads_leave_the_count_of_bytes_right():
    """Puts, gets and clears from four threads end in a count that is the sum of what is there."""
    cache = BlockCache(50)

    def work(seed):
        random = np.random.default_rng(seed)
        for _ in range(2000):
            key = int(random.integers(20))
            cache.put(key, np.zeros(key, "u1"))
            cache.get(int(random.integers(20)))
            if not random.integers(50):
                cache.clear()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = [cache.get(key) for key in range(20)]
    assert cache.nbytes == sum(block.nbytes for block in kept if block is not None) <= 50


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning"
)  # Python 3.12, about fork
def test_a_forked_child_starts_empty():
    """The child neither keeps its parent's blocks nor waits for a lock that was held at the fork."""
    for first in (
        lambda cache: cache.get("a"),
        lambda cache: cache.clear(),
        lambda cache: cache.put("b", np.ones(3)),
    ):
        cache = BlockCache(100)
        cache.put("a", np.ones(5))
        cache._lock.acquire()
        child = os.fork()
        if not child:
            signal.alarm(10)  # a child that waits for a lock fails, and does not hang
            code = 1
            try:
                first(cache)
                code = 0 if cache.get("a") is None and cache.nbytes in (0, 24) else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        cache._lock.release()
        assert cache.get("a").sum() == 5
