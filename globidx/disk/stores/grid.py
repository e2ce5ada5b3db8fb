"""The grid of an array's chunks, as rows of chunks along the axis of its items.

It is the same for zarr and HDF5.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.index import dtypes
from globidx.disk.stores.base import NotPlainError, Span

Coordinates = tuple[int, ...]
Region = tuple[slice, ...]


class ChunkGrid:
    """Chunks of ``chunks`` elements of an array of ``shape``, whose rows lie along ``axis``.

    With a ``place``, rows are those at this one place along axis 0.
    """

    def __init__(self, shape: Coordinates, chunks: Coordinates, axis: int) -> None:
        if axis >= len(shape) or any(size == 0 for size in shape[:axis] + shape[axis + 1 :]):
            raise NotPlainError(f"shape {shape}")
        self._shape, self._chunks, self._axis = shape, chunks, axis
        self._set(None)

    @property
    def row_shape(self) -> Coordinates:
        """The shape of a row."""
        return self._shape[: self._axis] + self._shape[self._axis + 1 :]

    def at(self, place: int) -> ChunkGrid:
        """The same chunks, and the rows at one place along axis 0."""
        other = copy.copy(self)
        other._set(place)
        return other

    def _set(self, place: int | None) -> None:
        shape, chunks = self._shape, self._chunks
        self._place = place
        self.length = chunks[self._axis]
        ahead = self._axis if place is None else 0
        beside = [other for other in range(len(shape)) if other not in (ahead, self._axis)]
        self._sides = [chunks[other] for other in beside]
        self._counts = [range(-(-shape[other] // chunks[other])) for other in beside]
        #: Whether a chunk holds whole rows, and nothing else.
        self.is_whole = all(chunks[other] == shape[other] for other in beside) and (
            place is None or chunks[0] == 1
        )
        #: Whether the rows of such a chunk are its bytes, one row behind the other.
        self.is_direct = self.is_whole and self._axis == (0 if place is None else 1)

    def row(self, row: int) -> Iterator[tuple[Coordinates, Region]]:
        """The chunks of a row of chunks: their coordinates, and where their elements belong.

        The latter beside the row axis.
        """
        for numbers in itertools.product(*self._counts):
            region = tuple(
                slice(number * side, (number + 1) * side)
                for number, side in zip(numbers, self._sides, strict=True)
            )
            yield self._coordinates(row, numbers), region

    def only(self, row: int) -> Coordinates:
        """The coordinates of the one chunk of a row of chunks, where ``is_whole``."""
        return self._coordinates(row, (0,) * len(self._counts))

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
        self, rows: NDArray[Any], region: Region, row: int, spans: Sequence[Span], out: NDArray[Any]
    ) -> None:
        """Copy what ``spans`` take of the ``rows`` of a chunk to their places in ``out``."""
        first = row * self.length
        for start, stop, target in spans:
            part = out[(slice(target, target + stop - start), *region)]
            taken = rows[(slice(start - first, stop - first), *map(slice, part.shape[1:]))]
            if part.dtype.names is None:
                part[...] = taken
            else:
                dtypes.put(part, taken)
