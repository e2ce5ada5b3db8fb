"""Plain HDF5 datasets: chunks are decoded here, contiguous data is read straight from the file.

The library inflates with plain zlib under a lock; libdeflate takes a third of the
time, zlib-ng and isal a half. Filters it knows and these functions do not (LZF, bitshuffle, szip,
...) are left to it.
"""

from __future__ import annotations

import copy
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from globidx.core.reading.pieces import byte_runs
from globidx.core.reading.selection import Selection
from globidx.core.values import dtypes
from globidx.disk.files import forks
from globidx.disk.local_cache.cached_objects import drop
from globidx.disk.remote.ahead import Wish
from globidx.disk.stores.base import UNREADABLE, NotPlainError, Span
from globidx.disk.stores.codecs import expect, fill, inflate, inflate_into, inflates_by, most_stored
from globidx.disk.stores.grid import ChunkGrid, GridSource, one_by_one
from globidx.disk.stores.hdf5 import swmr
from globidx.disk.stores.hdf5.chunk_table import table_of
from globidx.disk.stores.hdf5.presence import missing_message
from globidx.disk.stores.hdf5.ranges import RangedBytes, beyond, range_file_of
from globidx.errors import MissingChunkError, ReadError

# H5Z_FILTER_* of H5Zpublic.h
_DEFLATE = 1
_SHUFFLE = 2
_FLETCHER32 = 3
#: Bytes between two runs that are read over: to copy so many takes as long as another call. See
#: ``tools/bench/parts.py``.
_GAP = 2**15
#: Rows of which little is taken are read so many bytes at once.
_AT_ONCE = 2**18
#: Buffers that one call fills at most: IOV_MAX of Linux.
_MOST_AT_ONCE = 1024
_NAMES = {_DEFLATE: "gzip", _SHUFFLE: "shuffle", _FLETCHER32: "fletcher32"}


class _Known:
    """A source that knows where its bytes lie: nothing must be looked up before it asks for them."""

    def unknown(self, _start: int, _stop: int) -> Sequence[tuple[int, ...]]:
        """What must be looked up."""
        return ()

    def look_up(self, chunk: tuple[int, ...]) -> None:
        """Ask a server where something lies."""


class ChunkedSource(_Known, GridSource):
    """One chunked dataset of an open file, in rows along ``axis``.

    Each chunk is read by its offset and decoded whole.
    """

    def __init__(self, dataset: Any, axis: int, memory: np.dtype[Any] | None = None) -> None:
        plist = dataset.id.get_create_plist()
        self._filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        for index, code in enumerate(self._filters):
            if code not in _NAMES:
                raise NotPlainError(
                    f"filter {plist.get_filter(index)[3].decode(errors='replace') or code}"
                )
        if dataset.is_virtual:
            raise NotPlainError("a virtual dataset")
        self._file = bytes_of(dataset)
        table = table_of(dataset)
        if table is None:
            raise NotPlainError("chunks whose offsets HDF5 does not list")
        self._table = table
        self._dataset = dataset
        self._chunks, self._dtype = dataset.chunks, dtypes.as_complex(dataset.dtype)
        # bytes of a chunk are rows only where elements look alike in both
        self._is_native = memory is None or self._dtype == memory
        self._set_grid(ChunkGrid(dataset.shape, dataset.chunks, axis))
        self._nbytes = math.prod(self._chunks) * self._dtype.itemsize
        self._most = most_stored(self._nbytes, len(self._filters))
        named = ", ".join(_NAMES[code] for code in self._filters) or "raw"
        by = f" by {inflates_by()}" if _DEFLATE in self._filters else ""
        where = by_url(self._file)
        self.how = f"chunks decoded without HDF5's filters ({named}{by}{where})"

    def _set_grid(self, grid: ChunkGrid) -> None:
        super()._set_grid(grid)
        self._direct = grid.is_direct and self._dtype.isnative and self._is_native

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many stored bytes that took."""
        nbytes, length = 0, self._grid.length
        for first in range(start - start % length, stop, length):
            begin, end = max(start, first), min(stop, first + length)
            rows = out[begin - start : end - start]
            if self._direct and end - begin == length:
                coordinates = self._grid.only(first // length)
                nbytes += self._decode(coordinates, rows.reshape(-1).view(np.uint8))
            else:
                nbytes += self.pick([(begin, end, 0)], rows)
        return nbytes

    def pick(self, spans: Sequence[Span], out: NDArray[Any]) -> int:
        """Fill rows of ``out`` from spans of one row of chunks; how many stored bytes that took.

        One decoded chunk is in memory at a time.
        """
        nbytes, grid = 0, self._grid
        row = spans[0][0] // grid.length
        buffer = np.empty(self._nbytes, np.uint8)
        rows = grid.rows_of(buffer.view(self._dtype).reshape(self._chunks))
        for coordinates, found in grid.row(row):
            nbytes += self._decode(coordinates, buffer)
            grid.put(rows, found, row, spans, out)
        return nbytes

    def pieces(self, start: int, stop: int) -> list[Wish]:
        """What rows ``[start, stop)`` ask of a server; [] of a local file.

        What is not there, or cannot be read, is left to be told by whoever reads it.
        """
        file = self._file
        if not isinstance(file, RangedBytes):
            return []
        rows = range(start // self._grid.length, -(-stop // self._grid.length))
        chunks = itertools.chain.from_iterable(map(self._grid.row, rows))
        places = [self._table.find(coordinates) for coordinates, _ in chunks]
        sound = (place for place in places if place is not None and place[1] <= self._most)
        return [file.wish(offset, size) for offset, size, _ in sound if file.has(offset, size)]

    def _decode(self, coordinates: tuple[int, ...], out: NDArray[np.uint8]) -> int:
        """Fill ``out`` with the chunk at ``coordinates`` of the grid.

        No size is trusted: an unfiltered chunk must have exactly its size, and a filtered one at
        most what its filters can produce.
        """
        location = self._table.find(coordinates)
        if location is None:
            raise MissingChunkError(
                missing_message(self._dataset, f"the chunk at {self._corner(coordinates)}")
            )
        offset, size, skipped = location
        try:
            if not self._filters:
                expect(size, len(out))
                return self._file.fill(offset, out)
            if size == len(out) and self._is_ragged(coordinates):
                # H5Pset_chunk_opts may have left it without filters, which only the library knows
                return self._by_library(coordinates, out)
            if size > self._most:
                raise ValueError(
                    f"it claims {size} bytes, where {self._nbytes} belong once it is decoded"
                )
            # HDF5 leaves out a filter that could not be applied to a chunk, and notes that in its
            # mask
            filters = [code for bit, code in enumerate(self._filters) if not skipped >> bit & 1]
            data = self._file.read(offset, size)
            try:
                self._undo(filters, data, out)
            except UNREADABLE:
                file = self._file
                if not isinstance(file, RangedBytes) or not drop(file.wish(offset, size)):
                    raise
                self._undo(filters, file.read(offset, size), out)
        except UNREADABLE as error:
            chunk = f"the chunk at {self._corner(coordinates)} of dataset {self._dataset.name}"
            raise ReadError(f"{chunk} cannot be decoded: {error}") from error
        return size

    def _corner(self, coordinates: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(
            coordinate * size for coordinate, size in zip(coordinates, self._chunks, strict=True)
        )

    def _is_ragged(self, coordinates: tuple[int, ...]) -> bool:
        """Whether the chunk reaches beyond the dataset's shape."""
        sizes = zip(coordinates, self._chunks, self._dataset.shape, strict=True)
        return any((coordinate + 1) * size > end for coordinate, size, end in sizes)

    def _by_library(self, coordinates: tuple[int, ...], out: NDArray[np.uint8]) -> int:
        corner = zip(self._corner(coordinates), self._chunks, strict=True)
        part = self._dataset[tuple(slice(start, start + size) for start, size in corner)]
        chunk = out.view(self._dtype).reshape(self._chunks)
        dtypes.put(chunk[tuple(map(slice, part.shape))], part)
        return len(out)

    def _undo(self, filters: list[int], data: Any, out: NDArray[np.uint8]) -> None:
        for step, code in reversed(list(enumerate(filters))):
            # so that what it inflates to is as long
            if code == _DEFLATE and set(filters[:step]) <= {_SHUFFLE}:
                inflated = np.empty(len(out), np.uint8) if step else out
                inflate_into(data, inflated)
                data = inflated
            elif code == _DEFLATE:
                data = inflate(data, most_stored(len(out), step))
            elif code == _FLETCHER32:
                data = without_fletcher32(data)
            elif step:
                buffer = np.empty(len(data), np.uint8)
                _unshuffle(data, self._dtype.itemsize, buffer)
                data = buffer.tobytes()
            else:
                _unshuffle(data, self._dtype.itemsize, out)
                return
        if data is not out:
            fill(data, out)


class ContiguousSource(_Known):
    """One contiguous dataset, rows along its first axis, read by its offset in the file.

    With ``is_stacked``, rows are those along axis 1 at one place along axis 0.
    """

    #: It has no chunks.
    width = 1
    _runs: Sequence[Sequence[int]] = ()

    def __init__(self, dataset: Any, *, is_stacked: bool = False) -> None:
        offset = dataset.id.get_offset()
        if offset is None or dataset.is_virtual or dataset.external:
            raise NotPlainError("data that is not contiguous in the file")
        self._file, self._offset = bytes_of(dataset), offset
        self._rows = dataset.shape[1] if is_stacked else 0
        self._count = dataset.shape[int(is_stacked)]
        self.row_shape, self._dtype = dataset.shape[1 + is_stacked :], dataset.dtype
        self._row = math.prod(self.row_shape) * self._dtype.itemsize
        self._swapped = not self._dtype.isnative
        self._selection: Selection | None = None
        self.how = f"contiguous, read without HDF5{by_url(self._file)}"

    def at(self, place: int) -> ContiguousSource:
        """The rows at one place along axis 0."""
        other = copy.copy(self)
        other._offset = self._offset + place * self._rows * self._row
        return other

    def select(self, selection: Selection) -> ContiguousSource:
        """The rows with what is selected of each, by the bytes around it."""
        other = copy.copy(self)
        other._selection = selection
        other._runs = byte_runs(
            selection.taken, self.row_shape, self._dtype.itemsize, _GAP
        ).tolist()
        return other

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many bytes that took."""
        if self._selection is not None:
            return self._read_selected(self._selection, start, stop, out)
        if isinstance(self._file, RangedBytes):
            nbytes = self._read_blocks(self._file, start, stop, out)
        else:
            nbytes = self._file.fill(self._offset + start * self._row, out)
        if self._swapped:
            out.byteswap(inplace=True)
        return nbytes

    def scatter(self, start: int, outs: Sequence[NDArray[Any]]) -> int:
        """Fill arrays with the rows from ``start`` on; how many bytes that took."""
        if self._selection is not None or self._swapped or not isinstance(self._file, RawFile):
            return one_by_one(self.read, start, outs)
        return self._file.fill_many(self._offset + start * self._row, outs)

    def pieces(self, start: int, stop: int) -> list[Wish]:
        """What rows ``[start, stop)`` ask of a server; [] of a local file."""
        file = self._file
        # of a part of each row, the reads are many and small, and of a size that is found out then
        if self._selection is not None or not isinstance(file, RangedBytes) or not self._row:
            return []
        places = [
            (self._offset + first * self._row, (end - first) * self._row)
            for first, end in self._blocks(file, start, stop)
        ]
        return [file.wish(*place) for place in places if file.has(*place)]

    def _blocks(self, file: RangedBytes, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The blocks of rows, as they are asked for, in which rows ``[start, stop)`` lie."""
        # always the same ones, whatever is read of them, so that a cache has them
        step = max(1, file.grain // max(1, self._row))
        for first in range(start - start % step, stop, step):
            yield first, min(first + step, self._count)

    def _read_blocks(self, file: RangedBytes, start: int, stop: int, out: NDArray[Any]) -> int:
        nbytes, rows = 0, out.reshape(stop - start, -1).view(np.uint8)
        for first, end in self._blocks(file, start, stop):
            low, high = max(start, first), min(stop, end)
            offset, size = self._offset + first * self._row, (end - first) * self._row
            data = file.part(offset, size, (low - first) * self._row, (high - first) * self._row)
            rows[low - start : high - start] = np.frombuffer(data, np.uint8).reshape(
                high - low, self._row
            )
            nbytes += len(data)
        return nbytes

    def _read_selected(self, selection: Selection, start: int, stop: int, out: NDArray[Any]) -> int:
        """Read the runs into a buffer of whole rows, of which no other page is touched."""
        nbytes, runs = 0, self._runs
        low, high = runs[0][0], runs[-1][1]
        # what lies between the runs of two rows may be a gap to be read over, too
        is_one = len(runs) == 1 and self._row - (high - low) <= _GAP
        step = max(1, _AT_ONCE // self._row) if is_one else 1
        buffer = np.empty((min(step, stop - start), *self.row_shape), self._dtype)
        stored = buffer.reshape(-1).view(np.uint8)
        for first in range(start, stop, step):
            count = min(step, stop - first)
            here = [(low, (count - 1) * self._row + high)] if is_one else runs
            for begin, end in here:
                offset = self._offset + first * self._row + begin
                nbytes += self._file.fill(offset, stored[begin:end])
            out[first - start : first - start + count] = selection.of(buffer[:count])
        return nbytes


def bytes_of(dataset: Any) -> RawFile | RangedBytes:
    """The bytes of a dataset's file, which may be one by URL."""
    ranged = range_file_of(h5py.h5i.get_file_id(dataset.id))
    return RawFile(dataset) if ranged is None else RangedBytes(dataset, ranged)


def by_url(file: RawFile | RangedBytes) -> str:
    """What is told of files by URL."""
    return ", by URL" if isinstance(file, RangedBytes) else ""


class RawFile:
    """The bytes of a dataset's file, read by the descriptor that HDF5 has open anyway."""

    def __init__(self, dataset: Any) -> None:
        # a link may lead to another file than the one that was opened
        self._name, self._file = dataset.name, h5py.h5i.get_file_id(dataset.id)
        if self._file.get_access_plist().get_driver() != h5py.h5fd.SEC2:
            raise NotPlainError("a file that HDF5 has open in an unusual way")
        if swmr.is_live(self._file):
            raise NotPlainError("a file that another process is writing")
        if self._file.get_intent() != h5py.h5f.ACC_RDONLY:
            raise NotPlainError(
                "a file that this process also writes: part of it may be in memory only"
            )
        self._descriptor = self._file.get_vfd_handle()
        # sizes in the file are compared with its end before memory is allocated for them
        self._end = os.fstat(self._descriptor).st_size

    def fill(self, offset: int, out: NDArray[Any]) -> int:
        """Fill ``out``, C-contiguous, with the bytes from ``offset`` on; how many those are."""
        done, size = 0, out.nbytes
        self._refuse_beyond(offset, size)
        target: Any = out
        while True:
            # not mapped: where a file shrinks, or a disk fails, a mapping ends the process by
            # SIGBUS
            more = os.preadv(self._descriptor, [target], offset + done)
            done += more
            if done == size:
                return size
            if not more:
                raise ReadError(
                    f"dataset {self._name} ends after {done} of {size} bytes: the file was cut"
                )
            # a signal, or more than 2 GiB
            target = out.reshape(-1).view(np.uint8)[done:]

    def fill_many(self, offset: int, outs: Sequence[Any]) -> int:
        """``fill`` arrays with what follows ``offset``, by one call where the system takes as many."""
        size: int = sum(out.nbytes for out in outs)
        self._refuse_beyond(offset, size)
        if len(outs) > _MOST_AT_ONCE or os.preadv(self._descriptor, outs, offset) < size:
            for out in outs:
                offset += self.fill(offset, out)
        return size

    def read(self, offset: int, size: int) -> bytes:
        """``size`` bytes from ``offset`` on."""
        self._refuse_beyond(offset, size)
        data = os.pread(self._descriptor, size, offset)
        while len(data) < size:
            more = os.pread(self._descriptor, size - len(data), offset + len(data))
            if not more:
                raise ReadError(
                    f"dataset {self._name} ends after {len(data)} of {size} bytes: the file was cut"
                )
            data += more
        return data

    def _refuse_beyond(self, offset: int, size: int) -> None:
        if not 0 <= offset <= self._end - size:
            raise beyond(self._name, offset, size, self._end)


def without_fletcher32(data: bytes) -> bytes:
    """The bytes before HDF5's Fletcher-32 of them; ValueError where it is another one.

    HDF5 before 1.6.3 wrote the sums' bytes swapped, which the library still takes, and so does
    this.
    """
    verify = forks.import_module("numcodecs.fletcher32").Fletcher32().decode
    for order in ((-4, -3, -2, -1), (-3, -4, -1, -2)):
        try:
            return bytes(verify(data[:-4] + bytes(data[index] for index in order)))
        except (RuntimeError, IndexError):
            continue
    raise ValueError("its Fletcher-32 checksum is another one: its bytes were damaged")


def _unshuffle(data: Any, width: int, out: NDArray[np.uint8]) -> None:
    """Bytes of all elements' first byte, then all their second, ..., back together.

    What fills no element (behind another filter's output, any number of bytes) stays where it is.
    """
    if len(data) != len(out):
        raise ValueError(f"it holds {len(data)} bytes, where {len(out)} belong")
    stored = np.frombuffer(data, np.uint8)
    whole = len(stored) - len(stored) % width
    planes, elements = stored[:whole].reshape(width, -1), out[:whole].reshape(-1, width)
    out[whole:] = stored[whole:]
    for plane in range(width):
        elements[:, plane] = planes[plane]
