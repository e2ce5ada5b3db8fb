"""Reads plain zarr arrays in a folder or a zip file, on a disk or by URL, without zarr.

A system call for the bytes, a decompressor, and no event loop.

zarr-python takes about 0.4 ms a read before it looks at any data, ten times what decoding an image
costs.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.disk.files.blocks import BlockCache
from globidx.disk.local_cache.cached_objects import drop
from globidx.disk.remote.ahead import Wish, wish
from globidx.disk.remote.objects import Piece
from globidx.disk.stores.base import UNREADABLE, NotPlainError, Span
from globidx.disk.stores.codecs import decode, most_stored
from globidx.disk.stores.grid import ChunkGrid, GridSource
from globidx.disk.stores.zarr.containers import (
    MOST_METADATA,
    Container,
    FarContainer,
    Opened,
    key_of,
)
from globidx.disk.stores.zarr.far import TAIL
from globidx.disk.stores.zarr.metadata import ArrayMetadata, Sharding, parse_array
from globidx.disk.stores.zarr.shard_index import ABSENT, Extent, ShardIndexes, read_index
from globidx.errors import MissingChunkError, ReadError

#: Bytes in front of a chunk in a zip file that come with it, at most.
_MOST_HEADER = 2**18
# bytes of shard indexes that are kept if no reader passes its own cache
_INDEX_BYTES = 2**20


class ZarrSource(GridSource):
    """One array of a store: rows along ``axis``, decoded chunk by chunk.

    It holds no file open between reads.
    """

    def __init__(
        self,
        container: Container,
        name: str,
        axis: int,
        marker: str,
        indexes: ShardIndexes | None = None,
    ) -> None:
        array = parse_array(metadata_of(container, key_of(name, marker)))
        self._container, self._name = container, name
        self._prefix = f"{name}/" if name else ""
        self._array = array
        self._codecs = array.codecs()
        self.sharding = array.sharding
        self._set_grid(ChunkGrid(array.shape, array.chunks, axis))
        self._nbytes = math.prod(array.chunks) * array.dtype.itemsize
        self._most = most_stored(self._nbytes, len(self._codecs))
        self._far_most = self._most + _MOST_HEADER
        self._indexes = ShardIndexes(BlockCache(_INDEX_BYTES)) if indexes is None else indexes
        names = ", ".join(name for name, _ in array.steps) or "raw"
        #: Where its bytes are behind a URL.
        self._far = container if isinstance(container, FarContainer) else None
        where = ", in a zip file" if container.kind == "zip" else ""
        where += ", by URL" if self._far is not None else ""
        where += self._whole_in_words()
        self.how = f"read without zarr ({names}{', in shards' if array.sharding else ''}{where})"

    def _whole_in_words(self) -> str:
        """That shards are fetched whole, and why; "" where their chunks are, or they are here."""
        if self._far is None or self.sharding is None:
            return ""
        # as the first one, so most often all are
        first = self._array.key((0,) * len(self._array.shape))
        with suppress(*UNREADABLE):
            why = self._far.why_whole(self._prefix + first)
            return f"; shards are fetched whole, since they are {why} there" if why else ""
        return ""

    def _set_grid(self, grid: ChunkGrid) -> None:
        array = self._array
        super()._set_grid(grid)
        is_in_order = array.axes == tuple(range(len(array.axes))) and array.dtype.isnative
        # then the bytes of a chunk are its rows
        self._direct = grid.is_direct and is_in_order

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many stored bytes that took."""
        nbytes, length = 0, self._grid.length
        for row in range(start // length, -(-stop // length)):
            first = row * length
            begin, end = max(start, first), min(stop, first + length)
            rows = out[begin - start : end - start]
            if self._direct and end - begin == length:
                nbytes += self._decode(self._grid.only(row), rows.reshape(-1).view(np.uint8))
            else:
                nbytes += self.pick([(begin, end, 0)], rows)
        return nbytes

    def pick(self, spans: Sequence[Span], out: NDArray[Any]) -> int:
        """Fill rows of ``out`` from spans of one row of chunks; how many stored bytes that took.

        One decoded chunk is in memory at a time.
        """
        array, grid = self._array, self._grid
        nbytes = 0
        row = spans[0][0] // grid.length
        stored = tuple(array.chunks[coordinates] for coordinates in array.axes)
        buffer = np.empty(self._nbytes, np.uint8)
        chunk = buffer.view(array.dtype).reshape(stored).transpose(np.argsort(array.axes))
        rows = grid.rows_of(chunk)
        for coordinates, found in grid.row(row):
            nbytes += self._decode(coordinates, buffer)
            grid.put(rows, found, row, spans, out)
        return nbytes

    def pieces(self, start: int, stop: int) -> list[Wish]:
        """What rows ``[start, stop)`` ask of a server, of shards that were looked up; [] of a local store.

        What is not there, or cannot be read, is left to be told by whoever reads it.
        """
        far = self._far
        if far is None:
            return []
        pieces = (self._piece(far, coordinates) for coordinates in self._touched(start, stop))
        return [wish(far.objects, piece, self._nbytes) for piece in pieces if piece is not None]

    def _piece(self, far: FarContainer, coordinates: tuple[int, ...]) -> Piece | None:
        """What a chunk asks of a server; None where that is nothing, or is told by whoever reads it."""
        array, sharding = self._array, self.sharding
        with suppress(*UNREADABLE):
            if sharding is None:
                piece = far.piece(self._prefix + array.key(coordinates))
                # what is far too large is told by whoever reads it, too
                is_large = piece is not None and (piece.stop or 0) - piece.start > self._far_most
                return None if is_large else piece
            shard = self._shard_of(coordinates, sharding)
            key = self._prefix + array.key(shard)
            # what ``look_up`` did not get is not waited for again, for each chunk
            if far.knows(key):
                offset, size = self._place(self._open(shard), coordinates, sharding)
                return far.piece(key, offset, offset + size) if size else None
        return None

    def unknown(self, start: int, stop: int) -> list[tuple[int, ...]]:
        """The first chunk of each shard without whose index ``pieces`` would have to ask a server."""
        far, sharding = self._far, self.sharding
        if sharding is None or far is None:
            return []
        per_shard = _per_shard(sharding, self._array)
        shards = {self._shard_of(chunk, sharding) for chunk in self._touched(start, stop)}
        return [
            tuple(place * count for place, count in zip(shard, per_shard, strict=True))
            for shard in shards
            if not far.knows(self._prefix + self._array.key(shard))
        ]

    def look_up(self, chunk: tuple[int, ...]) -> None:
        """Read the index of a chunk's shard, to be kept."""
        assert self.sharding is not None, "only chunks in shards are looked up"
        with suppress(*UNREADABLE):
            self._place(self._open(self._shard_of(chunk, self.sharding)), chunk, self.sharding)

    def _touched(self, start: int, stop: int) -> Iterator[tuple[int, ...]]:
        """The coordinates of the chunks that rows ``[start, stop)`` lie in."""
        for row in range(start // self._grid.length, -(-stop // self._grid.length)):
            for coordinates, _ in self._grid.row(row):
                yield coordinates

    def in_shard(self, shard: tuple[int, ...]) -> tuple[list[int], NDArray[np.bool_]]:
        """The first chunk of a shard, and which of its chunks inside the array are there.

        All of them where its index cannot be read: reading them raises.
        """
        array = self._array
        assert array.sharding is not None, "only sharded arrays are asked"
        per_shard = _per_shard(array.sharding, array)
        corner = [place * count for place, count in zip(shard, per_shard, strict=True)]
        sizes = [
            min(count, -(-size // chunk) - first)
            for count, size, chunk, first in zip(
                per_shard, array.shape, array.chunks, corner, strict=True
            )
        ]
        try:
            opened = self._open(shard)
        except MissingChunkError:
            return corner, np.zeros(sizes, bool)
        try:
            extent, read = self._extent(opened, array.sharding, per_shard, shard)
            index = read_index(extent, read).reshape(*per_shard, 2)
        except (ReadError, ValueError):
            return corner, np.ones(sizes, bool)
        finally:
            opened.close()
        return corner, ~(index[tuple(map(slice, sizes))] == ABSENT).all(axis=-1)

    def _decode(
        self, coordinates: tuple[int, ...], out: NDArray[np.uint8], *, again: bool = True
    ) -> int:
        data = (
            self._in_shard(coordinates, self.sharding)
            if self.sharding
            else self._in_file(coordinates)
        )
        try:
            decode(self._codecs, data, out)
        except UNREADABLE as error:
            if again and self._is_dropped(coordinates):
                return self._decode(coordinates, out, again=False)
            raise ReadError(f"{self._describe(coordinates)} cannot be decoded: {error}") from error
        return len(data)

    def _is_dropped(self, coordinates: tuple[int, ...]) -> bool:
        """Whether a chunk that was kept on disk is fetched anew when it is read once more."""
        piece = None if self._far is None else self._piece(self._far, coordinates)
        if self._far is None or piece is None:
            return False
        # the end of a shard, in which it may lie, came with the index
        pieces = [piece] if self.sharding is None else [piece, Piece(piece.key, -TAIL)]
        return all(drop(wish(self._far.objects, one, 0)) for one in pieces)

    def _in_file(self, coordinates: tuple[int, ...]) -> bytes:
        found = self._container.read(self._prefix + self._array.key(coordinates), self._most)
        if found is None:
            raise self._absent(coordinates)
        data, size = found
        if len(data) < size:
            self._bounded(size, coordinates)
            raise self._cut(coordinates, len(data), size)
        return data

    def _in_shard(self, coordinates: tuple[int, ...], sharding: Sharding) -> bytes:
        """The bytes of a chunk inside its shard."""
        opened = self._open(self._shard_of(coordinates, sharding))
        try:
            offset, size = self._place(opened, coordinates, sharding)
            return self._read(opened, size, offset, coordinates)
        finally:
            opened.close()

    def _shard_of(self, coordinates: tuple[int, ...], sharding: Sharding) -> tuple[int, ...]:
        per_shard = _per_shard(sharding, self._array)
        return tuple(n // count for n, count in zip(coordinates, per_shard, strict=True))

    def _place(
        self, opened: Opened, coordinates: tuple[int, ...], sharding: Sharding
    ) -> tuple[int, int]:
        """Where a chunk begins in its open shard, and its size."""
        per_shard = _per_shard(sharding, self._array)
        shard = self._shard_of(coordinates, sharding)
        # so that a rewritten shard is not read by the index of the old one
        key = (self._container.path, self._name, shard, opened.version)
        extent, read = self._extent(opened, sharding, per_shard, shard)
        index = 0
        for coordinate, count in zip(coordinates, per_shard, strict=True):
            index = index * count + coordinate % count
        try:
            offset, size = self._indexes.find(key, extent, index, read)
        except ValueError as error:
            raise ReadError(
                f"the index of {self._describe(shard)} cannot be read: {error}"
            ) from error
        if offset == size == ABSENT:
            raise MissingChunkError(
                self._missing(f"{self._describe(coordinates)} is not in its shard")
            )
        if offset + size > opened.size:
            end = offset + size
            raise ReadError(
                f"{self._describe(coordinates)} lies at bytes [{offset}, {end}) of a shard of {opened.size}"
            )
        return offset, self._bounded(size, coordinates)

    def _extent(
        self,
        opened: Opened,
        sharding: Sharding,
        per_shard: Sequence[int],
        shard: tuple[int, ...],
    ) -> tuple[Extent, Callable[[int, int], bytes]]:
        """The extent of the index of an open shard, and a reader of the shard."""
        count, size = math.prod(per_shard), opened.size
        length = 16 * count + 4 * sharding.checked
        # it is inflated whole, and a few bytes can claim to hold gigabytes
        if opened.packed and size > length + count * self._most:
            raise ReadError(
                f"{self._describe(shard)} inflates to {size} bytes, more than its {count} chunks can take"
            )
        if length > size:
            raise ReadError(
                f"{self._describe(shard)} ends after {size} bytes, where its index alone takes {length}"
            )
        extent = Extent(0 if sharding.index_first else size - length, count, sharding.checked)
        return extent, lambda wanted, offset: self._read(opened, wanted, offset, shard)

    def _bounded(self, size: int, coordinates: tuple[int, ...]) -> int:
        """``size``, which no chunk may exceed, whatever its codecs made of it."""
        if size > self._most:
            raise ReadError(
                f"{self._describe(coordinates)} takes {size} bytes, where {self._nbytes} belong once it is decoded"
            )
        return size

    def _open(self, coordinates: tuple[int, ...]) -> Opened:
        """The bytes at ``coordinates`` of the grid of files; MissingChunkError where there are none."""
        opened = self._container.open(self._prefix + self._array.key(coordinates))
        if opened is None:
            raise self._absent(coordinates)
        return opened

    def _read(self, opened: Opened, size: int, offset: int, coordinates: tuple[int, ...]) -> bytes:
        data = opened.read(size, offset)
        if len(data) < size:
            raise self._cut(coordinates, len(data), size)
        return data

    def _absent(self, coordinates: tuple[int, ...]) -> MissingChunkError:
        return MissingChunkError(
            self._missing(f"{self._describe(coordinates)} is not in the store")
        )

    def _cut(self, coordinates: tuple[int, ...], nbytes: int, size: int) -> ReadError:
        return ReadError(f"{self._describe(coordinates)} ends after {nbytes} of {size} bytes")

    def _describe(self, coordinates: tuple[int, ...]) -> str:
        return f"chunk {self._array.key(coordinates)} of " + (
            f"array {self._name!r}" if self._name else "the array"
        )

    def _missing(self, what: str) -> str:
        return f"{what}, and zarr would read fill value for it"


def metadata_of(container: Container, key: str) -> bytes:
    """The metadata of an array; FileNotFoundError where there are none."""
    data = container.load(key)
    if data is None:
        raise FileNotFoundError(
            errno.ENOENT, "there is no such metadata", f"{container.path}/{key}"
        )
    if len(data) >= MOST_METADATA:
        raise NotPlainError(f"{len(data)} bytes of metadata and more")
    return data


def _per_shard(sharding: Sharding, array: ArrayMetadata) -> list[int]:
    """How many chunks a shard holds along each axis."""
    return [
        read_index // part for read_index, part in zip(sharding.shape, array.chunks, strict=True)
    ]
