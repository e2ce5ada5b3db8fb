"""Rows of a sparse matrix, stored by row as AnnData and scipy do, made dense one read at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.disk.stores.base import Store
from globidx.errors import ReadError


class SparseSource:
    """A compressed sparse row matrix in a group of an open file.

    The group has ``indptr``, ``indices`` and ``data``.
    """

    how = "made dense from sparse rows, which its library reads"

    def __init__(self, store: Callable[[], Store], group: str, fill: bool | None = None) -> None:
        self._store, self._group, self._fill = store, group, fill

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``; how many bytes of the three arrays that took.

        ReadError where they are no rows of a matrix of that width. Entries of one place add up, as
        in scipy.
        """
        store = self._store()
        ends = store.read(f"{self._group}/indptr", start, stop + 1, fill=self._fill)
        ends = ends.astype(np.int64)
        counts = np.diff(ends)
        first = int(ends[0])
        last = int(ends[-1])
        if first < 0 or (counts < 0).any():
            raise ReadError(
                f"indptr of {self._group!r} does not ascend in rows [{start}, {stop}): {ends[:8].tolist()}"
            )
        out[...] = 0
        if first == last:
            return int(ends.nbytes)
        columns = store.read(f"{self._group}/indices", first, last, fill=self._fill)
        values = store.read(f"{self._group}/data", first, last, fill=self._fill)
        if len(columns) != last - first or len(values) != last - first:
            raise ReadError(
                f"indptr of {self._group!r} ends at {last}, behind the end of indices or data"
            )
        if int(columns.min()) < 0 or int(columns.max()) >= out.shape[1]:
            raise ReadError(
                f"indices of {self._group!r} lie outside [0, {out.shape[1]}) in rows [{start}, {stop})"
            )
        np.add.at(out, (np.repeat(np.arange(stop - start), counts), columns), values)
        return int(ends.nbytes + columns.nbytes + values.nbytes)
