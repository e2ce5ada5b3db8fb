"""Ways to the rows of one array: by its library, cut, filled, recoded, or by what a store module offers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.index.patterns import Runs
from globidx.core.reading import pieces
from globidx.core.reading.pieces import Slab
from globidx.core.reading.selection import Selection
from globidx.core.values import dtypes
from globidx.disk.remote.ahead import Wish
from globidx.disk.stores.base import Span, Store
from globidx.disk.stores.grid import Coordinates, one_by_one
from globidx.disk.stores.ragged import LooseSource, RunsSource
from globidx.disk.stores.sparse import Kept, Part, SparseSource
from globidx.errors import MissingChunkError, ReadError

#: Elements of an array without chunks that its library reads over, instead of another call.
_NEAR = 16


class Source(Protocol):
    """One array of an open file. ``how`` describes how it is read. Threads may share it."""

    how: str

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out``, C-contiguous and native, with rows ``[start, stop)``.

        Returns the stored bytes it took.

        MissingChunkError where the store has none of them, one of ``stores.UNREADABLE`` where they
        cannot be had.
        """


@runtime_checkable
class SpanSource(Protocol):
    """A source that takes many spans of one row of chunks from each chunk while it is decoded."""

    def pick(self, spans: Sequence[Span], out: NDArray[Any]) -> int:
        """Fill rows of ``out``; returns the stored bytes it took.

        One chunk is decoded at a time.
        """


class ScatterSource(Protocol):
    """A source that reads neighbours to places that are none, and not through a copy."""

    def scatter(self, start: int, outs: Sequence[NDArray[Any]]) -> int:
        """Fill arrays, one after the other, with the rows from ``start`` on.

        Returns the stored bytes it took.
        """


@runtime_checkable
class StackedSource(Protocol):
    """A source of an array with many sequences along axis 0."""

    def at(self, place: int) -> Source:
        """The rows at one place along axis 0."""


class PartSource(Source, Protocol):
    """What is selected of the rows of an array."""

    @property
    def width(self) -> int:
        """How many chunks it decodes for a row of chunks: those beside one another."""


@runtime_checkable
class SelectableSource(Protocol):
    """A source that can leave out what is not selected of its rows, and need not read it."""

    def select(self, selection: Selection) -> PartSource:
        """The rows with what is selected of each."""


@runtime_checkable
class FarSource(Protocol):
    """A source that can say what it will ask a server for."""

    def pieces(self, start: int, stop: int) -> list[Wish]:
        """The pieces for rows ``[start, stop)``; [] of what is not far."""

    def unknown(self, start: int, stop: int) -> Sequence[Coordinates]:
        """What must be looked up, or else ``pieces`` asks a server for it."""

    def look_up(self, chunk: Coordinates) -> None:
        """Ask a server where something lies."""


class Rows(NamedTuple):
    """Rows of an array that can say what it will ask a server for."""

    source: FarSource
    start: int
    stop: int


@runtime_checkable
class LeadingSource(Protocol):
    """A source whose rows lie in arrays beside one another, of which the first ones lead to the others."""

    def first(self, start: int, stop: int) -> list[Rows]:
        """What tells where rows ``[start, stop)`` lie; [] of what is known."""

    def then(self, start: int, stop: int) -> list[Rows]:
        """Where they lie; it may wait for the former."""


class Forwarding:
    """A source that asks a server for what the one in it asks for."""

    _source: Source

    def pieces(self, start: int, stop: int) -> list[Wish]:
        """What the source asks a server for."""
        return self._source.pieces(start, stop) if isinstance(self._source, FarSource) else []

    def unknown(self, start: int, stop: int) -> Sequence[Coordinates]:
        """What the source has to look up before."""
        return self._source.unknown(start, stop) if isinstance(self._source, FarSource) else ()

    def look_up(self, chunk: Coordinates) -> None:
        """Let the source look it up."""
        if isinstance(self._source, FarSource):
            self._source.look_up(chunk)


def selected(source: Source, selection: Selection) -> PartSource:
    """What is selected of the rows of ``source``, each read whole where it has no better way."""
    if isinstance(source, SelectableSource):
        return source.select(selection)
    return CutSource(source, selection)


def pick(source: Source, spans: Sequence[Span], out: NDArray[Any]) -> int:
    """Spans of one row of chunks by ``source``, neighbours together where it has no better way."""
    if isinstance(source, SpanSource):
        return source.pick(spans, out)
    return spread(source, spans, out)


def spread(source: Source, spans: Sequence[Span], out: NDArray[Any]) -> int:
    """Spans that ascend, each to its place in ``out``, and neighbours by one call."""
    nbytes, read, number = 0, source.read, 0
    while number < len(spans):
        start, stop, target = spans[number]
        first, number = number, number + 1
        while number < len(spans) and spans[number][0] == spans[number - 1][1]:
            number += 1
        if number == first + 1:
            nbytes += read(start, stop, out[target : target + stop - start])
        else:
            nbytes += _neighbours(source, spans[first:number], out)
    return nbytes


def _neighbours(source: Source, spans: Sequence[Span], out: NDArray[Any]) -> int:
    """Spans each of which begins where the one before it ends."""
    outs = [out[target : target + stop - start] for start, stop, target in spans]
    start, stop = spans[0][0], spans[-1][1]
    # asked of a class that is a protocol, it would take as long as a read
    scatter = getattr(source, "scatter", None)
    if scatter is not None:
        nbytes: int = scatter(start, outs)
        return nbytes
    # a call of a library costs more than a copy of what it reads
    rows = np.empty((stop - start, *out.shape[1:]), out.dtype)
    nbytes = source.read(start, stop, rows)
    for part, (begin, end, _) in zip(outs, spans, strict=True):
        part[...] = rows[begin - start : end - start]
    return nbytes


class CodeSource(Forwarding):
    """The codes of a column, given as those of the categories that all files have together.

    ``codes`` are these by the codes of the file; None where they are not known.
    """

    def __init__(self, stored: Part, codes: NDArray[np.int64] | None) -> None:
        self._stored, self._source = stored, cast(Source, stored.source)
        # -1, which is no category, stays what it is: it is the last one here
        self._codes = None if codes is None else np.append(codes, -1)
        self.how = "codes of the categories that all files have together"

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with the codes of rows ``[start, stop)``.

        ReadError where one is no category of the file's.
        """
        stored, nbytes = self._stored.read(start, stop)
        if self._codes is None:
            out[...] = stored
            return nbytes
        count = len(self._codes) - 1
        wrong = np.flatnonzero((stored < -1) | (stored >= count))
        if len(wrong):
            row = int(wrong[0])
            raise ReadError(f"row {start + row} has code {stored[row]}, of {count} categories")
        out[...] = self._codes[stored]
        return nbytes


class LibrarySource:
    """An array as its library reads it, by plain slices.

    At one ``place`` along axis 0 where there is one; of each row, what is selected.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        array: str,
        axis: int = 0,
        place: int | None = None,
        fill: bool | None = None,
    ) -> None:
        self._store, self._array = store, array
        self._axis, self._place = axis, place
        self._selection: Selection | None = None
        self._fill = fill
        self.how = "read by its library"

    def at(self, place: int) -> LibrarySource:
        """The rows at one place along axis 0."""
        return LibrarySource(self._store, self._array, self._axis, place, self._fill)

    def select(self, selection: Selection) -> LibrarySource | CutSource:
        """The rows with what is selected of each, by the fewest slices that hold it."""
        shape = self._store().describe(self._array).shape
        if len(self._beside(len(shape))) != len(selection.taken):
            # elements that are arrays, whose axes a library does not slice
            return CutSource(self, selection)
        other = LibrarySource(self._store, self._array, self._axis, self._place, self._fill)
        other._selection, other.how = selection, self.how
        return other

    @cached_property
    def width(self) -> int:
        """How many chunks the library decodes for a row of chunks."""
        shape, _, chunks = self._store().describe(self._array)
        if chunks is None or self._selection is None:
            return 1
        found = zip(self._selection.taken, self._beside(len(shape)), strict=True)
        return prod(len(pieces.pieces(one, chunks[axis])) for one, axis in found)

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``.

        Returns the decoded bytes, since libraries do not report stored ones.
        """
        if self._selection is None:
            block = self._store().read(
                self._array, start, stop, axis=self._axis, place=self._place, fill=self._fill
            )
            dtypes.put(out, self._checked(block, start, stop, out.shape[1:]))
            return out.nbytes
        nbytes = 0
        for found in itertools.product(*self._slabs):
            block = self._store().read(
                self._array,
                start,
                stop,
                axis=self._axis,
                place=self._place,
                fill=self._fill,
                beside=[slice(one.start, one.stop) for one in found],
            )
            self._checked(block, start, stop, tuple(one.stop - one.start for one in found))
            rows = pieces.take(block, [one.inside for one in found])
            pieces.put(out, [one.region for one in found], dtypes.as_dtype(rows, out.dtype))
            nbytes += block.nbytes
        return nbytes

    def _checked(
        self, block: NDArray[Any], start: int, stop: int, shape: tuple[int, ...]
    ) -> NDArray[Any]:
        # a slice that reaches beyond the end is shorter, without an error
        if block.shape != (stop - start, *shape):
            raise ReadError(
                f"array {self._array!r} gave {block.shape} for rows [{start}, {stop}), not {(stop - start, *shape)}"
            )
        return block

    @cached_property
    def _slabs(self) -> list[list[Slab]]:
        assert self._selection is not None, "all of a row is one slab"
        taken, (shape, _, chunks) = self._selection.taken, self._store().describe(self._array)
        if chunks is None:
            return [pieces.slabs(one, _NEAR) for one in taken]
        beside = self._beside(len(shape))
        return [pieces.slabs(one, chunks[axis]) for one, axis in zip(taken, beside, strict=True)]

    def _beside(self, ndim: int) -> list[int]:
        ahead = self._axis if self._place is None else 0
        return [axis for axis in range(ndim) if axis not in (ahead, self._axis)]


class CutSource(Forwarding):
    """What is selected of the rows of a source that reads them whole."""

    #: Rows of chunks are decoded as they are for whole rows, and are counted like these.
    width = 1

    def __init__(self, source: Source, selection: Selection) -> None:
        self._source, self._selection = source, selection
        self.how = f"{source.how}, of which a part is kept"

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``."""
        rows = np.empty((stop - start, *self._selection.item_shape), out.dtype)
        nbytes = self._source.read(start, stop, rows)
        dtypes.put(out, self._selection.of(rows))
        return nbytes


class FarLooseSource(Forwarding, LooseSource):
    """Rows of a shape of their file's own, by URL."""


class FarSparseSource(SparseSource):
    """A matrix by row, by URL: where rows end leads to their entries."""

    def first(self, start: int, stop: int) -> list[Rows]:
        """What tells where rows end: all of it, if it will be kept."""
        return _rows_unless_kept(self._kept, self._kept_ends, self._indptr, start, stop + 1)

    def then(self, start: int, stop: int) -> list[Rows]:
        """The entries of the rows."""
        ((first, *_, last),), _ = self._ends(np.array([start]), np.array([stop]))
        return [*_rows(self._indices, first, last), *_rows(self._data, first, last)]


class FarRunsSource(RunsSource):
    """Runs of rows by URL, read without a library: what tells them leads to them.

    ``parts`` are the arrays, by path; what tells runs is ``kept`` by ``key``.
    """

    how = "runs of rows, read without its library, by URL"

    def __init__(self, runs: Runs, parts: Mapping[str, Part], kept: Kept, key: Hashable) -> None:
        super().__init__(lambda: cast(Store, self._arrays), runs)
        self._arrays = _Arrays(runs, parts, kept, key)

    def first(self, start: int, stop: int) -> list[Rows]:
        """What tells runs: all of it, if it will be kept."""
        return [
            rows for path in self._runs.tell for rows in self._arrays.lacking(path, start, stop)
        ]

    def then(self, start: int, stop: int) -> list[Rows]:
        """The rows of the runs."""
        part = self._arrays.parts[self._runs.array]
        begins, ends = self._checked(cast(Store, self._arrays), start, stop)
        runs = zip(begins.tolist(), ends.tolist(), strict=True)
        return [rows for begin, end in runs for rows in _rows(part, begin, end)]


class _Arrays:
    """Arrays by URL, as a library reads them; those that tell runs are read once."""

    def __init__(self, runs: Runs, parts: Mapping[str, Part], kept: Kept, key: Hashable) -> None:
        self.parts = parts
        self._tell, self._kept, self._key = runs.tell, kept, key

    def read(
        self, array: str, start: int, stop: int, *, axis: int, fill: bool | None
    ) -> NDArray[Any]:
        """Rows ``[start, stop)``, fewer where the array ends before."""
        del axis, fill  # the parts know
        part = self.parts[array]
        stop = min(stop, part.length)
        if array in self._tell:
            whole = self._kept.ends(*self._kept_by(array), lambda: part.read(0, part.length)[0])
            if whole is not None:
                found: NDArray[Any] = whole[start:stop]
                return found
        return part.read(start, max(start, stop))[0]

    def lacking(self, array: str, start: int, stop: int) -> list[Rows]:
        """What is to be read of an array that tells runs ``[start, stop)``, unless it is kept."""
        begin, end = max(0, start - 1), stop + 1
        return _rows_unless_kept(self._kept, self._kept_by(array), self.parts[array], begin, end)

    def _kept_by(self, array: str) -> tuple[Hashable, int]:
        """By what an array is kept, and how many bytes it takes."""
        part = self.parts[array]
        return ("runs", self._key, array), part.length * part.dtype.itemsize


def _rows_unless_kept(
    kept: Kept, kept_by: tuple[Hashable, int], part: Part, start: int, stop: int
) -> list[Rows]:
    """Rows of an array that leads to others: all of it, if it will be kept, and none once it is."""
    try:
        whole = kept.ends(*kept_by, _lacking)
    except LookupError:
        return _rows(part, 0, part.length)
    return [] if whole is not None else _rows(part, start, stop)


def _rows(part: Part, start: int, stop: int) -> list[Rows]:
    """Rows of an array of numbers, as far as there are such and it says what it asks for."""
    source, stop = cast(FarSource, part.source), min(int(stop), part.length)
    return (
        [Rows(source, int(start), stop)] if hasattr(source, "pieces") and 0 <= start < stop else []
    )


def _lacking() -> NDArray[Any]:
    raise LookupError


class EmptySource:
    """Rows without elements."""

    how = "nothing to read"

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Nothing is filled, which takes no bytes."""
        del start, stop, out
        return 0


class FillingSource(Forwarding):
    """A source whose missing chunks are read by the library, which knows what to fill in."""

    def __init__(self, source: Source, library: Source) -> None:
        self._source = source
        self.library = library
        self.how = source.how
        self.row_shape = getattr(source, "row_shape", None)

    def at(self, place: int) -> FillingSource:
        """The rows at one place along axis 0."""
        at = [
            source.at(place) if isinstance(source, StackedSource) else source
            for source in (self._source, self.library)
        ]
        return FillingSource(*at)

    def select(self, selection: Selection) -> FillingSource:
        """The rows with what is selected of each."""
        return FillingSource(*(selected(one, selection) for one in (self._source, self.library)))

    @property
    def width(self) -> int:
        """How many chunks it decodes for a row of chunks."""
        # of what was selected of a source, which has one
        return int(getattr(self._source, "width", 1))

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``."""
        try:
            return self._source.read(start, stop, out)
        except MissingChunkError:
            return self.library.read(start, stop, out)

    def scatter(self, start: int, outs: Sequence[NDArray[Any]]) -> int:
        """Fill arrays with the rows from ``start`` on, each by itself: the next may not be missing."""
        return one_by_one(self.read, start, outs)

    def pick(self, spans: Sequence[Span], out: NDArray[Any]) -> int:
        """Fill rows of ``out`` from spans of one row of chunks."""
        try:
            return pick(self._source, spans, out)
        except MissingChunkError:
            return pick(self.library, spans, out)
