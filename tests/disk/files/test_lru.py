"""Open files: bounded, closed once, never under a user, never across a fork."""

from __future__ import annotations

import errno
import os
import signal
import threading
from contextlib import ExitStack

import pytest
from files import run_python
from hypothesis import given
from hypothesis import strategies as st

from globidx.disk.files.lru import HandleCache, default_capacity


class Shelf:
    """Opens handles and notes what becomes of them."""

    def __init__(self, limit=None):
        self.opened, self.closed, self.limit = [], [], limit

    def open(self, key):
        if self.limit is not None and len(self.opened) - len(self.closed) >= self.limit:
            raise OSError(errno.EMFILE, "Too many open files")
        handle = Handle(key, self)
        self.opened.append(handle)
        return handle

    def live(self):
        return [handle for handle in self.opened if handle.is_open]


class Handle:
    def __init__(self, key, shelf):
        self.key, self.shelf, self.is_open, self.users = key, shelf, True, 0

    def close(self):
        assert self.is_open, "closed twice"
        assert not self.users, "closed under its user"
        self.is_open = False
        self.shelf.closed.append(self)


@given(capacity=st.integers(1, 5), keys=st.lists(st.integers(0, 7), max_size=60))
def test_the_open_handles_are_those_last_used(capacity, keys):
    """After any uses the cache holds the ``capacity`` keys last used, and each other handle was closed once."""
    shelf = Shelf()
    cache = HandleCache(capacity, shelf.open)
    recent, opened = [], 0
    for key in keys:
        with cache.use(key) as handle:
            assert handle.key == key and handle.is_open
        opened += key not in recent
        recent = [k for k in recent if k != key] + [key]
        recent = recent[-capacity:]
        assert sorted(h.key for h in shelf.live()) == sorted(recent)
        assert len(shelf.opened) == opened and len(cache) == len(recent)
    cache.close()
    assert not shelf.live() and len(shelf.closed) == opened and len(cache) == 0


@given(
    capacity=st.integers(1, 4),
    steps=st.lists(st.tuples(st.sampled_from(["use", "leave"]), st.integers(0, 6)), max_size=50),
)
def test_handles_in_use_stay_open_and_idle_ones_never_exceed_the_capacity(capacity, steps):
    """With uses nested in any way, what is used is open, and nothing idle is kept beyond the capacity."""
    shelf = Shelf()
    cache = HandleCache(capacity, shelf.open)
    using = []
    for what, number in steps:
        if what == "use":
            context = cache.use(number)
            handle = context.__enter__()
            handle.users += 1
            using.append((context, handle))
        elif using:
            context, handle = using.pop(number % len(using))
            handle.users -= 1
            context.__exit__(None, None, None)
        assert all(handle.is_open for _, handle in using)
        assert len(shelf.live()) <= max(capacity, len({handle.key for _, handle in using}))
    for context, handle in using:
        handle.users -= 1
        context.__exit__(None, None, None)
    assert len(shelf.live()) <= capacity


def test_threads_never_see_a_closed_handle():
    """Eight threads over six keys and two places: each holds an open handle of the key it asked for."""
    shelf = Shelf()
    cache = HandleCache(2, shelf.open)
    counting, wrong = threading.Lock(), []

    def work(seed):
        for turn in range(300):
            key = (turn * 7 + seed) % 6
            with cache.use(key) as handle:
                with counting:
                    handle.users += 1
                if handle.key != key or not handle.is_open:
                    wrong.append(handle.key)
                with counting:
                    handle.users -= 1

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.close()
    assert not wrong and not shelf.live() and len(shelf.closed) == len(shelf.opened)


def test_close_leaves_what_is_in_use():
    """Closing waits for nobody and takes no handle from under a user, the last of whom closes it."""
    shelf = Shelf()
    cache = HandleCache(3, shelf.open)
    with cache.use("a") as handle:
        with cache.use("b"):
            pass
        cache.close()
        assert handle.is_open and [h.key for h in shelf.live()] == ["a"]
        with cache.use("a") as another:
            # what is asked for from here on is opened anew: the file may be another by now
            assert another is not handle
    assert [h is another for h in shelf.live()] == [True]
    cache.close()
    assert not shelf.live()


def test_a_handle_that_cannot_be_opened_leaves_no_trace():
    """The error comes out, and the next use tries again."""
    shelf = Shelf(limit=0)
    cache = HandleCache(3, shelf.open)
    with pytest.raises(OSError, match="Too many"), cache.use("a"):
        pass
    assert len(cache) == 0
    shelf.limit = 1
    with cache.use("a") as handle:
        assert handle.is_open


def test_an_error_of_the_user_releases_the_handle():
    """A use that ends in an exception ends."""
    shelf = Shelf()
    cache = HandleCache(1, shelf.open)
    with pytest.raises(KeyError), cache.use("a"):
        raise KeyError
    with cache.use("b"):
        assert [h.key for h in shelf.live()] == ["b"]


def test_too_many_open_files_gives_half_of_them_back():
    """EMFILE closes the older half of the idle handles and opens once more; handles in use stay."""
    shelf = Shelf(limit=8)
    cache = HandleCache(100, shelf.open)
    for key in range(8):
        with cache.use(key):
            pass
    with cache.use(8) as handle:
        assert handle.is_open
        assert [h.key for h in shelf.live()] == [4, 5, 6, 7, 8]
    with ExitStack() as stack:
        for key in range(8):
            stack.enter_context(cache.use(key))
        with pytest.raises(OSError, match="Too many open files") as error:
            stack.enter_context(cache.use(99))
        assert error.value.errno == errno.EMFILE and len(shelf.live()) == 8


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning"
)  # Python 3.12, about fork
def test_a_forked_child_starts_empty_and_closes_nothing_of_its_parent():
    """In the child neither a use, nor ``close``, nor a lock held at the fork touches the parent's handles."""
    shelf = Shelf()
    cache = HandleCache(2, shelf.open)
    with cache.use("a"), cache.use("b"):
        pass
    cache._lock.acquire()  # as another thread of the parent might hold it
    for first in (cache.close, lambda: cache.use("c").__enter__()):
        child = os.fork()
        if not child:
            signal.alarm(10)  # a child that waits for a lock fails, and does not hang
            code = 1
            try:
                first()
                for key in "cde":
                    with cache.use(key):
                        pass
                kept = [handle.key for handle in shelf.opened[:2] if handle.is_open]
                code = 0 if kept == ["a", "b"] and len(cache) <= 3 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    cache._lock.release()
    assert [handle.key for handle in shelf.live()] == ["a", "b"] and len(cache) == 2


def test_the_default_capacity_is_a_quarter_of_the_limit():
    """A process that may open 40 files keeps 10; nobody keeps more than 128."""
    code = """
import resource
from globidx.disk.files.lru import default_capacity
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print(default_capacity())
"""
    assert run_python(code).stdout == "10\n"
    assert 1 <= default_capacity() <= 128
