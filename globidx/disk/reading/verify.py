"""Checking data: which chunks are absent, which cannot be read, and in which arrays damage would go unnoticed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np

from globidx.core.index.table import ArrayInfo, Entry
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores

#: Rows that are read at once of an array without chunks.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ArrayReport:
    """The result for one array of one file.

    The chunks that it should have, how many are absent, what could not be read and why, and whether its chunks carry
    checksums, without which a flipped bit may read as data.
    """

    path: str
    array: str
    chunks: int
    absent: int
    unreadable: tuple[str, ...]
    has_checksums: bool


def check(
    indexed: Snapshot,
    axis: int,
    *,
    decode: bool,
    executor: Executor | None,
    allow_external: bool = False,
) -> Iterator[list[ArrayReport]]:
    """Every array of every file of an index, file by file; with ``decode`` all data are read."""
    jobs = [(path, indexed.entry(file)) for file, path in enumerate(indexed.paths)]
    run = map if executor is None else executor.map
    repeated = [[value] * len(jobs) for value in (axis, decode, allow_external)]
    return iter(run(_check_file, *zip(*jobs, strict=True), *repeated))


def _check_file(path: str, entry: Entry, axis: int, decode: bool, allow: bool) -> list[ArrayReport]:
    """Every array as a dataset reads it, so that what would be an error there is one here."""
    try:
        opened = OpenFile(
            path, entry, axis, on_missing="fill", backend="auto", forked=False, allow_external=allow
        )
    except stores.UNREADABLE as error:
        return [
            ArrayReport(path, info.path, 0, 0, (_describe(error),), False) for info in entry.arrays
        ]
    try:
        return [
            _check_array(
                path, entry.kind, partial(_read, opened, column, part), part, axis, decode, allow
            )
            for column, info in enumerate(entry.arrays)
            for part in _parts(info)
        ]
    finally:
        opened.close()


def _check_array(
    path: str,
    kind: str,
    read: Callable[[int, int], object],
    info: ArrayInfo,
    axis: int,
    decode: bool,
    allow: bool,
) -> ArrayReport:
    try:
        audit = stores.audit(path, kind, info.path, allow_external=allow)
    except stores.UNREADABLE as error:
        return ArrayReport(path, info.path, 0, 0, (_describe(error),), False)
    problems = []
    step, rows = info.chunk_length or _ROWS_AT_ONCE, audit.shape[axis] if decode else 0
    for start in range(0, rows, step):
        try:
            read(start, min(start + step, rows))
        except stores.UNREADABLE as error:
            problems.append(f"rows [{start}, {min(start + step, rows)}): {_describe(error)}")
    return ArrayReport(
        path, info.path, audit.chunks, audit.absent, tuple(problems), audit.has_checksums
    )


def _read(opened: OpenFile, column: int, part: ArrayInfo, start: int, stop: int) -> None:
    if part.form == "part":
        opened.library().read(part.path, start, stop)
    else:
        opened.source(column).read(
            start, stop, np.empty((stop - start, *part.row_shape), part.dtype)
        )


def _parts(info: ArrayInfo) -> list[ArrayInfo]:
    """The stored arrays behind an array."""
    if info.form != "csr":
        return [info]
    return [
        ArrayInfo(info.name, (), info.dtype, 0, part, "part")
        for part in stores.parts_of(info.path, info.form)
    ]


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
