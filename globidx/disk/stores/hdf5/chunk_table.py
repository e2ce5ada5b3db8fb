"""Chunk tables: the offset of each chunk of an HDF5 dataset in its file.

The library lists them once.

HDF5's queries for one chunk walk over all chunks in front of it, under a lock. ``H5Dchunk_iter``
visits every chunk in one walk, so a table costs about two microseconds a chunk, and finding a chunk
in it a few array accesses.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter, mul
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.disk.files.blocks import BlockCache
from globidx.disk.index.stamps import SETTLED_NS
from globidx.disk.stores.hdf5.ranges import range_file_of
from globidx.errors import ReadError

Place = tuple[int, int, int]

#: Bytes of tables that a process keeps of files it has closed: some 1.6 million chunks.
_KEPT_BYTES = 32 * 2**20
#: The chunks that are collected from the library before they are packed into arrays.
_AT_ONCE = 4096
#: Since this version, HDF5 counts the user block in when it gives the address of a chunk.
_COUNTS_USER_BLOCK = (1, 14, 4)

# forked workers have what their parent has listed, in the same memory
_kept = BlockCache(_KEPT_BYTES, inherited=True)


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """Offset, size and filter mask of the chunks of one dataset.

    ``rows`` has a row for each chunk in the file, ascending by grid number: (grid number, offset,
    size, filter mask). ``grid`` is how many chunks belong along each axis; chunks are numbered
    through it in C order.

    >>> table = ChunkTable((2, 2), np.array([[0, 2048, 24, 0], [3, 2072, 25, 0]]))
    >>> table.find((1, 1)), table.find((0, 1)), table.is_whole
    ((2072, 25, 0), None, False)
    """

    grid: tuple[int, ...]
    rows: NDArray[np.int64]

    @cached_property
    def _strides(self) -> tuple[int, ...]:
        return tuple(math.prod(self.grid[axis + 1 :]) for axis in range(len(self.grid)))

    @cached_property
    def _columns(self) -> tuple[NDArray[np.int64], ...]:
        return tuple(self.rows.T)

    @property
    def is_whole(self) -> bool:
        """Whether every chunk of the grid is in the file."""
        return len(self.rows) == math.prod(self.grid)

    def places(self, axis: int) -> NDArray[np.int64]:
        """Where along ``axis`` of the grid each chunk is."""
        return np.unravel_index(self._columns[0], self.grid)[axis]

    def find(self, coordinates: Sequence[int]) -> Place | None:
        """Offset, size and filter mask of the chunk at ``coordinates`` in the grid.

        None if it was never written.
        """
        index = sum(map(mul, coordinates, self._strides))
        indices, offsets, sizes, masks = self._columns
        # in a whole table, a chunk's number is its row
        row = index
        if row >= len(indices) or indices[row] != index:
            row = int(indices.searchsorted(index))
            if row == len(indices) or indices[row] != index:
                return None
        return int(offsets[row]), int(sizes[row]), int(masks[row])


def table_of(dataset: Any, *, settled_ns: int = SETTLED_NS) -> ChunkTable | None:
    """The table of a chunked dataset, kept for the next time the file is opened.

    Parameters
    ----------
    dataset : h5py.Dataset
        A dataset with chunks, of a file on a disk.
    settled_ns : int
        The table is kept of a file whose last change is longer ago than this.

    Returns
    -------
    ChunkTable or None
        None if the library cannot list the offsets, or lists wrong ones.

    Raises
    ------
    ReadError
        Two chunks claim the same place: the file is damaged.
    """
    grid = grid_of(dataset)
    if math.prod(grid) > np.iinfo(np.int64).max:
        return None
    key, is_settled = _identity(dataset, settled_ns)
    # a file that was written just now may change again within a tick of its clock
    rows = _kept.get(key) if is_settled else None
    if rows is None:
        rows = _listed(dataset, grid)
        if rows is None:
            return None
        if is_settled:
            _kept.put(key, rows)
    return ChunkTable(grid, rows)


def grid_of(dataset: Any) -> tuple[int, ...]:
    """How many chunks belong along each axis of a chunked dataset."""
    return tuple(
        -(-size // chunk) for size, chunk in zip(dataset.shape, dataset.chunks, strict=True)
    )


def _identity(dataset: Any, settled_ns: int) -> tuple[tuple[object, ...], bool]:
    """A key that identifies a dataset, and whether the times of its file prove it.

    They do if the file is old enough.
    """
    file = h5py.h5i.get_file_id(dataset.id)
    if file.get_access_plist().get_driver() != h5py.h5fd.SEC2:
        # it has no descriptor to ask
        ranged = range_file_of(file)
        if ranged is None:
            return (), False
        # nothing proves of an object without a version that it is the one that was listed
        is_proven = bool(ranged.version)
        return (ranged.identity, h5py.h5i.get_name(dataset.id), dataset.shape), is_proven
    # by descriptor, since the path may be that of another file by now
    status = os.fstat(file.get_vfd_handle())
    stamp = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
    is_settled = max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - settled_ns
    # the shape, too: HDF5 may have read it before the file got this stamp
    return (*stamp, h5py.h5i.get_name(dataset.id), dataset.shape), is_settled


def _listed(dataset: Any, grid: tuple[int, ...]) -> NDArray[np.int64] | None:
    """The rows of the table, as the library lists chunks."""
    if not hasattr(dataset.id, "chunk_iter"):
        # built against an HDF5 before 1.12.3
        return None
    parts: list[NDArray[np.int64]] = []
    infos: list[Any] = []

    def note(info: Any) -> None:
        infos.append(info)
        if len(infos) == _AT_ONCE:
            parts.append(_packed(infos))
            infos.clear()

    dataset.id.chunk_iter(note)
    if infos:
        parts.append(_packed(infos))
    rank = len(grid)
    listed = np.concatenate(parts) if parts else np.empty((0, rank + 3), np.int64)
    coordinates, columns = listed[:, :rank] // np.array(dataset.chunks), listed[:, rank:]
    if _is_doubtful(dataset, coordinates):
        return None
    # chunks beyond the dataset's shape belong to no item
    inside = ((coordinates >= 0) & (coordinates < np.array(grid))).all(axis=1)
    coordinates, columns = coordinates[inside], columns[inside]
    columns[:, 0] += _uncounted_base(dataset)
    indices = (
        np.ravel_multi_index(tuple(coordinates.T), grid)
        if len(coordinates)
        else np.empty(0, np.int64)
    )
    rows = np.column_stack((indices, columns)).astype(np.int64)
    if (np.diff(indices) <= 0).any():
        rows = rows[np.argsort(indices, kind="stable")]
        if (np.diff(rows[:, 0]) == 0).any():
            raise ReadError(
                f"two chunks of dataset {dataset.name} are in one place: the file is damaged"
            )
    # columns lie in one piece each
    return np.asfortranarray(rows)


def _packed(infos: list[Any]) -> NDArray[np.int64]:
    """A row for each chunk: its coordinates, offset, size, filter mask."""
    count = len(infos)
    offsets, masks, addresses, sizes = (map(itemgetter(column), infos) for column in range(4))
    coordinates = np.fromiter(chain.from_iterable(offsets), np.uint64)
    rest = [np.fromiter(column, np.uint64, count) for column in (addresses, sizes, masks)]
    return np.column_stack((coordinates.reshape(count, -1), *rest)).view(np.int64)


def _is_doubtful(dataset: Any, coordinates: NDArray[np.int64]) -> bool:
    """Whether the library may have listed chunks in wrong places.

    HDF5 (to 2.0 at least) lists the chunks of an *extensible array*, the index of datasets with one
    unlimited axis in files of ``libver="latest"``, as if that axis were the first. Where it is not,
    all chunks are listed with place 0 along the axes in front of it. A right list has other places
    there, unless there is one chunk only.
    """
    unlimited = [axis for axis, size in enumerate(dataset.maxshape) if size is None]
    if len(unlimited) != 1:
        return False
    front = range(unlimited[0])
    is_flat = all(dataset.maxshape[axis] <= dataset.chunks[axis] for axis in front)
    # object headers of version 1 come from before there were such arrays
    if is_flat or h5py.h5o.get_info(dataset.id).hdr.version == 1:
        return False
    return not coordinates[:, : unlimited[0]].any()


def _uncounted_base(dataset: Any) -> int:
    """What is missing from the library's addresses of chunks: the user block, in older versions."""
    if h5py.version.hdf5_version_tuple >= _COUNTS_USER_BLOCK:
        return 0
    return int(h5py.h5i.get_file_id(dataset.id).get_create_plist().get_userblock())
