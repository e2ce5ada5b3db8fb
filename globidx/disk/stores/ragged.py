"""Rows that are arrays of their own shapes: runs of one array, or all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.values import dtypes
from globidx.core.values.dtypes import Held
from globidx.disk.stores.base import Store
from globidx.errors import ReadError


class RunsSource:
    """Runs of rows of an array, which one array of offsets tells, or two of starts and lengths."""

    how = "runs of rows, which its library reads"

    def __init__(
        self,
        store: Callable[[], Store],
        array: str,
        tell: tuple[str, ...],
        *,
        fill: bool | None = None,
    ) -> None:
        self._store, self._array, self._tell, self._fill = store, array, tell, fill

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with runs ``[start, stop)``, an array each; how many bytes that took."""
        store = self._store()
        first, *others = (self._told(store, path, start, stop) for path in self._tell)
        if others:
            begins, ends = first, first + others[0]
        else:
            begins, ends = first[:-1], first[1:]
        if (begins < 0).any() or (ends < begins).any():
            raise ReadError(
                f"{' and '.join(map(repr, self._tell))} tell no runs of rows in [{start}, {stop}): "
                f"they begin at {begins[:4].tolist()} and end at {ends[:4].tolist()}"
            )
        nbytes = first.nbytes * len(self._tell)
        for here, there in _stretches(begins, ends):
            low, high = int(begins[here:there].min()), int(ends[here:there].max())
            rows = store.read(self._array, low, high, axis=0, fill=self._fill)
            if len(rows) != high - low:
                raise ReadError(
                    f"array {self._array!r} ends before row {high}, to which {self._tell[0]!r} leads"
                )
            nbytes += rows.nbytes
            for place in range(here, there):
                # a copy, so that one kept run does not keep all of them in memory
                out[place] = rows[begins[place] - low : ends[place] - low].copy()
        return nbytes

    def _told(self, store: Store, path: str, start: int, stop: int) -> NDArray[np.int64]:
        more = len(self._tell) == 1
        told = store.read(path, start, stop + more, axis=0, fill=self._fill)
        if len(told) != stop - start + more:
            raise ReadError(f"array {path!r} ends before entry {stop + more}")
        return told.astype(np.int64)


def _stretches(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Which runs follow one another without a gap, and are read in one piece.

    >>> _stretches(np.array([0, 3, 9]), np.array([3, 5, 12]))
    [(0, 2), (2, 3)]
    """
    cuts = np.flatnonzero(begins[1:] != ends[:-1]) + 1
    return list(zip([0, *cuts.tolist()], [*cuts.tolist(), len(begins)], strict=True))


class LooseSource:
    """Rows whose shape the index leaves open: that of another file may be another one.

    ``source`` reads them where it knows their shape, else ``read(start, stop)`` does.
    """

    def __init__(
        self, source: Any, read: Callable[[int, int], NDArray[Any]], memory: np.dtype[Any]
    ) -> None:
        self._source, self._read, self._memory = source, read, memory
        self.how = f"{source.how}, an array each"

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with rows ``[start, stop)``, an array each; how many bytes that took."""
        shape = getattr(self._source, "row_shape", None)
        if shape is None:
            block = self._read(start, stop)
            rows = np.empty(block.shape, self._memory)
            dtypes.put(rows, block)
            nbytes = rows.nbytes
        else:
            rows = np.empty((stop - start, *shape), self._memory)
            nbytes = self._source.read(start, stop, rows)
        if len(rows) != stop - start:
            raise ReadError(f"it ends after {start + len(rows)} rows, before row {stop}")
        for place in range(len(rows)):
            out[place] = rows[place, ...]
        return int(nbytes)


class WholeSource:
    """All of an array as one row, its axis of rows first where it has one."""

    how = "all of an array at once, by its library"

    def __init__(
        self, store: Callable[[], Store], array: str, axis: int, *, fill: bool | None = None
    ) -> None:
        self._store, self._array, self._axis, self._fill = store, array, axis, fill

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out``, of one place, with the array; how many bytes that took."""
        del start, stop  # there is one row
        held = self._store().all(self._array, fill=self._fill)
        dtype = dtypes.parse(dtypes.spelled(held.dtype))
        if 0 < self._axis < held.ndim:
            held = np.moveaxis(held, self._axis, 0)
        values = np.empty(held.shape, dtype.memory)
        dtypes.put(values, held)
        out[0] = Held(values, dtype)
        return int(held.nbytes)
