"""Virtual maps: which datasets of which files stand behind the rows of a virtual HDF5 dataset, and whether they do.

HDF5 reads fill values, without a word, where a source is not there. The mappings are listed once; reading rows looks at
the sources of these rows alone, and each is looked at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np
from h5py import h5s
from numpy.typing import NDArray

from globidx.disk.stores.hdf5_elsewhere import VIRTUAL, followed, located

_ENDLESS = np.iinfo(np.int64).max


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

    def __init__(self, dataset: Any, axis: int, *, allow: bool, is_whole: Callable[[Any], bool]) -> None:
        self._axis, self._allow, self._is_whole = axis, allow, is_whole
        self._path, self._shape = dataset.file.filename, dataset.shape
        self._plist = plist = dataset.id.get_create_plist()
        boxes = [_box(plist.get_virtual_vspace(number)) for number in range(plist.get_virtual_count())]
        low = np.array([box[0] for box in boxes], np.int64).reshape(-1, len(self._shape))
        high = np.array([box[1] for box in boxes], np.int64).reshape(-1, len(self._shape))
        order = np.argsort(low[:, axis], kind="stable")
        self._numbers, self._low, self._high = order, low[order], high[order]
        self._is_box = np.array([box[2] for box in boxes], bool)[order]
        # an earlier mapping may reach beyond a later one
        self._reach = np.maximum.accumulate(self._high[:, axis])
        self._sources: dict[tuple[str, str], tuple[tuple[int, ...], bool] | None] = {}
        self._known: dict[int, bool] = {}

    def holds(self, start: int, stop: int) -> bool:
        """Whether datasets that are there, and whole, stand behind all of rows ``[start, stop)``.

        ValueError where one of these may not be opened.
        """
        axis = self._axis
        first = int(np.searchsorted(self._reach, start, "right"))
        last = int(np.searchsorted(self._low[:, axis], stop, "left"))
        near = first + np.flatnonzero(self._high[first:last, axis] > start)
        # every one of these is looked at, also where one is known to be missing: HDF5 will open all of them
        there = near[np.array([self._is_there(int(row)) for row in near], bool)]
        sizes = list(self._shape)
        sizes[axis] = stop - start
        return bool(self._points(there, start, stop) >= math.prod(sizes))

    def _points(self, rows: NDArray[np.int64], start: int, stop: int) -> int:
        """How many elements of rows ``[start, stop)`` these mappings fill."""
        axis = self._axis
        boxes, others = rows[self._is_box[rows]], rows[~self._is_box[rows]]
        sizes = self._high[boxes] - self._low[boxes]
        sizes[:, axis] = np.minimum(self._high[boxes, axis], stop) - np.maximum(self._low[boxes, axis], start)
        points = int(sizes.prod(axis=1).sum())
        corner, shape = [0] * len(self._shape), list(self._shape)
        corner[axis], shape[axis] = start, stop - start
        for row in others.tolist():
            space = self._plist.get_virtual_vspace(int(self._numbers[row])).copy()
            try:
                space.select_hyperslab(tuple(corner), tuple(shape), op=h5s.SELECT_AND)
            except (ValueError, RuntimeError, TypeError):
                # a mapping without an end, of which HDF5 tells no more
                return _ENDLESS
            points += space.get_select_npoints()
        return points

    def _is_there(self, row: int) -> bool:
        known = self._known.get(row)
        if known is None:
            number = int(self._numbers[row])
            name, path = self._plist.get_virtual_filename(number), self._plist.get_virtual_dsetname(number)
            known = self._known[row] = self._has_source(name, path, number)
        return known

    def _has_source(self, name: str, path: str, number: int) -> bool:
        """Whether the dataset behind a mapping is there, as large as it is taken to be, and whole."""
        if "%" in name or "%" in path:
            return True
        if (name, path) not in self._sources:
            self._sources[name, path] = self._looked_at(name, path)
        source = self._sources[name, path]
        if source is None:
            return False
        shape, is_whole = source
        return is_whole and _fits(
            shape, self._plist.get_virtual_srcspace(number), self._plist.get_virtual_vspace(number)
        )

    def _looked_at(self, name: str, path: str) -> tuple[tuple[int, ...], bool] | None:
        there: str | None = self._path
        if name != ".":
            there = located(name, self._path, VIRTUAL, allow=self._allow)
        if there is None:
            return None
        try:
            with h5py.File(there, "r") as file:
                followed(file, path, allow=self._allow)
                dataset = file[path]
                return dataset.shape, self._is_whole(dataset)
        except (OSError, KeyError):
            return None


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
    return len(last) == len(shape) and all(end < size for end, size in zip(last, shape, strict=True))
