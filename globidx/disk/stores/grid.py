"""The grid of an array's chunks, as rows of chunks along the axis of its items.

It is the same for zarr and HDF5.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from globidx.core.reading import pieces
from globidx.core.reading.pieces import Piece
from globidx.core.reading.selection import Selection
from globidx.core.values import dtypes
from globidx.disk.stores.base import NotPlainError, Span

Coordinates = tuple[int, ...]


class ChunkGrid:
    """Chunks of ``chunks`` elements of an array of ``shape``, whose rows lie along ``axis``.

    With a ``place``, rows are those at this one place along axis 0; with a selection, they have
    what it takes of them, and only the chunks are named that hold some of that.
    """

    def __init__(self, shape: Coordinates, chunks: Coordinates, axis: int) -> None:
        if axis >= len(shape) or any(size == 0 for size in shape[:axis] + shape[axis + 1 :]):
            raise NotPlainError(f"shape {shape}")
        self._shape, self._chunks, self._axis = shape, chunks, axis
        self.length = chunks[axis]
        self._selection: Selection | None = None
        self._place: int | None = None
        self._set()

    @property
    def row_shape(self) -> Coordinates:
        """The shape of a row."""
        return self._shape[: self._axis] + self._shape[self._axis + 1 :]

    def at(self, place: int) -> ChunkGrid:
        """The same chunks, and the rows at one place along axis 0."""
        other = copy.copy(self)
        is_first, other._place = self._place is None, place
        # of another place, the chunks beside one another are the same
        if is_first:
            other._set()
        return other

    def select(self, selection: Selection) -> ChunkGrid:
        """The same rows, and of each what is selected."""
        other = copy.copy(self)
        other._selection = selection
        other._set()
        return other

    def _set(self) -> None:
        shape, chunks = self._shape, self._chunks
        ahead = self._axis if self._place is None else 0
        beside = [other for other in range(len(shape)) if other not in (ahead, self._axis)]
        taken = (
            self._selection.taken if self._selection else [range(shape[other]) for other in beside]
        )
        self._pieces = [
            pieces.pieces(one, chunks[other]) for one, other in zip(taken, beside, strict=True)
        ]
        # whether numpy takes what is selected by slices and integers alone
        self._is_even = not any(
            isinstance(one, np.ndarray)
            for found in self._pieces
            for piece in found
            for one in piece
        )
        #: How many chunks a row of chunks has, of those that are read.
        self.width = math.prod(map(len, self._pieces))
        #: Whether a chunk holds whole rows, as they are selected, and nothing else.
        self.is_whole = all(
            len(found) == 1 and _is_all(found[0], chunks[other])
            for found, other in zip(self._pieces, beside, strict=True)
        ) and (self._place is None or chunks[0] == 1)
        #: Whether the rows of such a chunk are its bytes, one row behind the other.
        self.is_direct = self.is_whole and self._axis == (0 if self._place is None else 1)

    def row(self, row: int) -> Iterator[tuple[Coordinates, tuple[Piece, ...]]]:
        """The chunks of a row of chunks: their coordinates, and what is taken of them.

        The latter along each axis beside that of the rows.
        """
        for found in itertools.product(*self._pieces):
            yield self._coordinates(row, tuple([piece.number for piece in found])), found

    def only(self, row: int) -> Coordinates:
        """The coordinates of the one chunk of a row of chunks, where ``is_whole``."""
        return self._coordinates(row, tuple([found[0].number for found in self._pieces]))

    def _coordinates(self, row: int, numbers: Coordinates) -> Coordinates:
        axis = self._axis
        if self._place is None:
            return (*numbers[:axis], row, *numbers[axis:])
        first = self._place // self._chunks[0]
        return (first, *numbers[: axis - 1], row, *numbers[axis - 1 :])

    def rows_of(self, chunk: NDArray[Any]) -> NDArray[Any]:
        """The rows of a decoded chunk, their axis first."""
        rows = np.moveaxis(chunk, self._axis, 0)
        return rows if self._place is None else rows[:, self._place % self._chunks[0]]

    def put(
        self,
        rows: NDArray[Any],
        found: Sequence[Piece],
        row: int,
        spans: Sequence[Span],
        out: NDArray[Any],
    ) -> None:
        """Copy what ``spans`` take of the ``rows`` of a chunk to their places in ``out``."""
        first = row * self.length
        insides = [piece.inside for piece in found]
        regions = [piece.region for piece in found]
        if self._is_even and out.dtype.names is None:
            # the usual case, without a call for each chunk
            kept = [region for region in regions if region is not None]
            for start, stop, target in spans:
                some = rows[(slice(start - first, stop - first), *insides)]
                out[(slice(target, target + stop - start), *kept)] = some
            return
        for start, stop, target in spans:
            some = pieces.take(rows[start - first : stop - first], insides)
            if out.dtype.names is not None:
                some = dtypes.as_dtype(some, out.dtype)
            pieces.put(out[target : target + stop - start], regions, some)


class GridSource:
    """A source of rows in chunks of a grid, each of which a subclass decodes."""

    _grid: ChunkGrid

    @property
    def row_shape(self) -> Coordinates:
        """The shape of a row."""
        return self._grid.row_shape

    @property
    def width(self) -> int:
        """How many chunks it decodes for a row of chunks."""
        return self._grid.width

    def at(self, place: int) -> Self:
        """The rows at one place along axis 0."""
        return self._over(self._grid.at(place))

    def select(self, selection: Selection) -> Self:
        """The rows with what is selected of each, by the chunks that hold it."""
        return self._over(self._grid.select(selection))

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``."""
        raise NotImplementedError

    def scatter(self, start: int, outs: Sequence[NDArray[Any]]) -> int:
        """Fill arrays with the rows from ``start`` on; no chunk is in two of them."""
        return one_by_one(self.read, start, outs)

    def _over(self, grid: ChunkGrid) -> Self:
        other = copy.copy(self)
        other._set_grid(grid)
        return other

    def _set_grid(self, grid: ChunkGrid) -> None:
        """Note the grid, and what follows from it for decoding."""
        self._grid = grid


def one_by_one(
    read: Callable[[int, int, NDArray[Any]], int], start: int, outs: Sequence[NDArray[Any]]
) -> int:
    """Fill arrays, one after the other, with the rows from ``start`` on; what that took in all.

    >>> one_by_one(lambda start, stop, out: print(start, stop) or 8, 3, [np.zeros(2), np.zeros(1)])
    3 5
    5 6
    16
    """
    nbytes = 0
    for out in outs:
        nbytes += read(start, start + len(out), out)
        start += len(out)
    return nbytes


def _is_all(piece: Piece, length: int) -> bool:
    """Whether a piece is all of a chunk of ``length`` elements."""
    inside = piece.inside
    if isinstance(inside, slice):
        return inside == slice(0, length, 1)
    return length == 1 and isinstance(inside, int)
