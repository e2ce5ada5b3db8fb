"""Virtual maps: which datasets stand behind the rows of a virtual HDF5 dataset.

And in which files, and whether they are there.

HDF5 reads fill values, without a word, where a source is not there. The mappings are listed once;
reading rows looks at the sources of these rows alone, and each is looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import h5py
import numpy as np
from h5py import h5s
from numpy.typing import NDArray

from globidx.disk.stores.hdf5.external import VIRTUAL, follow_links, locate_file
from globidx.disk.stores.hdf5.ranges import RangeFile, place_of
from globidx.errors import ReadError

_ENDLESS = np.iinfo(np.int64).max
#: What makes a block of HDF5, whose last point counts, half-open.
_HALF_OPEN = np.array([[0], [1]])
#: Pieces of one mapping that are held against the others; of more, only the points are counted.
_MOST_BLOCKS = 2**16
#: Cells that overlapping mappings may cut their rows into.
_MOST_CELLS = 2**26


class VirtualMap:
    """The mappings of one virtual dataset of an open file, sorted along ``axis``.

    Parameters
    ----------
    dataset : h5py.Dataset
        A virtual dataset.
    axis : int
        The axis along which rows are asked for.
    allow : bool
        Whether sources may lie outside the folder of the file.
    is_whole : callable
        Says of an open dataset whether all of it was written.
    """

    def __init__(
        self, dataset: Any, axis: int, *, allow: bool, is_whole: Callable[[Any], bool]
    ) -> None:
        self._axis = axis
        self._allow = allow
        self._is_whole = is_whole
        self._path, self._shape = dataset.file.filename, dataset.shape
        self._plist = plist = dataset.id.get_create_plist()
        boxes = [
            _box(plist.get_virtual_vspace(index)) for index in range(plist.get_virtual_count())
        ]
        low = np.array([box[0] for box in boxes], np.int64).reshape(-1, len(self._shape))
        high = np.array([box[1] for box in boxes], np.int64).reshape(-1, len(self._shape))
        order = np.argsort(low[:, axis], kind="stable")
        self._numbers = order
        self._low = low[order]
        self._high = high[order]
        self._is_box = np.array([box[2] for box in boxes], bool)[order]
        # an earlier mapping may reach beyond a later one
        self._reach = np.maximum.accumulate(self._high[:, axis])
        self._sources: dict[tuple[str, str], tuple[tuple[int, ...], bool] | None] = {}
        self._known: dict[int, bool] = {}

    def holds(self, bounds: Sequence[tuple[int, int]]) -> bool:
        """Whether datasets that are there, and whole, stand behind all of a box, half-open.

        ValueError where one of these may not be opened.
        """
        axis = self._axis
        start, stop = bounds[axis]
        first = int(np.searchsorted(self._reach, start, "right"))
        last = int(np.searchsorted(self._low[:, axis], stop, "left"))
        near = first + np.flatnonzero(self._high[first:last, axis] > start)
        # every one of these is looked at, also where one is known to be missing: HDF5 will open all
        # of them
        present = near[np.array([self._is_there(int(row)) for row in near], bool)]
        corner, ends = np.array(bounds, np.int64).reshape(-1, 2).T
        wanted: int = math.prod((ends - corner).tolist())
        return self._points(present, corner, ends) >= wanted

    def _points(
        self, rows: NDArray[np.int64], corner: NDArray[np.int64], ends: NDArray[np.int64]
    ) -> int:
        """How many elements of a box these mappings fill, each counted once."""
        boxes, others = rows[self._is_box[rows]], rows[~self._is_box[rows]]
        low, high = np.maximum(self._low[boxes], corner), np.minimum(self._high[boxes], ends)
        blocks, uncut = [np.stack((low, high), axis=1)], 0
        start, shape = tuple(corner.tolist()), tuple((ends - corner).tolist())
        for row in others.tolist():
            space = self._plist.get_virtual_vspace(int(self._numbers[row])).copy()
            try:
                space.select_hyperslab(start, shape, op=h5s.SELECT_AND)
            except (ValueError, RuntimeError, TypeError):
                # an unlimited mapping, of which HDF5 reports no extent
                return _ENDLESS
            points = int(space.get_select_npoints())
            if points and space.get_select_hyper_nblocks() > _MOST_BLOCKS:
                uncut += points
            elif points:
                blocks.append(np.asarray(space.get_select_hyper_blocklist(), np.int64) + _HALF_OPEN)
        return uncut + count_covered(np.concatenate(blocks))

    def _is_there(self, row: int) -> bool:
        known = self._known.get(row)
        if known is None:
            mapping = int(self._numbers[row])
            name, path = (
                self._plist.get_virtual_filename(mapping),
                self._plist.get_virtual_dsetname(mapping),
            )
            known = self._known[row] = self._has_source(name, path, mapping)
        return known

    def _has_source(self, name: str, path: str, mapping: int) -> bool:
        """Whether the dataset behind a mapping is there, whole and as large as it is said to be."""
        if "%" in name or "%" in path:
            return True
        if (name, path) not in self._sources:
            self._sources[name, path] = self._looked_at(name, path)
        source = self._sources[name, path]
        if source is None:
            return False
        shape, is_whole = source
        return is_whole and _fits(
            shape,
            self._plist.get_virtual_srcspace(mapping),
            self._plist.get_virtual_vspace(mapping),
        )

    def _looked_at(self, name: str, path: str) -> tuple[tuple[int, ...], bool] | None:
        located: str | RangeFile | None = place_of(self._path)
        if name != ".":
            located = locate_file(name, self._path, VIRTUAL, allow=self._allow)
        if located is None:
            return None
        try:
            with h5py.File(located, "r") as file:
                follow_links(file, path, allow=self._allow)
                dataset = file[path]
                return dataset.shape, self._is_whole(dataset)
        except (OSError, KeyError):
            return None


def count_covered(boxes: NDArray[np.int64]) -> int:
    """How many points lie in any of these boxes, half-open: (box, low and high, axis).

    >>> count_covered(np.array([[[0, 0], [1, 8]], [[0, 0], [1, 8]], [[0, 4], [2, 8]]]))
    12
    """
    boxes = boxes[(boxes[:, 0] < boxes[:, 1]).all(axis=1)]
    if _are_apart(boxes):
        return int((boxes[:, 1] - boxes[:, 0]).prod(axis=1).sum())
    cuts = [np.unique(boxes[:, :, axis]) for axis in range(boxes.shape[2])]
    if math.prod(map(len, cuts)) > _MOST_CELLS:
        raise ReadError(
            "the mappings of a virtual dataset overlap in too many ways to compute what they leave out"
        )
    cells = np.zeros([len(cut) - 1 for cut in cuts], bool)
    ends = np.stack(
        [np.searchsorted(cut, boxes[:, :, axis]) for axis, cut in enumerate(cuts)], axis=2
    )
    for low, high in ends.tolist():
        cells[tuple(map(slice, low, high))] = True
    points: NDArray[np.int64] = cells.astype(np.int64)
    for cut in reversed(cuts):
        points = points @ np.diff(cut)
    return int(points)


def _are_apart(boxes: NDArray[np.int64]) -> bool:
    """Whether one axis alone shows that no two of the boxes share a point."""
    for axis in range(boxes.shape[2]):
        spans = boxes[np.argsort(boxes[:, 0, axis], kind="stable"), :, axis]
        if (spans[:-1, 1] <= spans[1:, 0]).all():
            return True
    return False


def _box(space: Any) -> tuple[list[int], list[int], bool]:
    """The least box around a selection, half-open, and whether that is all selected."""
    try:
        low, last = space.get_select_bounds()
        sizes = [end + 1 - begin for begin, end in zip(low, last, strict=True)]
        return list(low), [end + 1 for end in last], space.get_select_npoints() == math.prod(sizes)
    except (RuntimeError, ValueError):
        rank = space.get_simple_extent_ndims()
        return [0] * rank, [_ENDLESS] * rank, False


def _fits(shape: tuple[int, ...], taken: Any, mapped: Any) -> bool:
    """Whether a dataset is as large as what a virtual one takes of it."""
    try:
        if taken.get_select_type() == h5s.SEL_ALL:
            # HDF5 does not keep how much that was
            return bool(math.prod(shape) == mapped.get_select_npoints())
        _, last = taken.get_select_bounds()
    except RuntimeError:
        # all that there is, however much it becomes
        return True
    return len(last) == len(shape) and all(
        end < size for end, size in zip(last, shape, strict=True)
    )
