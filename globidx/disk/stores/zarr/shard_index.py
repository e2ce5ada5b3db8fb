"""Shard indexes: the offset of each chunk in its shard.

Small ones are kept whole, of large ones single entries are read.

The cost of a read must not grow with the number of chunks in a shard. So the checksum of an index
is verified once, in bounded memory, and not again while the file stays the same.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.disk.files import forks
from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.codecs import verify_crc32c

ABSENT = 2**64 - 1
_ENTRY = 16
_PIECE = 2**20
# the most shards that are remembered as verified
_VERIFIED = 2**16
# an index larger than the cache divided by this is not kept
_SHARE = 4

Read = Callable[[int, int], bytes]


class Extent(NamedTuple):
    """An index in its file: its first byte, its number of chunks, and whether a CRC-32C follows."""

    start: int
    chunks: int
    checked: bool


class ShardIndexes:
    """The indexes of all shards that a reader reads.

    ``cache`` holds as many as fit beside the decoded chunks.
    """

    def __init__(self, cache: BlockCache) -> None:
        self.cache = cache
        self._start()
        forks.renew_in_child(self, ShardIndexes._start)

    def find(self, key: Hashable, extent: Extent, chunk: int, read: Read) -> tuple[int, int]:
        """(offset, size) of the ``chunk``-th chunk; both ``ABSENT`` where there is none.

        ``key`` identifies one version of the file; ``read(size, offset)`` returns bytes of it.
        ValueError where the checksum is another one.
        """
        key = "index", key
        index = self.cache.get(key)
        if index is None and not self._was_verified(key):
            if extent.chunks * _ENTRY <= self.cache.capacity // _SHARE:
                index = read_index(extent, read)
                self.cache.put(key, index)
            elif extent.checked:
                _verify(extent, read)
            # only now, since a wrong checksum has raised
            self._note(key)
        if index is None:
            index = np.frombuffer(read(_ENTRY, extent.start + chunk * _ENTRY), "<u8").reshape(1, 2)
            chunk = 0
        offset, size = index[chunk].tolist()
        return offset, size

    def _was_verified(self, key: Hashable) -> bool:
        with self._lock:
            is_known = key in self._verified
            if is_known:
                self._verified.move_to_end(key)
            return is_known

    def _note(self, key: Hashable) -> None:
        with self._lock:
            self._verified[key] = None
            if len(self._verified) > _VERIFIED:
                self._verified.popitem(last=False)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._verified: OrderedDict[Hashable, None] = OrderedDict()


def read_index(extent: Extent, read: Read) -> NDArray[np.uint64]:
    """All of an index, chunks x 2, verified."""
    size = extent.chunks * _ENTRY
    data = read(size + 4 * extent.checked, extent.start)
    if extent.checked:
        verify_crc32c([data[:size]], data[size:])
    return np.frombuffer(data, "<u8", 2 * extent.chunks).reshape(-1, 2)


def _verify(extent: Extent, read: Read) -> None:
    """ValueError where the checksum of an index is another one.

    A piece of it is in memory at a time.
    """
    end = extent.start + extent.chunks * _ENTRY
    starts = range(extent.start, end, _PIECE)
    verify_crc32c((read(min(_PIECE, end - start), start) for start in starts), read(4, end))
