"""The index: the bijection between sample ids and (file, item) pairs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate


class Location(NamedTuple):
    """Where a sample is.

    Parameters
    ----------
    path : str
        The path of its file.
    item : int
        Its index in that file.

    Examples
    --------
    >>> path, item = Location("run/a.zarr", 7)
    >>> path, item
    ('run/a.zarr', 7)
    """

    path: str
    item: int


class GlobalIndex:
    """Sample ids of files of given lengths: an immutable value that opens no file.

    Sample ids run over the files in their order, and over the items of a file.

    Parameters
    ----------
    lengths : iterable of int
        The number of items of each file. Zero is allowed.

    Raises
    ------
    ValueError
        If a length is negative.
    OverflowError
        If all files together hold more than 2**63 - 1 items.

    Examples
    --------
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
        """Make an index without a copy of ``lengths``.

        Parameters
        ----------
        lengths : numpy.ndarray
            The number of items of each file, int64. It becomes read-only.

        Returns
        -------
        GlobalIndex
            The index over that array.
        """
        index = cls.__new__(cls)
        index._set(_lengths(lengths).view())
        return index

    def _set(self, counts: NDArray[np.int64]) -> None:
        offsets = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=offsets[1:])
        counts.flags.writeable = offsets.flags.writeable = False
        self.lengths = counts
        self._offsets = offsets
        # As unsigned numbers, negative ids are beyond the last file.
        self._ends = offsets[1:].view(np.uint64)
        # From a memoryview, bisect reads Python ints several times faster than from an array.
        self._starts = offsets.data

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def num_files(self) -> int:
        """The number of files, empty ones included."""
        return len(self.lengths)

    @property
    def offsets(self) -> NDArray[np.int64]:
        """The first sample id of each file, and the total at the end.

        int64, ``num_files + 1`` long, read-only.
        """
        return self._offsets

    def locate(self, sample_id: int) -> tuple[int, int]:
        """Return where one sample is.

        Parameters
        ----------
        sample_id : int
            A sample id in ``[0, len)``. IndexError for any other, negative ones included.

        Returns
        -------
        file : int
            The index of its file.
        item : int
            The index of the item in the file.
        """
        starts = self._starts
        id = validate.sample_id(sample_id, starts[-1])
        # The last file that starts at or before the id, so that empty files are passed over.
        file = bisect_right(starts, id) - 1
        return file, id - starts[file]

    def locate_many(self, sample_ids: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return where many samples are.

        Parameters
        ----------
        sample_ids : array_like of int
            One-dimensional, each in ``[0, len)``.

        Returns
        -------
        files, items : numpy.ndarray
            Two int64 arrays, as long as ``sample_ids``.

        Raises
        ------
        IndexError
            If an id is outside ``[0, len)``.
        """
        ids = validate.int64s(sample_ids, "sample id")
        files = self._ends.searchsorted(ids.view(np.uint64), "right")
        try:
            return files, ids - self._offsets[:-1].take(files)
        except IndexError:
            # `take` has found a file that is none: ids are checked only where one is wrong
            raise validate.outside(ids, "sample id", len(self)) from None

    def sample_id(self, file: int, item: int) -> int:
        """Return the id of an item: the inverse of ``locate``.

        Parameters
        ----------
        file : int
            The index of its file.
        item : int
            The index of the item in the file.

        Returns
        -------
        int
            The sample id.

        Raises
        ------
        IndexError
            If there is no such file, or no such item in it.
        """
        # wide bounds, so that what does not fit is an IndexError, as for any sequence
        row = validate.integer(file, "file index", low=-(2**64), high=2**64)
        if not 0 <= row < self.num_files:
            raise IndexError(f"file index {row} is outside [0, {self.num_files})")
        offset = validate.integer(item, "item", low=-(2**64), high=2**64)
        if not 0 <= offset < self.lengths[row]:
            raise IndexError(
                f"item {offset} is outside [0, {self.lengths[row]}), the items of file {row}"
            )
        return self._starts[row] + offset

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GlobalIndex) and np.array_equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        # equal lengths are an equal index, wherever the arrays came from
        return hash(self.lengths.tobytes())

    def __reduce__(self) -> tuple[type[GlobalIndex], tuple[NDArray[np.int64]]]:
        return GlobalIndex, (np.asarray(self.lengths),)

    def __repr__(self) -> str:
        return f"GlobalIndex({len(self)} samples in {self.num_files} files)"


def _lengths(lengths: Iterable[Any] | NDArray[Any]) -> NDArray[Any]:
    """Return ``lengths`` as an array whose sum fits int64: numpy's own sum would wrap silently."""
    if not (isinstance(lengths, np.ndarray) and lengths.dtype.kind in "iu" and lengths.ndim == 1):
        lengths = np.array([validate.integer(length, "length") for length in lengths], np.int64)
    if len(lengths) and int(lengths.min()) < 0:
        raise ValueError(f"length must be in [0, {validate.INT64_MAX}], got {int(lengths.min())}")
    total = (
        sum(lengths.tolist())
        if len(lengths) and int(lengths.max()) > validate.INT64_MAX // len(lengths)
        else 0
    )
    if total > validate.INT64_MAX:
        raise OverflowError(
            f"{len(lengths)} files hold {total} samples together, but sample ids end at 2**63 - 1"
        )
    return lengths
