"""Whether the data of an HDF5 dataset were written.

HDF5 invents fill values for those that were not.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

from globidx.disk.stores.hdf5.chunk_table import ChunkTable, grid_of, table_of
from globidx.disk.stores.hdf5.external import external_bytes
from globidx.disk.stores.hdf5.virtual_map import VirtualMap
from globidx.errors import MissingChunkError, ReadError


class Presence:
    """What was written of one dataset of an open file, looked up when it is first asked for.

    ``axis`` is the one along which rows are asked for, ``allow`` whether its data may lie in files
    outside the folder of its own. ``step`` is called before each dataset behind a virtual one is
    looked at; what it raises ends that.
    """

    def __init__(
        self, dataset: Any, axis: int, *, allow: bool, step: Callable[[], None] = lambda: None
    ) -> None:
        self._step = step
        self._dataset = dataset
        self._axis = axis
        self._allow = allow
        self._is_elsewhere = bool(dataset.is_virtual or dataset.external)
        self._map: VirtualMap | None = None
        self._table: ChunkTable | None = None
        self._is_whole: bool | None = None

    def require(self, start: int, stop: int, *, fill: bool, place: int | None = None) -> None:
        """MissingChunkError where part of rows ``[start, stop)`` was never written.

        Unless ``fill``.

        With a ``place``, the rows at this place along axis 0. ValueError where the data lie in a
        file that may not be opened.
        """
        # with `fill` too, other files are looked at before HDF5 opens them
        if self._dataset.size == 0 or (fill and not self._is_elsewhere):
            return
        if self._is_elsewhere:
            if not self._holds(start, stop) and not fill:
                raise MissingChunkError(
                    missing_message(self._dataset, "what other files should hold")
                )
        elif not self.is_whole:
            self._require_chunks(start, stop, place)

    def require_all(self, *, fill: bool) -> None:
        """The same of all rows."""
        self.require(0, self._dataset.shape[self._axis] if self._dataset.shape else 1, fill=fill)

    @property
    def is_whole(self) -> bool:
        """Whether all of the dataset was written."""
        if self._is_whole is None:
            self._is_whole = self._look()
        return self._is_whole

    def _look(self) -> bool:
        dataset = self._dataset
        if dataset.size == 0:
            return True
        if self._is_elsewhere:
            return self._holds(0, dataset.shape[self._axis])
        if dataset.chunks is None:
            # HDF5 allocates contiguous data as a whole, when any of it is first written
            return bool(dataset.id.get_storage_size() > 0)
        self._table = table_of(dataset)
        if self._table is not None:
            return self._table.is_whole
        is_whole = bool(dataset.id.get_num_chunks() == math.prod(grid_of(dataset)))
        if (
            not is_whole
            and hasattr(dataset.id, "chunk_iter")
            and not dataset.id.get_create_plist().get_nfilters()
        ):
            _refuse_other_sizes(dataset)
        return is_whole

    def _holds(self, start: int, stop: int) -> bool:
        """Whether the other files that a dataset takes its data from hold all of these rows."""
        dataset = self._dataset
        if dataset.external:
            row = dataset.nbytes // dataset.shape[0]
            wanted = dataset.nbytes if self._axis else stop * row
            return bool(external_bytes(dataset, allow=self._allow) >= wanted)
        if self._map is None:
            self._map = VirtualMap(
                dataset, self._axis, allow=self._allow, is_whole=self._is_source_whole
            )
        return self._map.holds(start, stop)

    def _is_source_whole(self, source: Any) -> bool:
        self._step()
        return Presence(source, 0, allow=self._allow, step=self._step).is_whole

    def _require_chunks(self, start: int, stop: int, place: int | None) -> None:
        dataset, axis = self._dataset, self._axis
        if dataset.chunks is None:
            raise MissingChunkError(missing_message(dataset, "its data"))
        spans = [
            range(-(-size // chunk))
            for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
        ]
        # a damaged indptr may ask for far more than there is
        end = min(stop, dataset.shape[axis])
        spans[axis] = range(start // dataset.chunks[axis], -(-end // dataset.chunks[axis]))
        if place is not None:
            spans[0] = range(place // dataset.chunks[0], place // dataset.chunks[0] + 1)
        for coordinates in itertools.product(*spans):
            corner = tuple(
                coordinate * size
                for coordinate, size in zip(coordinates, dataset.chunks, strict=True)
            )
            if not (
                _is_stored(dataset, corner)
                if self._table is None
                else self._table.find(coordinates)
            ):
                raise MissingChunkError(missing_message(dataset, f"the chunk at {corner}"))


def missing_message(dataset: Any, what: str) -> str:
    """The error message for data that were never written."""
    return f"{what} of dataset {dataset.name} was never written, and HDF5 would read fill value {dataset.fillvalue!r}"


def _refuse_other_sizes(dataset: Any) -> None:
    """ReadError if an unfiltered chunk has another size than it must.

    HDF5 would write past a buffer.
    """
    expected = math.prod(dataset.chunks) * dataset.dtype.itemsize
    sizes = set[int]()
    dataset.id.chunk_iter(lambda info: sizes.add(info.size))
    if sizes - {expected}:
        raise ReadError(
            f"a chunk of dataset {dataset.name} has another size than its shape and dtype give: the file is damaged"
        )


def _is_stored(dataset: Any, corner: tuple[int, ...]) -> bool:
    """Whether a chunk was written, of a dataset whose chunks HDF5 lists in wrong places.

    It finds each to read it.
    """
    if not hasattr(dataset.id, "chunk_iter"):
        return dataset.id.get_chunk_info_by_coord(corner).byte_offset is not None
    try:
        dataset.id.read_direct_chunk(corner)
    except (OSError, RuntimeError, ValueError, MemoryError):
        # HDF5 may report any size for an absent chunk
        return False
    return True
