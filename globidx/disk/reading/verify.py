"""Checking data: which chunks are absent, or cannot be read.

It also tells in which arrays damage would go unnoticed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from globidx.core.index.table import SPARSE, ArrayInfo, Entry
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores
from globidx.disk.stores.base import Audit
from globidx.disk.stores.index_entries import parts_of

#: Rows that are read at once of an array without chunks.
_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class ArrayReport:
    """The result for one array of one file.

    The chunks that it should have, how many are absent, what could not be read and why, and whether its chunks carry
    checksums, without which a flipped bit may read as data. ``array`` is where it lies, ``field`` the array of the
    index that it is of, ``like`` the key of all that are alike: one for all groups that a pattern matches.
    """

    path: str
    array: str
    chunks: int
    absent: int
    unreadable: tuple[str, ...]
    has_checksums: bool
    field: str
    like: str


def check(
    indexed: Snapshot,
    *,
    decode: bool,
    executor: Executor | None,
    allow_external: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Iterator[list[ArrayReport]]:
    """Every array of every file of an index, file by file; with ``decode`` all data are read."""
    jobs = [(path, indexed.entry(file)) for file, path in enumerate(indexed.paths)]
    run = map if executor is None else executor.map
    access = {"allow_external": allow_external, "storage_options": storage_options}
    repeated = [[value] * len(jobs) for value in (decode, access)]
    return iter(run(_check_file, *zip(*jobs, strict=True), *repeated))


def _check_file(path: str, entry: Entry, decode: bool, access: dict[str, Any]) -> list[ArrayReport]:
    """Every array as a dataset reads it, so that what would be an error there is one here."""
    with ExitStack() as stack:
        try:
            opened = OpenFile(
                path, entry, on_missing="fill", backend="auto", forked=False, **access
            )
            stack.callback(opened.close)
            look = stack.enter_context(stores.auditor(path, entry.kind, **access))
        except stores.UNREADABLE as error:
            return [
                ArrayReport(path, info.path, 0, 0, (_describe(error),), False, info.name, info.path)
                for info in entry.arrays
            ]
        return [_check_array(path, look, one, decode) for one in _stored(opened, entry)]


@dataclass(frozen=True)
class _Stored:
    """One stored array: its field, where it lies, how it is chunked, and how its rows are read.

    Without an axis all of it is read at once.
    """

    field: str
    like: str
    path: str
    axis: int | None
    chunk_length: int
    places: int
    read: Callable[[int, int, int], object]


def _check_array(
    path: str, look: Callable[[str, int], Audit], one: _Stored, decode: bool
) -> ArrayReport:
    try:
        audit = look(one.path, one.axis or 0)
    except stores.UNREADABLE as error:
        problem = (_describe(error),)
        return ArrayReport(path, one.path, 0, 0, problem, False, one.field, one.like)
    problems = []
    rows = 1 if one.axis is None else audit.shape[one.axis]
    step, rows = one.chunk_length or _ROWS_AT_ONCE, rows if decode else 0
    for place in range(one.places):
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            try:
                one.read(place, start, stop)
            except stores.UNREADABLE as error:
                at = f"sequence {place}, " if one.places > 1 else ""
                problems.append(f"{at}rows [{start}, {stop}): {_describe(error)}")
    return ArrayReport(
        path,
        one.path,
        audit.chunks,
        audit.absent,
        tuple(problems),
        audit.has_checksums,
        one.field,
        one.like,
    )


def _stored(opened: OpenFile, entry: Entry) -> Iterator[_Stored]:
    """The stored arrays behind all arrays of a file, those of every match one by one."""
    episodes = entry.episodes
    matches = len(episodes) if episodes is not None and entry.inner.kind == "match" else 1
    for column, info in enumerate(entry.arrays):
        named = info.name, info.path
        if info.form in SPARSE or info.form == "ragged":
            for part in parts_of(info.path, info.form):
                yield _Stored(info.name, part, part, 0, 0, 1, partial(_read_part, opened, part))
        elif info.form == "whole":
            for number in range(matches):
                part = opened.path(column, number)
                yield _Stored(*named, part, None, 0, 1, partial(_read_all, opened, part))
        elif info.form == "stacked":
            places = 0 if episodes is None else len(episodes)
            read = partial(_read, opened, column, info)
            yield _Stored(*named, info.path, info.axis, info.chunk_length, places, read)
        elif episodes is not None and entry.inner.kind == "match":
            for number, chunk in enumerate(episodes.chunk_lengths[:, column].tolist()):
                read = partial(_read_match, opened, column, info, number)
                yield _Stored(*named, opened.path(column, number), info.axis, chunk, 1, read)
        else:
            read = partial(_read, opened, column, info)
            yield _Stored(*named, info.path, info.axis, info.chunk_length, 1, read)


def _read(
    opened: OpenFile, column: int, info: ArrayInfo, number: int, start: int, stop: int
) -> None:
    rows = np.empty((stop - start, *info.row_shape), info.memory)
    opened.source(column, number).read(start, stop, rows)


def _read_match(
    opened: OpenFile, column: int, info: ArrayInfo, number: int, _: int, start: int, stop: int
) -> None:
    _read(opened, column, info, number, start, stop)


def _read_part(opened: OpenFile, part: str, _: int, start: int, stop: int) -> None:
    opened.library().read(part, start, stop, axis=0)


def _read_all(opened: OpenFile, part: str, *rows: int) -> None:
    del rows  # an array of any shape, of which there is one
    opened.library().all(part)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
