"""Decoded blocks of data, a bounded number of bytes, the least recently used dropped first."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.reading.lru import ByteLru
from globidx.core.reading.planning import Run
from globidx.disk.files import forks
from globidx.disk.files.claims import Claims


class BlockCache:
    """Arrays by key, at most ``capacity`` bytes of them.

    A forked child starts empty, so that its copy is not paid for twice; with ``inherited`` it has
    what its parent had, in the same memory: right for what is small, costly to make, and never
    changed.

    >>> import numpy as np
    >>> cache = BlockCache(16)
    >>> cache.put("a", np.zeros(1)); cache.put("b", np.zeros(1)); cache.put("c", np.zeros(1))
    >>> cache.get("a") is None, cache.get("c"), cache.nbytes
    (True, array([0.]), 16)
    """

    def __init__(self, capacity: int, *, inherited: bool = False) -> None:
        self.capacity = capacity
        #: Told of blocks that were dropped to make room for others.
        self.on_drop: Callable[[Sequence[Hashable]], object] | None = None
        self._claims = Claims()
        self._start_empty()
        forks.renew_in_child(self, BlockCache._inherit if inherited else BlockCache._start_empty)

    @property
    def nbytes(self) -> int:
        """The bytes of all arrays that are kept."""
        # in the midst of a put it counts what is about to go
        with self._lock:
            return self._lru.nbytes

    def get(self, key: Hashable) -> NDArray[Any] | None:
        """The array under ``key``, or None; it is shared, so copy before writing."""
        with self._lock:
            return self._lru.get(key)

    def has(self, key: Hashable) -> bool:
        """Whether the block ``key`` is kept, which does not count as a use."""
        with self._lock:
            return self._lru.has(key)

    def take(self, key: Hashable, runs: Iterable[Run], rows: NDArray[Any]) -> bool:
        """Carry out runs out of the block ``key``; whether it is kept."""
        with self._lock:
            block = self._lru.get(key)
        if block is None:
            return False
        copy_runs(block, runs, rows)
        return True

    def claim(self, key: Hashable) -> AbstractContextManager[bool]:
        """Hold while the block ``key`` is made; yields whether no other thread is at it."""
        return self._claims.taken(key)

    def is_claimed(self, key: Hashable) -> bool:
        """Whether some thread makes the block ``key``; it is put before the claim ends."""
        return self._claims.has(key)

    def wait(self, key: Hashable) -> None:
        """Return when no thread makes the block ``key``. Whoever waits may hold no claim."""
        self._claims.wait(key)

    def room(
        self,
        key: Hashable,  # noqa: ARG002
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> NDArray[Any]:
        """An array to make the block ``key`` in, before it is put."""
        block = np.empty(shape, dtype)
        self.make_room(block.nbytes)
        return block

    def put(self, key: Hashable, array: NDArray[Any]) -> None:
        """Keep ``array``, unless it alone is more than the capacity."""
        with self._lock:
            dropped = self._lru.put(key, array, _nbytes(array))
        self._tell(dropped)

    def make_room(self, nbytes: int) -> None:
        """Drop what must go before ``nbytes`` more are kept.

        So these are never in memory together.
        """
        with self._lock:
            dropped = self._lru.shrink(self.capacity - nbytes)
        self._tell(dropped)

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._lru.shrink(-1)

    def _tell(self, dropped: Sequence[Hashable]) -> None:
        if dropped and self.on_drop is not None:
            self.on_drop(dropped)

    def _inherit(self) -> None:
        # Only the thread that forked lives on. Others stopped between steps of the interpreter,
        # with a GIL or without: the dict is whole, though the sum may not be.
        self._lock = threading.Lock()
        self._lru.recount()

    def _start_empty(self) -> None:
        # the parent's lock may have been held when it forked
        self._lock = threading.Lock()
        self._lru = ByteLru[NDArray[Any]](self.capacity)


def copy_runs(block: NDArray[Any], runs: Iterable[Run], rows: NDArray[Any]) -> None:
    """Copy rows of a chunk to where its runs say."""
    for _, chunk, start, stop, target in runs:
        rows[target : target + stop - start] = block[start - chunk : stop - chunk]


def _nbytes(array: NDArray[Any]) -> int:
    """The bytes of an array and of the objects in it.

    >>> _nbytes(np.zeros(3)), _nbytes(np.array([b"x" * 1000], object)) > 1000
    (24, True)
    """
    if not array.dtype.hasobject:
        return array.nbytes
    if array.dtype.names is not None:
        return sum(_nbytes(array[name]) for name in array.dtype.names)
    inside = (
        one.nbytes if isinstance(one, np.ndarray) else sys.getsizeof(one) for one in array.flat
    )
    return array.nbytes + sum(inside)
