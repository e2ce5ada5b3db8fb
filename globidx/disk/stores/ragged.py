"""Rows that are arrays of their own shapes: runs of one array, or all of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.patterns import Runs
from globidx.core.values import dtypes
from globidx.core.values.dtypes import Held
from globidx.disk.stores.base import Store
from globidx.errors import ReadError


class RunsSource:
    """Runs of rows of an array, which one or two others tell."""

    how = "runs of rows, which its library reads"

    def __init__(self, store: Callable[[], Store], runs: Runs, *, fill: bool | None = None) -> None:
        self._store, self._runs, self._fill = store, runs, fill

    def read(self, start: int, stop: int, out: NDArray[Any]) -> int:
        """Fill ``out`` with runs ``[start, stop)``, an array each; how many bytes that took."""
        store, array, tell = self._store(), self._runs.array, self._runs.tell
        begins, ends = self._checked(store, start, stop)
        nbytes = begins.nbytes * len(tell)
        for here, there in _stretches(begins, ends):
            low, high = int(begins[here:there].min()), int(ends[here:there].max())
            rows = store.read(array, low, high, axis=0, fill=self._fill)
            if len(rows) != high - low:
                raise ReadError(
                    f"array {array!r} ends before row {high}, to which {tell[0]!r} leads"
                )
            nbytes += rows.nbytes
            for place in range(here, there):
                # a copy, so that one kept run does not keep all of them in memory
                out[place] = rows[begins[place] - low : ends[place] - low].copy()
        return nbytes

    def lengths(self, start: int, stop: int) -> NDArray[np.int64]:
        """How many rows runs ``[start, stop)`` have; only what tells runs is read."""
        begins, ends = self._checked(self._store(), start, stop)
        return ends - begins

    def _checked(
        self, store: Store, start: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where runs begin and end; ReadError where one ends before it begins."""
        begins, ends = self._bounds(store, start, stop)
        if (begins < 0).any() or (ends < begins).any():
            raise ReadError(
                f"{' and '.join(map(repr, self._runs.tell))} tell no runs of rows in [{start}, {stop}): "
                f"they begin at {begins[:4].tolist()} and end at {ends[:4].tolist()}"
            )
        return begins, ends

    def _bounds(
        self, store: Store, start: int, stop: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where runs ``[start, stop)`` begin, and where they end."""
        tell, by = self._runs.tell, self._runs.by
        if by == "offsets":
            told = self._told(store, tell[0], start, stop + 1)
            return told[:-1], told[1:]
        if by == "ends":
            # the first run begins at row 0, of which no end tells
            told = self._told(store, tell[0], max(start - 1, 0), stop)
            told = told if start else np.concatenate([[0], told])
            return told[:-1], told[1:]
        begins, others = (self._told(store, path, start, stop) for path in tell)
        return begins, others if by == "stops" else begins + others

    def _told(self, store: Store, path: str, start: int, stop: int) -> NDArray[np.int64]:
        """Entries ``[start, stop)`` of an array that tells runs."""
        told = store.read(path, start, stop, axis=0, fill=self._fill)
        if len(told) != stop - start:
            raise ReadError(f"array {path!r} ends before entry {stop}")
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
