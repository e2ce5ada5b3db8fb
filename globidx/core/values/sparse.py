"""Rows of sparse matrices: made dense, put into their usual form, or sorted out of columns."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Entries(NamedTuple):
    """The entries of some rows, row by row: how many each row has, their columns and values.

    >>> rows = Entries(np.array([2, 0, 1]), np.array([0, 3, 1]), np.array([5, 6, 7]))
    >>> [row.values.tolist() for row in rows.split(4)]
    [[5, 6], [], [7]]
    """

    counts: NDArray[np.int64]
    columns: NDArray[np.int64]
    values: NDArray[Any]

    def split(self, width: int) -> list[Row]:
        """The rows one by one, of so many columns, as views."""
        ends = np.cumsum(self.counts)
        bounds = zip((ends - self.counts).tolist(), ends.tolist(), strict=True)
        return [
            Row(self.columns[start:stop], self.values[start:stop], width) for start, stop in bounds
        ]

    def places(self, width: int) -> NDArray[np.int64]:
        """Where each entry lies in a dense matrix of that ``width``, row after row."""
        rows = np.repeat(np.arange(len(self.counts)), self.counts)
        return rows * width + self.columns

    def fill(self, out: NDArray[Any]) -> None:
        """Fill ``out``, C-contiguous, with the rows made dense; entries of one place add up.

        >>> out = np.empty((2, 3))
        >>> Entries(np.array([3, 0]), np.array([2, 0, 2]), np.array([1.0, 4.0, 2.0])).fill(out)
        >>> out.tolist()
        [[4.0, 0.0, 3.0], [0.0, 0.0, 0.0]]
        """
        out[...] = 0
        flat, places = out.reshape(-1), self.places(out.shape[1])
        if _ascends(places):
            # ten times faster; added and not set, since -0.0 comes out as 0.0 then, as in scipy
            flat[places] += self.values
        else:
            np.add.at(flat, places, self.values)

    def canonical(self, width: int) -> Entries:
        """The same rows, columns ascending and each of them once, entries of one place added up.

        >>> rows = Entries(np.array([3]), np.array([2, 0, 2]), np.array([1, 4, 2]))
        >>> rows.canonical(3)
        Entries(counts=array([2]), columns=array([0, 2]), values=array([4, 3]))
        """
        places = self.places(width)
        if _ascends(places):
            return self
        distinct, where = np.unique(places, return_inverse=True)
        values = np.zeros(len(distinct), self.values.dtype)
        np.add.at(values, where, self.values)
        counts = np.bincount(distinct // width, minlength=len(self.counts))
        return Entries(counts, distinct % width, values)


class Row(NamedTuple):
    """The entries of one row of ``size`` columns: their columns and values."""

    columns: NDArray[np.int64]
    values: NDArray[Any]
    size: int

    @property
    def nbytes(self) -> int:
        """The bytes of both."""
        return self.columns.nbytes + self.values.nbytes

    def copy(self) -> Row:
        """The same row in memory of its own."""
        return Row(self.columns.copy(), self.values.copy(), self.size)


class Transpose:
    """Sorts the entries of a matrix by row that come by column: a counting sort, piece by piece.

    ``counts`` is how many entries each row has. Entries of a row keep the sequence in which they
    come. All lie in ``block``, a single piece of memory of ``nbytes``: where rows end (int64), the
    columns in as few bytes as hold them, and the values.

    >>> matrix = Transpose(np.array([2, 1]), 3, np.dtype("f4"))
    >>> matrix.put(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([5, 6, 7]))
    >>> matrix.rows.entries(0, 2)
    Entries(counts=array([2, 1]), columns=array([0, 1, 1]), values=array([5., 6., 7.], dtype=float32))
    """

    def __init__(self, counts: NDArray[np.int64], width: int, dtype: np.dtype[Any]) -> None:
        total = int(counts.sum())
        self.block = np.empty(transposed_bytes(len(counts), width, total, dtype), np.uint8)
        self.rows = Transposed.within(self.block, len(counts), width, total, dtype)
        self.rows.ends[0] = 0
        np.cumsum(counts, out=self.rows.ends[1:])
        self._next = self.rows.ends[:-1].copy()

    def put(self, columns: NDArray[Any], rows: NDArray[Any], values: NDArray[Any]) -> None:
        """Take some entries, of these columns and rows."""
        order = np.argsort(rows, kind="stable")
        ordered = rows[order].astype(np.int64, copy=False)
        counts = np.bincount(ordered, minlength=len(self._next))
        firsts = np.cumsum(counts) - counts
        places = self._next[ordered] + np.arange(len(ordered)) - firsts[ordered]
        self.rows.columns[places] = columns[order]
        self.rows.values[places] = values[order]
        self._next += counts


class Transposed(NamedTuple):
    """A matrix by row in memory: where its rows end, and the columns and values of its entries."""

    ends: NDArray[np.int64]
    columns: NDArray[Any]
    values: NDArray[Any]

    @classmethod
    def within(
        cls, block: NDArray[np.uint8], rows: int, width: int, total: int, dtype: np.dtype[Any]
    ) -> Transposed:
        """The matrix that lies in ``block``, as ``Transpose`` made it."""
        values = 8 * (rows + 1)
        columns = values + total * dtype.itemsize
        return cls(
            block[:values].view(np.int64),
            block[columns:].view(_column_dtype(width)),
            block[values:columns].view(dtype),
        )

    def entries(self, start: int, stop: int) -> Entries:
        """The entries of rows ``[start, stop)``; values are views."""
        first, last = int(self.ends[start]), int(self.ends[stop])
        return Entries(
            np.diff(self.ends[start : stop + 1]),
            self.columns[first:last].astype(np.int64),
            self.values[first:last],
        )


def transposed_bytes(rows: int, width: int, total: int, dtype: np.dtype[Any]) -> int:
    """The memory of a matrix of ``total`` entries that was sorted by row.

    >>> transposed_bytes(1000, 30000, 10**6, np.dtype("f4"))
    6008008
    """
    return 8 * (rows + 1) + total * (dtype.itemsize + _column_dtype(width).itemsize)


def _column_dtype(width: int) -> np.dtype[Any]:
    return np.dtype(np.uint16 if width <= 2**16 else np.uint32 if width <= 2**32 else np.int64)


def _ascends(places: NDArray[np.int64]) -> bool:
    """Whether entries are sorted and no two have one place."""
    return bool((places[1:] > places[:-1]).all())
