"""Blocks of bytes in one piece of memory that many processes have: where each lies, and who goes.

Pure arithmetic over a buffer. Locks, processes and the memory itself are the caller's.

::

    | header | generation, offset, size, last use of each slot | keys | extent | extent | ... |

The *directory* says by key where a block lies; the *arena* is tiled by extents, each with its
length and owner in front. Whoever changes anything holds the caller's lock; whoever reads holds
none. Three rules keep both sound, whenever a process is killed:

* A slot counts while its generation is not 0. It is set last when a block is published, to a number
  that was never used before, and made 0 first when the block goes. Who copied a block out and finds
  the same generation afterwards has copied that block.
* An extent is in use while its slot points back to it. One that nothing points to is free.
* Extents are joined and split by one store of eight bytes, the last one, so that they tile the
  arena before and after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

KEY_SIZE = 16
#: Of these bytes is each extent a multiple, and so long is what stands before its block.
GRAIN = 64
#: A block is looked for in so many slots, from the one that its key names on.
_WAYS = 8
#: The smallest block, on average, for which there are slots enough.
_USUAL = 4096
_FEWEST, _MOST = 1024, 2**20
#: The block that goes is the least recently used one of those in so many slots: a bound on how long
#: the lock is held.
_SAMPLE = 2**16
#: So many blocks are tried, each with what lies behind it, before any will do.
_TRIES = 8
#: The last use of what is not there.
_NEVER = 2**64 - 1

_HEADER = 64
_MAGIC = int.from_bytes(b"globidx1", "little")
_READY, _CAPACITY, _SLOTS, _LAST, _HAND = range(5)
#: Owners of extents: none, a slot (its number and 1), or a claim that may still be writing.
_FREE, _CLAIMED = 0, 1 << 63


class Buffer(Protocol):
    """Memory that can be searched: an ``mmap`` or a ``bytearray``."""

    def find(self, key: bytes, start: int, stop: int, /) -> int:
        """Where ``key`` is; -1 if it is not there."""

    def __getitem__(self, place: slice, /) -> bytes | bytearray:
        """A copy of some bytes."""

    def __setitem__(self, place: slice, data: bytes, /) -> None:
        """Write some bytes."""


class BrokenArenaError(ValueError):
    """The memory does not hold what was written into it."""


class Block(NamedTuple):
    """A block as it was when it was found: slot and generation, its first byte and its size."""

    slot: int
    generation: int
    start: int
    size: int


class Arena:
    """The blocks in ``buffer``: ``capacity`` bytes of them, or 3 % more if they are large.

    >>> buffer = bytearray(Arena.nbytes_for(1000))
    >>> arena = Arena.laid_out(buffer, 1000)
    >>> start = arena.reserve(100, claim=1, is_held=lambda claim: False)
    >>> buffer[start : start + 100] = bytes(range(100))
    >>> arena.find(b"k" * 16) is None
    True
    >>> arena.publish(b"k" * 16, start, 100, now=1)
    >>> block = arena.find(b"k" * 16)
    >>> arena.view(block.start, block.size, np.dtype("u1"), ())[:3], arena.is_still(block)
    (array([0, 1, 2], dtype=uint8), True)
    """

    def __init__(self, buffer: Any) -> None:
        self._buffer: Buffer = buffer
        self._words = memoryview(buffer).cast("Q")
        if self._words[_READY] != _MAGIC:
            raise BrokenArenaError("it was not laid out to the end")
        self._slots, self._arena_bytes = self._words[_SLOTS], self._words[_CAPACITY]
        table = self._slots + _WAYS
        self._generations = _HEADER
        self._offsets = self._generations + table
        self._sizes = self._offsets + table
        self._uses = self._sizes + table
        self._keys = 8 * (self._uses + table)
        self._start = _round(self._keys + KEY_SIZE * table)
        self._bytes = memoryview(buffer)
        if self._start + self._arena_bytes > len(self._bytes):
            raise BrokenArenaError("it ends before its last block")
        self._last_uses = np.frombuffer(buffer, np.uint64, table, 8 * self._uses)

    @classmethod
    def laid_out(cls, buffer: Any, capacity: int) -> Arena:
        """An arena without any block, in memory that is all zeros."""
        words = memoryview(buffer).cast("Q")
        slots = _slots_for(capacity)
        words[_CAPACITY], words[_SLOTS] = _arena_bytes(capacity), slots
        words[_READY] = _MAGIC
        arena = cls(buffer)
        arena._last_uses[:] = _NEVER
        arena._set_extent(0, arena._arena_bytes, _FREE)
        return arena

    @staticmethod
    def nbytes_for(capacity: int) -> int:
        """The bytes of memory that ``capacity`` bytes of blocks take.

        >>> Arena.nbytes_for(2**30) / 2**30 < 1.06
        True
        """
        slots = _slots_for(capacity)
        directory = 8 * _HEADER + (4 * 8 + KEY_SIZE) * (slots + _WAYS)
        return _round(directory) + _arena_bytes(capacity)

    def find(self, key: bytes) -> Block | None:
        """The block under ``key``; None if there is none. Takes no lock."""
        first = self._keys + KEY_SIZE * self._home(key)
        at = self._buffer.find(key, first, first + KEY_SIZE * _WAYS)
        slot, odd = divmod(at - self._keys, KEY_SIZE)
        if at < 0 or odd:
            return None
        words = self._words
        generation = words[self._generations + slot]
        # in this sequence: the slot may be given to another block at any moment
        if not generation or self._buffer[at : at + KEY_SIZE] != key:
            return None
        start, size = words[self._offsets + slot], words[self._sizes + slot]
        return Block(slot, generation, self._start + start + GRAIN, size)

    def is_still(self, block: Block) -> bool:
        """Whether the block was there all the time since it was found, so that what was read is it."""
        return self._words[self._generations + block.slot] == block.generation

    def mark(self, block: Block, now: int) -> None:
        """Note that the block was used ``now``, so that others go before it. Takes no lock."""
        self._words[self._uses + block.slot] = now

    def view(
        self, start: int, size: int, dtype: np.dtype[Any], row_shape: tuple[int, ...]
    ) -> NDArray[Any]:
        """The memory at ``start`` as rows."""
        flat = np.frombuffer(self._bytes, dtype, size // dtype.itemsize, start)
        return flat.reshape(-1, *row_shape)

    def reserve(self, size: int, *, claim: int, is_held: Callable[[int], bool]) -> int | None:
        """Room for a block, where others go for it; None if there is none. Takes the lock.

        It is the claim's until ``publish``, or until ``is_held(claim)`` is False. What was not used
        for longest goes, with as much of what lies behind it as the block needs.
        """
        wanted = _round(size + GRAIN)
        for may_go, starts in (
            (self._is_free, self._hand()),
            (self._is_gone, self._oldest()),
            (self._is_gone, (offset for offset, *_ in self._extents(0, self._arena_bytes))),
        ):
            for start in starts:
                found = self._run(start, wanted, partial(may_go, is_held=is_held))
                if found >= wanted:
                    return self._split(start, found, wanted, claim)
        return None

    def publish(self, key: bytes, start: int, size: int, now: int) -> None:
        """Let others find what was written into reserved room. Takes the lock."""
        offset, words = start - GRAIN - self._start, self._words
        slot = self._slot_for(key)
        if slot is None:
            # it is there already: this one has no owner
            words[self._place(offset) + 1] = _FREE
            return
        words[self._offsets + slot], words[self._sizes + slot] = offset, size
        words[self._uses + slot] = now
        self._buffer[self._keys + KEY_SIZE * slot : self._keys + KEY_SIZE * (slot + 1)] = key
        words[self._place(offset) + 1] = slot + 1
        # never used again, whatever becomes of this process
        words[_LAST] += 1
        words[self._generations + slot] = words[_LAST]

    @property
    def nbytes(self) -> int:
        """The bytes of all blocks."""
        sizes, generations = (
            np.frombuffer(self._words, np.uint64, self._slots + _WAYS, 8 * first)
            for first in (self._sizes, self._generations)
        )
        return int(sizes[generations > 0].sum())

    def check(self) -> list[tuple[int, int]]:
        """(offset, bytes) of each extent in use; BrokenArenaError where they do not tile the arena."""
        extents = list(self._extents(0, self._arena_bytes))
        if self._words[_HAND] not in [offset for offset, *_ in extents]:
            raise BrokenArenaError("the hand is at no extent")
        return [(offset, size) for offset, size, owner in extents if self._is_used(offset, owner)]

    def _run(self, start: int, wanted: int, may_go: Callable[[int, int], bool]) -> int:
        """The bytes from ``start`` on that may go: as many as are wanted, and free ones behind."""
        found = 0
        for offset, size, owner in self._extents(start, self._arena_bytes):
            if not may_go(offset, owner) or (found >= wanted and self._is_used(offset, owner)):
                break
            found += size
        return found

    def _split(self, start: int, found: int, wanted: int, claim: int) -> int:
        """Room for the claim at the beginning of a run, and what is left of it free."""
        for offset, _, owner in self._extents(start, start + found):
            if self._is_used(offset, owner):
                self._drop(owner - 1)
        # where an extent begins before and after what follows
        self._words[_HAND] = start
        if found > wanted:
            self._set_extent(start + wanted, found - wanted, _FREE)
        self._set_extent(start, wanted, _CLAIMED | claim)
        end = start + wanted
        self._words[_HAND] = end if end < self._arena_bytes else 0
        return self._start + start + GRAIN

    def _hand(self) -> Iterator[int]:
        """Behind the room that was given last, where the rest of its run is free."""
        yield self._words[_HAND]

    def _oldest(self) -> Iterator[int]:
        """Where the blocks lie that were not used for longest."""
        first = 0
        if len(self._last_uses) > _SAMPLE:
            # others each time
            first = self._words[_LAST] * (_SAMPLE // 2 + 1) % (len(self._last_uses) - _SAMPLE)
        uses = self._last_uses[first : first + _SAMPLE]
        yield from self._offset_of(first + int(uses.argmin()))
        # it was none, or too little lies behind it
        for slot in np.argsort(uses)[:_TRIES].tolist():
            yield from self._offset_of(first + slot)

    def _offset_of(self, slot: int) -> Iterator[int]:
        if self._words[self._generations + slot]:
            yield self._words[self._offsets + slot]
        else:
            # somebody was about to note its use when it went
            self._words[self._uses + slot] = _NEVER

    def _is_free(self, offset: int, owner: int, *, is_held: Callable[[int], bool]) -> bool:
        return self._is_gone(offset, owner, is_held=is_held) and not self._is_used(offset, owner)

    @staticmethod
    def _is_gone(_offset: int, owner: int, *, is_held: Callable[[int], bool]) -> bool:
        """Whether nobody is writing there."""
        return owner < _CLAIMED or not is_held(owner - _CLAIMED)

    def _extents(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Offset, bytes and owner of each extent in ``[start, stop)``."""
        while start < stop:
            place = self._place(start)
            size, owner = self._words[place], self._words[place + 1]
            if not 0 < size <= self._arena_bytes - start or size % GRAIN:
                raise BrokenArenaError(f"an extent of {size} bytes at {start}")
            yield start, size, owner
            start += size

    def _set_extent(self, offset: int, size: int, owner: int) -> None:
        place = self._place(offset)
        # the length last: that is what others walk by
        self._words[place + 1] = owner
        self._words[place] = size

    def _place(self, offset: int) -> int:
        return (self._start + offset) // 8

    def _home(self, key: bytes) -> int:
        return int.from_bytes(key[:8], "little") % self._slots

    def _is_used(self, offset: int, owner: int) -> bool:
        slot = owner - 1
        return (
            0 <= slot < self._slots + _WAYS
            and self._words[self._generations + slot] > 0
            and self._words[self._offsets + slot] == offset
        )

    def _drop(self, slot: int) -> None:
        self._words[self._generations + slot] = 0
        self._words[self._uses + slot] = _NEVER
        self._buffer[self._keys + KEY_SIZE * slot : self._keys + KEY_SIZE * (slot + 1)] = bytes(
            KEY_SIZE
        )

    def _slot_for(self, key: bytes) -> int | None:
        """A slot for a new block, which another one may have to leave; None if the key has one."""
        home = self._home(key)
        if self.find(key) is not None:
            return None
        slots = range(home, home + _WAYS)
        same = self._buffer.find(
            key, self._keys + KEY_SIZE * home, self._keys + KEY_SIZE * slots.stop
        )
        if same >= 0:
            # its writer was killed before the generation was set
            return (same - self._keys) // KEY_SIZE
        for slot in slots:
            if not self._words[self._generations + slot]:
                return slot
        slot = home + int(self._last_uses[home : home + _WAYS].argmin())
        self._drop(slot)
        return slot


def _slots_for(capacity: int) -> int:
    # twice as many as blocks, so that few of them have to leave for want of a slot
    return min(max(2 * capacity // _USUAL, _FEWEST), _MOST)


def _arena_bytes(capacity: int) -> int:
    # what stands before blocks and behind them takes nothing away from these
    return _round(capacity) + 2 * GRAIN * max(capacity // _USUAL, 1)


def _round(size: int) -> int:
    return -(-size // GRAIN) * GRAIN
