"""Decoded blocks that all processes of a node share: one cache for its ranks and their workers."""

from __future__ import annotations

import logging
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from globidx.core.reading.arena import Arena, BrokenArenaError
from globidx.core.reading.planning import Run
from globidx.disk.files import forks, nameless
from globidx.disk.files.blocks import BlockCache, copy_runs
from globidx.disk.files.nameless import Memory

_log = logging.getLogger("globidx")
#: How long to wait for another process to finish a block, before it is made here, too.
_CLAIM_SECONDS = 10.0
#: How long to wait for a process that changes the directory, which takes it microseconds, and how
#: long to do without where one does not finish: it was stopped, say.
_LOCK_SECONDS, _PAUSE_SECONDS = 1.0, 30.0
#: Where loads and stores of other cores are seen in the sequence in which they were made, as those
#: who read without the lock need it.
_IS_ORDERED = platform.machine() in ("x86_64", "AMD64")
#: Places of locks: that of the directory, and the first of those of claims.
_DIRECTORY, _CLAIMS = 0, 1

Result = TypeVar("Result")


class SharedBlocks:
    """Blocks of plain numbers by key, shared by all processes that give the same name.

    Keys are 16 bytes of a digest, in which all is that makes a block what it is, its dtype and
    shape included. ``capacity`` bounds the bytes of all blocks of a node; the memory is reserved
    when the first process opens it, and freed with the last, however that ends.

    Whatever goes wrong with it is told once, and from then on the process keeps blocks of its own,
    in ``local``. So are arrays of objects, which no other process can read, and a block that another
    process, which was stopped, say, does not finish.

    >>> import numpy as np
    >>> one, other = SharedBlocks("doctest", 2**20), SharedBlocks("doctest", 2**20)
    >>> one.put(b"a" * 16, np.arange(4)); rows = np.zeros(1, int)
    >>> other.take(b"a" * 16, [Run(0, 0, 2, 3, 0)], rows), rows, one.why_not
    (True, array([2]), None)
    >>> one.clear(); other.clear()
    """

    _arena: Arena | None
    _memory: Memory | None
    _not_before: float

    def __init__(
        self,
        name: str,
        capacity: int,
        *,
        claim_seconds: float = _CLAIM_SECONDS,
        lock_seconds: float = _LOCK_SECONDS,
    ) -> None:
        self.name, self.capacity = name, capacity
        self._claim_seconds, self._lock_seconds = claim_seconds, lock_seconds
        self.local = BlockCache(capacity)
        #: Why this process keeps blocks of its own, None while it shares them.
        self.why_not: str | None = None if capacity else "it has no bytes"
        self._start()
        forks.renew_in_child(self, SharedBlocks._leave_to_parent)

    @property
    def nbytes(self) -> int:
        """The bytes of all blocks that are shared, or of those of this process."""
        arena = self.open()
        return self.local.nbytes if arena is None else arena.nbytes

    def open(self) -> Arena | None:
        """Have the memory, so that it stays while this process does; None where there is none."""
        if self._arena is None and self.why_not is None:
            with self._opening:
                if self._arena is None and self.why_not is None:
                    self._attach()
        return self._arena

    def has(self, key: bytes) -> bool:
        """Whether the block ``key`` is kept, which does not count as a use."""
        arena = self.open()
        with self._reading() as may:
            is_shared = may and arena is not None and arena.find(key) is not None
        return is_shared or self.local.has(key)

    def take(self, key: bytes, runs: Iterable[Run], rows: NDArray[Any]) -> bool:
        """Carry out runs out of the block ``key``; whether it is kept.

        Where it goes meanwhile, False, and some rows may hold something else.
        """
        arena = self._arena_for(rows.dtype)
        if arena is not None and self._read(
            arena, key, rows.dtype, rows.shape[1:], lambda block: copy_runs(block, runs, rows)
        ):
            return True
        return self.local.take(key, runs, rows)

    def get(self, key: bytes, dtype: Any, row_shape: tuple[int, ...] = ()) -> NDArray[Any] | None:
        """A copy of the block ``key`` as rows of that dtype and shape; None if it is not kept."""
        dtype = np.dtype(dtype)
        arena = self._arena_for(dtype)
        copies: list[NDArray[Any]] = []
        if arena is not None and self._read(
            arena, key, dtype, row_shape, lambda block: copies.append(block.copy())
        ):
            return copies[-1]
        return self.local.get(key)

    def claim(self, key: bytes) -> AbstractContextManager[bool]:
        """Hold while the block ``key`` is made: others wait, and find it there.

        Nobody waits for ever: after ten seconds the block is made without, and kept by this process
        alone.
        """
        return self._claim(key, self._claim_seconds)

    def room(self, key: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array to make the claimed block ``key`` in, before it is put: in shared memory if there is room."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        arena = self._arena_for(dtype)
        if arena is None:
            return self.local.room(key, shape, dtype)
        if key in self._claimed.held and 0 < size <= self.capacity:
            claim = _claim_of(key)
            start = self._changing(
                lambda arena: arena.reserve(size, claim=claim, is_held=self._is_held)
            )
            if start is not None:
                self._claimed.held[key] = start
                return arena.view(start, size, dtype, ()).reshape(shape)
        return np.empty(shape, dtype)

    def put(self, key: bytes, array: NDArray[Any]) -> None:
        """Keep a block for all, if there is room for it; for this process if another one is making it."""
        if self._arena_for(array.dtype) is None:
            self.local.put(key, array)
        elif key in self._claimed.held:
            self._put(key, array)
        else:
            # whoever comes here has waited for it, if need be
            with self._claim(key, 0.0):
                if key in self._claimed.held:
                    self._put(key, array)
                else:
                    self.local.put(key, array)

    def make_room(self, nbytes: int) -> None:
        """Nothing: the memory of blocks that go is that of those that come."""

    def clear(self) -> None:
        """Leave what is shared, which others keep, and drop what is not; the next read comes back."""
        self.local.clear()
        # not while another thread holds a lock of it
        with self._lock:
            memory, self._arena, self._memory = self._memory, None, None
            if memory is not None:
                memory.close()

    @contextmanager
    def _claim(self, key: bytes, seconds: float) -> Iterator[bool]:
        arena, memory = self.open(), self._memory
        if arena is None or memory is None:
            yield True
            return
        with memory.apart(_CLAIMS + _claim_of(key), seconds=seconds) as had:
            if had:
                self._claimed.held[key] = None
            try:
                yield had
            finally:
                self._claimed.held.pop(key, None)

    def _read(
        self,
        arena: Arena,
        key: bytes,
        dtype: np.dtype[Any],
        row_shape: tuple[int, ...],
        use: Callable[[NDArray[Any]], object],
    ) -> bool:
        """Call ``use`` with the block ``key``; whether that was there from the beginning to the end."""
        with self._reading() as may:
            block = arena.find(key) if may else None
            if block is None:
                return False
            try:
                use(arena.view(block.start, block.size, dtype, row_shape))
            except ValueError:
                # of another shape, since it went before the rest of it was looked up
                if arena.is_still(block):
                    raise
            if not arena.is_still(block):
                return False
        arena.mark(block, time.monotonic_ns())
        return True

    def _put(self, key: bytes, array: NDArray[Any]) -> None:
        start = self._claimed.held[key]
        if start is None:
            room = self.room(key, array.shape, array.dtype)
            start = self._claimed.held[key]
            if start is None:
                return
            room[...] = array
        size = array.nbytes
        self._changing(lambda arena: arena.publish(key, start, size, time.monotonic_ns()))

    def _attach(self) -> None:
        nbytes = Arena.nbytes_for(self.capacity)
        try:
            memory = nameless.attach(
                self.name, nbytes, lambda buffer: Arena.laid_out(buffer, self.capacity)
            )
            self._arena, self._memory = Arena(memory.buffer), memory
        except (OSError, BrokenArenaError) as error:
            self._do_without(str(error))

    def _do_without(self, reason: str) -> None:
        if self.why_not is None:
            _log.warning(
                "decoded chunks are not shared, and kept by this process alone, since shared memory "
                "of %d bytes cannot be had: %s",
                self.capacity,
                reason,
            )
        self.why_not, self._arena = reason, None

    def _arena_for(self, dtype: np.dtype[Any]) -> Arena | None:
        return None if dtype.hasobject else (self._arena or self.open())

    def _changing(self, change: Callable[[Arena], Result]) -> Result | None:
        """The result of what changes the directory; None where that cannot be had now."""
        arena, memory = self._arena, self._memory
        if arena is None or memory is None or time.monotonic() < self._not_before:
            return None
        # one thread at a time, since the other lock is that of the process
        with self._locked(memory) as had:
            if not had:
                self._not_before = time.monotonic() + _PAUSE_SECONDS
                return None
            try:
                return change(arena)
            except BrokenArenaError as error:
                self._do_without(str(error))
                return None

    @contextmanager
    def _locked(self, memory: Memory, *, shared: bool = False) -> Iterator[bool]:
        if not self._lock.acquire(timeout=self._lock_seconds):
            yield False
            return
        try:
            had = memory is self._memory and memory.try_lock(
                _DIRECTORY, seconds=self._lock_seconds, shared=shared
            )
            try:
                yield had
            finally:
                if had:
                    memory.unlock(_DIRECTORY)
        finally:
            self._lock.release()

    def _reading(self) -> AbstractContextManager[bool]:
        """What a reader holds: nothing, where it finds out afterwards that what it read went meanwhile."""
        if _IS_ORDERED or self._memory is None:
            return nullcontext(True)
        return self._locked(self._memory, shared=True)

    def _is_held(self, claim: int) -> bool:
        return self._memory is not None and self._memory.is_locked_elsewhere(_CLAIMS + claim)

    def _leave_to_parent(self) -> None:
        # a lock of the parent's may have been held when it forked
        if self._memory is not None:
            self._memory.leave_to_parent()
        self._start()

    def _start(self) -> None:
        self._opening, self._lock = threading.Lock(), threading.Lock()
        self._arena = self._memory = None
        self._claimed = _Claimed()
        self._not_before = 0.0


class _Claimed(threading.local):
    """The claims of a thread, and where the room for each block is."""

    def __init__(self) -> None:
        self.held: dict[bytes, int | None] = {}


def _claim_of(key: bytes) -> int:
    return int.from_bytes(key[8:15], "little")
