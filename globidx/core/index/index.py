"""The index: which sample id lives in which file, at which item."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate


class Location(NamedTuple):
    """Where a sample is: the file's path, and the item inside it."""

    path: str
    item: int


class GlobalIndex:
    """Items of files of the given lengths, numbered through: a frozen value, no files behind it.

    ``lengths`` are item counts, one a file, zero allowed. Sample ids run over the files in order.

    >>> index = GlobalIndex([3, 0, 2])
    >>> len(index), index.num_files
    (5, 3)
    >>> [index.locate(id) for id in range(5)]
    [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]
    >>> index.locate_many([4, 0])
    (array([2, 0]), array([1, 0]))
    >>> index.sample_id(2, 1)
    4
    """

    __slots__ = ("_ends", "_offsets", "_starts", "lengths")

    #: Item count of each file, int64, read-only.
    lengths: NDArray[np.int64]

    def __init__(self, lengths: Iterable[Any] | NDArray[Any]) -> None:
        self._set(_lengths(lengths).astype(np.int64))

    @classmethod
    def sharing(cls, lengths: NDArray[np.int64]) -> GlobalIndex:
        """The index over ``lengths`` without a copy of it: nobody may change it afterwards."""
        index = cls.__new__(cls)
        index._set(_lengths(lengths).view())
        return index

    def _set(self, counts: NDArray[np.int64]) -> None:
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        counts.flags.writeable = offsets.flags.writeable = False
        self.lengths = counts
        self._offsets = offsets
        self._ends = offsets[1:].view(np.uint64)  # where a negative id is a huge one, and so beyond the last file
        self._starts = offsets.data  # bisect reads Python ints from it, several times faster than from an array

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def num_files(self) -> int:
        """How many files there are, empty ones included."""
        return len(self.lengths)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """First sample id of each file, and the total at the end: int64, ``num_files + 1`` long, read-only."""
        return self._offsets

    def locate(self, sample_id: int) -> tuple[int, int]:
        """File number and item of one sample id; IndexError outside ``[0, len)``, negative ids included."""
        starts = self._starts
        id = validate.sample_id(sample_id, starts[-1])
        file = bisect_right(starts, id) - 1  # the last file that starts at or before: skips empty ones
        return file, id - starts[file]

    def locate_many(self, sample_ids: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """File numbers and items of many sample ids: two int64 arrays as long as ``sample_ids``."""
        ids = validate.int64s(sample_ids, "sample id")
        files = self._ends.searchsorted(ids.view(np.uint64), "right")  # skips empty files
        try:
            return files, ids - self._offsets[:-1].take(files)
        except IndexError:  # an id is in no file
            raise validate.outside(ids, "sample id", len(self)) from None

    def sample_id(self, file: int, item: int) -> int:
        """The id of an item, the inverse of ``locate``; IndexError where the file has no such item."""
        number = validate.integer(file, "file number", low=-(2**64), high=2**64)
        if not 0 <= number < self.num_files:
            raise IndexError(f"file number {number} is outside [0, {self.num_files})")
        place = validate.integer(item, "item", low=-(2**64), high=2**64)
        if not 0 <= place < self.lengths[number]:
            raise IndexError(f"item {place} is outside [0, {self.lengths[number]}), the items of file {number}")
        return self._starts[number] + place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GlobalIndex) and np.array_equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        return hash(self.lengths.tobytes())

    def __reduce__(self) -> tuple[type[GlobalIndex], tuple[NDArray[np.int64]]]:
        return GlobalIndex, (np.asarray(self.lengths),)

    def __repr__(self) -> str:
        return f"GlobalIndex({len(self)} samples in {self.num_files} files)"


def _lengths(lengths: Iterable[Any] | NDArray[Any]) -> NDArray[Any]:
    """``lengths`` as an array, its sum proved to fit int64 (numpy would wrap silently)."""
    if not (isinstance(lengths, np.ndarray) and lengths.dtype.kind in "iu" and lengths.ndim == 1):
        lengths = np.array([validate.integer(length, "length") for length in lengths], np.int64)
    if len(lengths) and int(lengths.min()) < 0:
        raise ValueError(f"length must be in [0, {validate.INT64_MAX}], got {int(lengths.min())}")
    total = sum(lengths.tolist()) if len(lengths) and int(lengths.max()) > validate.INT64_MAX // len(lengths) else 0
    if total > validate.INT64_MAX:
        raise OverflowError(f"{len(lengths)} files hold {total} samples together; sample ids end at 2**63 - 1")
    return lengths
