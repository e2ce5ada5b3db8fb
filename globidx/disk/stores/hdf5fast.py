"""Plain HDF5 datasets: chunks as they are stored, decoded here, and contiguous data straight from the file.

The library inflates with plain zlib under a lock; zlib-ng and isal take half the time. Filters it knows and these
functions do not (LZF, bitshuffle, szip, ...) are left to it.
"""

from __future__ import annotations

import itertools
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.disk import forks
from globidx.disk.stores import UNREADABLE, NotPlainError
from globidx.disk.stores.codecs import fill, inflate, inflater, most_stored
from globidx.errors import MissingChunkError, ReadError

_DEFLATE, _SHUFFLE, _FLETCHER32 = 1, 2, 3  # H5Z_FILTER_* of H5Zpublic.h
_NAMES = {_DEFLATE: "gzip", _SHUFFLE: "shuffle", _FLETCHER32: "fletcher32"}


class ChunkedSource:
    """One chunked dataset of an open file: rows along ``axis``, each chunk decoded once and whole."""

    def __init__(self, dataset: Any, axis: int) -> None:
        plist = dataset.id.get_create_plist()
        self._filters = [plist.get_filter(number)[0] for number in range(plist.get_nfilters())]
        for number, code in enumerate(self._filters):
            if code not in _NAMES:
                raise NotPlainError(f"filter {plist.get_filter(number)[3].decode(errors='replace') or code}")
        if dataset.is_virtual or 0 in dataset.shape[:axis] + dataset.shape[axis + 1 :]:
            raise NotPlainError("a virtual or empty dataset")
        self._dataset, self._axis = dataset, axis
        self._chunks, self._dtype = dataset.chunks, dataset.dtype
        self._length = self._chunks[axis]
        others = [place for place in range(len(self._chunks)) if place != axis]
        self._corners = [range(0, dataset.shape[place], self._chunks[place]) for place in others]
        whole = all(self._chunks[place] == dataset.shape[place] for place in others)
        self._direct = whole and axis == 0 and self._dtype.isnative
        self._nbytes = math.prod(self._chunks) * self._dtype.itemsize
        named = ", ".join(_NAMES[code] for code in self._filters) or "raw"
        by = f" by {inflater().__name__.split('.')[0]}" if _DEFLATE in self._filters else ""
        self.how = f"chunks decoded without HDF5's filters ({named}{by})"

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many stored bytes that took."""
        taken = 0
        for first in range(start - start % self._length, stop, self._length):
            here, there = max(start, first), min(stop, first + self._length)
            rows = out[here - start : there - start]
            if self._direct and there - here == self._length:
                taken += self._decode((first,) + (0,) * len(self._corners), rows.reshape(-1).view(np.uint8))
            else:
                taken += self._assemble(first, here - first, there - first, rows)
        return taken

    def _assemble(self, first: int, start: int, stop: int, out: NDArray[Any]) -> int:
        """Rows ``[start, stop)`` of the chunks that begin at row ``first``."""
        taken, axis = 0, self._axis
        buffer = np.empty(self._nbytes, np.uint8)
        rows = np.moveaxis(buffer.view(self._dtype).reshape(self._chunks), axis, 0)[start:stop]
        for corner in itertools.product(*self._corners):
            taken += self._decode((*corner[:axis], first, *corner[axis:]), buffer)
            there = tuple(slice(at, at + size) for at, size in zip(corner, rows.shape[1:], strict=True))
            target = out[(slice(None), *there)]
            target[...] = rows[(slice(None), *(slice(size) for size in target.shape[1:]))]
        return taken

    def _decode(self, corner: tuple[int, ...], out: NDArray[np.uint8]) -> int:
        found = self._dataset.id.get_chunk_info_by_coord(corner)
        if found.byte_offset is None:
            raise MissingChunkError(
                f"the chunk at {corner} of dataset {self._dataset.name} was never written, and HDF5 would read fill "
                f"value {self._dataset.fillvalue!r}; if that is what the writer meant, pass on_missing='fill'"
            )
        if not self._filters and found.size == len(out):
            self._dataset.id.read_direct_chunk(corner, out=out)
            return len(out)
        edges = zip(corner, self._chunks, self._dataset.shape, strict=True)
        if found.size == len(out) and any(at + size > end for at, size, end in edges):
            # it may be stored without filters (H5Pset_chunk_opts), which only the library knows
            part = self._dataset[tuple(slice(at, at + size) for at, size in zip(corner, self._chunks, strict=True))]
            out.view(self._dtype).reshape(self._chunks)[tuple(map(slice, part.shape))] = part
            return len(out)
        skipped, stored = self._dataset.id.read_direct_chunk(corner)
        try:
            self._undo([code for place, code in enumerate(self._filters) if not skipped >> place & 1], stored, out)
        except UNREADABLE as error:
            raise ReadError(
                f"the chunk at {corner} of dataset {self._dataset.name} cannot be decoded: {error}"
            ) from error
        return len(stored)

    def _undo(self, filters: list[int], data: Any, out: NDArray[np.uint8]) -> None:
        for place, code in reversed(list(enumerate(filters))):
            if code == _DEFLATE:
                data = inflate(data, most_stored(len(out), place))
            elif code == _FLETCHER32:
                data = without_fletcher32(data)
            elif place:
                buffer = np.empty(len(data), np.uint8)
                _unshuffle(data, self._dtype.itemsize, buffer)
                data = buffer.tobytes()
            else:
                _unshuffle(data, self._dtype.itemsize, out)
                return
        fill(data, out)


class ContiguousSource:
    """One dataset that lies in its file in one piece, rows first: read where it lies, by the file's own descriptor."""

    def __init__(self, dataset: Any, file: Any) -> None:
        offset = dataset.id.get_offset()
        if offset is None or dataset.is_virtual or dataset.external:
            raise NotPlainError("data that is not in the file in one piece")
        self._dataset, self._file, self._offset = dataset, file, offset
        self._descriptor = file.get_vfd_handle()  # the one that HDF5 has open anyway
        self._row = math.prod(dataset.shape[1:]) * dataset.dtype.itemsize
        self._swapped = not dataset.dtype.isnative
        self.how = "read where it lies in the file"

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many bytes that took."""
        place, size = self._offset + start * self._row, out.nbytes
        target: Any = out
        done = os.preadv(self._descriptor, [target], place)
        while done < size:  # a signal, or more than 2 GiB
            target = out.reshape(-1).view(np.uint8)[done:]
            more = os.preadv(self._descriptor, [target], place + done)
            if not more:
                raise ReadError(f"dataset {self._dataset.name} ends after {done} of {size} bytes: the file was cut")
            done += more
        if self._swapped:
            out.byteswap(inplace=True)
        return size


def without_fletcher32(data: bytes) -> bytes:
    """The bytes before HDF5's Fletcher-32 of them; ValueError where it is another one.

    HDF5 before 1.6.3 wrote the sums' bytes swapped, which the library still takes, and so does this.
    """
    verify = forks.imported("numcodecs.fletcher32").Fletcher32().decode
    for order in ((-4, -3, -2, -1), (-3, -4, -1, -2)):
        try:
            return bytes(verify(data[:-4] + bytes(data[place] for place in order)))
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
    for place in range(width):
        elements[:, place] = planes[place]
