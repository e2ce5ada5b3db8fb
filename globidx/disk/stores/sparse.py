"""Rows of sparse matrices, stored by row or by column as AnnData and scipy do."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from globidx.core.values.sparse import Entries, Transpose, Transposed, transposed_bytes
from globidx.disk.files import forks
from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.base import Span
from globidx.errors import ReadError

_log = logging.getLogger("globidx")
#: What is larger than the cache divided by this is not kept beside decoded chunks.
_SHARE = 4


class Reads(Protocol):
    """What reads a stored array: a source of an open file."""

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; the stored bytes that took."""


class Part(NamedTuple):
    """One of the three arrays of a matrix, of so many numbers, ``chunk`` in a chunk (0: not chunked)."""

    source: Reads
    dtype: np.dtype[Any]
    length: int
    chunk: int = 0

    def read(self, start: int, stop: int) -> tuple[NDArray[Any], int]:
        """The numbers ``[start, stop)``, and the stored bytes that took."""
        out = np.empty(stop - start, self.dtype)
        return out, self.source.read(start, stop, out) if stop > start else 0

    def pick(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> tuple[NDArray[Any], int]:
        """The numbers of ascending spans one after the other, each chunk decoded once."""
        out, nbytes, target = np.empty(int((stops - starts).sum()), self.dtype), 0, 0
        last, block = -1, out
        for start, stop, chunk in self._cut(starts.tolist(), stops.tolist()):
            rows = out[target : target + stop - start]
            target += stop - start
            if chunk < 0:
                nbytes += self.source.read(start, stop, rows)
                continue
            if chunk != last:
                block, taken = self.read(chunk, min(chunk + self.chunk, self.length))
                last, nbytes = chunk, nbytes + taken
            rows[...] = block[start - chunk : stop - chunk]
        return out, nbytes

    def _cut(self, starts: list[int], stops: list[int]) -> Iterator[tuple[int, int, int]]:
        """Spans cut where chunks end, and where the chunk of each begins; -1 where there is none."""
        for start, stop in zip(starts, stops, strict=True):
            if not self.chunk and stop > start:
                yield start, stop, -1
            first = start - start % self.chunk if self.chunk else stop
            for chunk in range(first, stop, self.chunk or 1):
                yield max(start, chunk), min(stop, chunk + self.chunk), chunk


class Kept:
    """What sources of sparse matrices keep: small things in ``cache``, and of large ones the last.

    The cache is that of decoded chunks. A matrix by column is of no use unless it is kept sorted
    by row, so the last one is, whatever its size.
    """

    def __init__(self, cache: BlockCache) -> None:
        self._cache = cache
        self._start_empty()
        forks.renew_in_child(self, Kept._start_empty)

    def _start_empty(self) -> None:
        # a lock of the parent's may have been held when it forked
        self._lock = threading.Lock()
        self._last: tuple[Hashable, NDArray[Any]] | None = None
        self._made = set[Hashable]()
        self._warned = False

    def ends(self, key: Hashable, nbytes: int, read: Callable[[], NDArray[Any]]) -> Any:
        """The array ``key``, made by ``read`` unless it is kept; None where it is too large for that."""
        if nbytes > self._cache.capacity // _SHARE:
            return None
        array = self._cache.get(key)
        if array is None:
            array = read()
            self._cache.put(key, array)
        return array

    def transposed(self, key: Hashable, what: str, make: Callable[[], NDArray[Any]]) -> Any:
        """The block ``key``, by ``make`` unless it is kept; one thread at a time makes one."""
        with self._lock:
            block = self._cache.get(key)
            if block is None and self._last is not None and self._last[0] == key:
                block = self._last[1]
            if block is None:
                # not two of them in memory
                self._last = None
                if key in self._made:
                    self._warn(what)
                block = make()
                self._made.add(key)
                self._cache.put(key, block)
                if block.nbytes > self._cache.capacity:
                    self._last = key, block
            return block

    def clear(self) -> None:
        """Drop the last large one."""
        self._start_empty()

    def _warn(self, what: str) -> None:
        if not self._warned:
            _log.warning(
                "%s is stored by column, and sorted by row once more since that was not kept: raise "
                "cache_bytes, or write the files by row (csr_matrix)",
                what,
            )
        self._warned = True


class SparseSource:
    """A matrix in a group ``name`` of an open file: ``indptr``, ``indices`` and ``data``.

    ``shape`` is its rows and columns. ``key`` identifies one version of the file.
    """

    def __init__(
        self, name: str, parts: Sequence[Part], shape: tuple[int, int], kept: Kept, key: Hashable
    ) -> None:
        self._name, self._shape = name, shape
        self._indptr, self._indices, self._data = parts
        self._kept, self._key = kept, key
        self.how = self._how()

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)`` made dense; the stored bytes that took."""
        return self.pick([(start, stop, 0)], out)

    def pick(self, spans: Sequence[Span], out: NDArray[Any]) -> int:
        """Fill rows of ``out`` with ascending spans of rows made dense; if of objects, with ``Row``s."""
        entries, nbytes = self.entries(spans)
        if out.dtype == object:
            self._give(entries, spans, out)
            return nbytes
        rows = np.concatenate([np.arange(at, at + stop - start) for start, stop, at in spans])
        if np.array_equal(rows, np.arange(len(out))):
            entries.fill(out)
        else:
            dense = np.empty((len(rows), out.shape[1]), out.dtype)
            entries.fill(dense)
            out[rows] = dense
        return nbytes

    def _give(self, entries: Entries, spans: Sequence[Span], out: NDArray[np.object_]) -> None:
        width = self._shape[1]
        rows = iter(entries.canonical(width).split(width))
        for start, stop, target in spans:
            for place in range(target, target + stop - start):
                out[place] = next(rows)

    def entries(self, spans: Sequence[Span]) -> tuple[Entries, int]:
        """The entries of the rows of ascending spans, and the stored bytes that took.

        ReadError where they are no rows of a matrix of that width.
        """
        starts, stops = (
            np.array(bounds, np.int64) for bounds in list(zip(*spans, strict=True))[:2]
        )
        ends, nbytes = self._ends(starts, stops)
        counts = np.concatenate([np.diff(some) for some in ends])
        firsts, lasts = (np.array([some[side] for some in ends]) for side in (0, -1))
        self._refuse_ends(counts, firsts, lasts, spans)
        columns, of_columns = self._indices.pick(firsts, lasts)
        values, of_values = self._data.pick(firsts, lasts)
        if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < self._shape[1]:
            rows = f"[{spans[0][0]}, {spans[-1][1]})"
            raise ReadError(
                f"indices of {self._name!r} lie outside [0, {self._shape[1]}) in rows {rows}"
            )
        entries = Entries(counts, columns.astype(np.int64, copy=False), values)
        return entries, nbytes + of_columns + of_values

    def _how(self) -> str:
        return "sparse rows, of which only the entries are read"

    @property
    def _kept_ends(self) -> tuple[Hashable, int]:
        """By what all ends are kept, and how many bytes they take."""
        return ("sparse ends", self._key, self._name), 8 * self._indptr.length

    def _ends(
        self, starts: NDArray[np.int64], stops: NDArray[np.int64]
    ) -> tuple[list[NDArray[np.int64]], int]:
        """Where the rows of each span begin, and the last of them ends."""
        size, taken = self._indptr.length, [0]

        def read(start: int, stop: int) -> NDArray[np.int64]:
            ends, nbytes = self._indptr.read(start, stop)
            taken[0] += nbytes
            return ends.astype(np.int64, copy=False)

        spans = list(zip(starts.tolist(), (stops + 1).tolist(), strict=True))
        whole = self._kept.ends(*self._kept_ends, lambda: read(0, size))
        if whole is None:
            return [read(start, stop) for start, stop in spans], taken[0]
        return [whole[start:stop] for start, stop in spans], taken[0]

    def _refuse_ends(
        self,
        counts: NDArray[np.int64],
        firsts: NDArray[np.int64],
        lasts: NDArray[np.int64],
        spans: Sequence[Span],
    ) -> None:
        """ReadError where ``indptr`` does not ascend, or ends behind the other arrays."""
        if len(counts) and (int(counts.min()) < 0 or int(firsts.min()) < 0):
            rows = f"[{spans[0][0]}, {spans[-1][1]})"
            raise ReadError(f"indptr of {self._name!r} does not ascend in rows {rows}")
        last, size = int(lasts.max(initial=0)), min(self._indices.length, self._data.length)
        if last > size:
            raise ReadError(
                f"indptr of {self._name!r} ends at {last}, behind the end of indices or data: {size}"
            )


class ColumnSource(SparseSource):
    """A matrix stored by column, sorted by row when it is first read, and kept like that.

    An entry of a row lies as far from the next one as a column is long: to read a row by itself
    would decode every chunk of the file.
    """

    #: Entries that are sorted at once: some 30 MiB of memory.
    piece = 2**20

    def entries(self, spans: Sequence[Span]) -> tuple[Entries, int]:
        """The entries of the rows of spans, and the stored bytes that took."""
        taken = [0]
        matrix = self._transposed(taken)
        parts = [matrix.entries(start, stop) for start, stop, _ in spans]
        entries = Entries(*map(np.concatenate, zip(*parts, strict=True)))
        return entries, taken[0]

    def _how(self) -> str:
        size = transposed_bytes(*self._shape, self._data.length, self._data.dtype)
        return f"stored by column, sorted by row once in every process: {size / 2**20:.6g} MiB for this file"

    def _transposed(self, taken: list[int]) -> Transposed:
        def make() -> NDArray[np.uint8]:
            block, nbytes = self._sorted()
            taken[0] += nbytes
            return block

        block = self._kept.transposed(("sparse rows", self._key, self._name), self._name, make)
        return Transposed.within(block, *self._shape, self._data.length, self._data.dtype)

    def _sorted(self) -> tuple[NDArray[np.uint8], int]:
        """The matrix by row, of which a piece at a time is sorted, and the stored bytes that took."""
        height, width = self._shape
        ends, nbytes = self._indptr.read(0, self._indptr.length)
        ends = ends.astype(np.int64, copy=False)
        total = self._indices.length
        if len(ends) != width + 1 or ends[0] != 0 or (np.diff(ends) < 0).any():
            raise ReadError(f"indptr of {self._name!r} does not ascend from 0 over {width} columns")
        if not ends[-1] == total == self._data.length:
            raise ReadError(
                f"indptr of {self._name!r} ends at {ends[-1]}, where there are {total} indices and "
                f"{self._data.length} data"
            )
        counts = np.zeros(height, np.int64)
        pieces = [(at, min(at + self.piece, total)) for at in range(0, total, self.piece)]
        for start, stop in pieces:
            rows, taken = self._indices.read(start, stop)
            nbytes += taken
            if not 0 <= int(rows.min()) <= int(rows.max()) < height:
                raise ReadError(f"indices of {self._name!r} lie outside [0, {height})")
            counts += np.bincount(rows.astype(np.intp, copy=False), minlength=height)
        matrix = Transpose(counts, width, self._data.dtype)
        for start, stop in pieces:
            columns = np.repeat(np.arange(width), np.diff(np.clip(ends, start, stop)))
            rows, of_rows = self._indices.read(start, stop)
            values, of_values = self._data.read(start, stop)
            matrix.put(columns, rows, values)
            nbytes += of_rows + of_values
        return matrix.block, nbytes
