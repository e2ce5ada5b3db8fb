"""Packed numbers: refused where one stored number means several values, decoded where that is wanted."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.values import dtypes
from globidx.core.values.dtypes import Dtype
from globidx.core.values.packing import PLAIN, Packing
from globidx.disk.index.scan import printable
from globidx.disk.index.snapshot import Snapshot

_log = logging.getLogger("globidx")


class ByPacking:
    """Decodes an array as the attributes of each file say.

    Values have the dtype that those of all files go into, so that samples are of one.
    """

    def __init__(self, column: int) -> None:
        self._column = column
        self._known: tuple[object, Dtype] | None = None

    @property
    def nothing(self) -> Any:
        """Padding is a value, and no stored number."""
        return 0 if self._known is None else self._known[1].nothing

    def dtype(self, now: Snapshot) -> Dtype:
        """The dtype of values; ValueError, naming a file, where they cannot be decoded."""
        known = self._known
        if known is None or known[0] is not now.look:
            known = self._known = now.look, _dtype_of_values(now, self._column)
        return known[1]

    def __call__(self, rows: NDArray[Any], files: NDArray[np.int64], now: Snapshot) -> NDArray[Any]:
        """The values of ``rows``, which are decoded file by file."""
        dtype = self.dtype(now)
        varies = len(now.table.packings) and len(rows)
        firsts = np.flatnonzero(np.diff(files, prepend=-1)).tolist() if varies else [0]
        if len(firsts) == 1:
            packing = self._packing(now, int(files[0]) if varies else 0)
            return _decoded(packing, rows, dtype)
        values = np.empty(rows.shape, dtype.memory)
        for first, last in zip(firsts, [*firsts[1:], len(rows)], strict=True):
            packing = self._packing(now, int(files[first]))
            values[first:last] = _decoded(packing, rows[first:last], dtype)
        return values

    def _packing(self, now: Snapshot, file: int) -> Packing:
        return Packing.parse(now.table.packing(file, self._column))


def _decoded(packing: Packing, rows: NDArray[Any], dtype: Dtype) -> NDArray[Any]:
    """The values of rows of one file, numbers or arrays of their own shapes."""
    if dtype.element is None:
        return packing.decode(rows).astype(dtype.memory, copy=False)
    values = np.empty(len(rows), object)
    for place, row in enumerate(rows):
        values[place] = packing.decode(row).astype(dtype.element.memory, copy=False)
    return values


def is_packed(now: Snapshot, column: int) -> bool:
    """Whether any file stores other numbers than values in an array, or marks some as missing."""
    return any(spelled for _, spelled in now.table.packings_of(column))


def require_alike(now: Snapshot, columns: Iterable[int]) -> None:
    """Refuse arrays in which one stored number means several values.

    Raises
    ------
    ValueError
        If two files pack one of these arrays in different ways. It names both.
    """
    if not len(now.table.packings):
        return
    for column in columns:
        (first, spelled), *others = now.table.packings_of(column)
        one = Packing.parse(spelled)
        for file, spelled in others:
            other = Packing.parse(spelled)
            if other.meaning != one.meaning:
                name, paths = now.table.arrays[column].name, now.paths
                raise ValueError(
                    f"{name or 'the array'} is packed by {_said(one)} in {printable(paths[first])}, and by "
                    f"{_said(other)} in {printable(paths[file])}: a stored number means another value in each; "
                    "read values with decode='cf', or other arrays alone with fields="
                )


def tell_packed(now: Snapshot, columns: Iterable[int]) -> None:
    """Log once which arrays are given as they are stored, though their numbers are not values."""
    for column in columns:
        info = now.table.arrays[column]
        packing = Packing.parse(info.packing)
        if not packing.problem and packing.meaning != PLAIN.meaning:
            _tell(info.name or "the array", str(packing))


@cache
def _tell(name: str, packing: str) -> None:
    """Say it once in a process, however often it is read."""
    _log.warning(
        "%s is packed by %s: samples are the stored numbers; decode='cf' gives their values, NaN where one is missing",
        name,
        packing,
    )


def _dtype_of_values(now: Snapshot, column: int) -> Dtype:
    info = now.table.arrays[column]
    stored = info.value.dtype.element or info.value.dtype
    if stored.kind != "number":
        raise ValueError(
            f"{info.name or 'the array'} holds {info.value.dtype.name}, and numbers alone are decoded by 'cf': give "
            "decode= by field, without it"
        )
    first: dict[str, int] = {}
    for file, spelled in now.table.packings_of(column):
        first.setdefault(Packing.outline(spelled), file)
    found = set()
    for spelled, file in first.items():
        try:
            found.add(Packing.parse(spelled).decoded(stored.memory))
        except ValueError as error:
            raise ValueError(
                f"{info.name or 'the array'} of {printable(now.paths[file])} cannot be decoded: {error}; leave it out "
                "of decode="
            ) from None
    name = np.result_type(*found).name
    return dtypes.parse(dtypes.ragged(name) if stored is info.value.dtype.element else name)


def _said(packing: Packing) -> str:
    return str(packing) or "nothing"
