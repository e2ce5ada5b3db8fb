"""Absent chunks: how many of which array, in which files, and what it would mean to fill them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import cache
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import NamedTuple

from globidx.core.index.patterns import Pattern
from globidx.core.index.table import SPARSE, ArrayInfo, Entry
from globidx.disk.files.paths import is_remote
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.stores import base as stores
from globidx.disk.stores.base import Audit, Looking
from globidx.disk.stores.index_entries import parts_of

#: With fewer files, starting processes costs more than it saves.
_MANY = 10_000


@dataclass(frozen=True)
class AbsentChunks:
    """The chunks of one array that no file of an index holds.

    Parameters
    ----------
    array : str
        The name of the array in the index.
    chunks : int
        How many chunks are absent.
    of : int
        How many there should be.
    files : tuple of (str, int, int)
        Each file that lacks some: its path, how many are absent, and of how many.
    rows : int or None
        How many rows have data in absent chunks; None where that is not known.
    fills : tuple of str
        The fill values of the files that lack some.

    Examples
    --------
    >>> print(AbsentChunks("mask", 2, 9, (("/data/a.zarr", 2, 3),), 8, ("0",)))
    'mask' lacks 2 of 9 chunks in 1 file, which touch 8 rows; fill value 0
    """

    array: str
    chunks: int
    of: int
    files: tuple[tuple[str, int, int], ...]
    rows: int | None
    fills: tuple[str, ...]

    def __str__(self) -> str:
        files = f"{len(self.files)} file{'s' * (len(self.files) != 1)}"
        rows = "" if self.rows is None else f", which touch {self.rows} rows"
        fills = ", ".join(self.fills[:3]) + ", ..." * (len(self.fills) > 3)
        return (
            f"{self.array or 'the array'!r} lacks {self.chunks} of {self.of} chunks in {files}{rows}; "
            f"fill value {fills}"
        )


class Extent(NamedTuple):
    """What is absent of each array of an index with ``num_files`` files, ``looked_at`` of them.

    ``unknown`` has (path, reason) of files that could not be looked at. Time ran out where
    ``is_part``: there may be more.
    """

    arrays: tuple[AbsentChunks, ...]
    num_files: int
    looked_at: int
    unknown: tuple[tuple[str, str], ...]
    is_part: bool

    @property
    def lacking(self) -> list[AbsentChunks]:
        """The arrays of which chunks are absent."""
        return [one for one in self.arrays if one.chunks]


def choice(arrays: Iterable[str]) -> str:
    """The one line that has the absent chunks of these arrays read as fill values.

    >>> choice(["mask"]), choice([""])
    ('FileCacheDataset(..., on_missing={"mask": "fill"})', 'FileCacheDataset(..., on_missing="fill")')
    """
    # a bare array has no name
    chosen = dict.fromkeys(filter(None, arrays), "fill") or "fill"
    return f"FileCacheDataset(..., on_missing={json.dumps(chosen, ensure_ascii=False)})"


def extent(
    now: Snapshot,
    columns: Sequence[int],
    *,
    allow_external: bool = False,
    executor: Executor | None = None,
) -> Extent:
    """What is absent of the arrays of these columns, in all files."""
    run = map if executor is None or len(now.table) < _MANY else executor.map
    files = range(len(now.table))
    entries = (now.entry(file) for file in files)
    found = run(_look, now.paths, entries, repeat(list(columns)), repeat(allow_external))
    return _summed(now, columns, found)


def extent_within(
    seconds: float,
    now: Snapshot,
    columns: Sequence[int],
    *,
    first: int,
    allow_external: bool,
    clock: Callable[[], float],
) -> Extent:
    """The same, of as many files as can be looked at in so many seconds of the ``clock``.

    The file ``first`` is the first of them. Nothing is waited for: stores by URL are left out.
    """
    end = clock() + seconds

    def step() -> None:
        if clock() >= end:
            raise _LateError

    def found() -> Iterator[_Found]:
        for file in chain([first], (file for file in range(len(now.table)) if file != first)):
            path = now.paths[file]
            if is_remote(path):
                one = _Found(path, [], "by URL, where counting takes long")
            else:
                one = _look(path, now.entry(file), columns, allow_external, step)
            yield one
            if one.is_late:
                return

    return _summed(now, columns, found())


class _LateError(Exception):
    """The time is over."""


class _Found(NamedTuple):
    """What was found in one file: (column, audit) of stored arrays, and why that is not all."""

    path: str
    audits: list[tuple[int, Audit]]
    problem: str = ""
    is_late: bool = False


def _look(
    path: str,
    entry: Entry,
    columns: Sequence[int],
    allow_external: bool,
    step: Callable[[], None] = lambda: None,
) -> _Found:
    found = _Found(path, [])
    try:
        step()
        # names alone, since asking each chunk for its size takes many times longer
        looking = Looking(sizes=False, step=step)
        with stores.auditor(
            path, entry.kind, allow_external=allow_external, looking=looking
        ) as audit:
            # members of a compound array are fields, and it is looked at once
            look = cache(audit)
            for column in columns:
                for stored, axis in _stored(entry, entry.arrays[column]):
                    found.audits.append((column, look(stored, axis)))
    except _LateError:
        return found._replace(is_late=True)
    except (*stores.UNREADABLE, MemoryError) as error:
        return found._replace(problem=f"{type(error).__name__}: {error}")
    return found


def _stored(entry: Entry, info: ArrayInfo) -> Iterator[tuple[str, int]]:
    """Path and axis of the stored arrays behind an array of a file: those of all its matches."""
    if info.form in SPARSE:
        yield from ((part, 0) for part in parts_of(info.path, info.form))
    elif entry.episodes is not None and entry.inner.kind == "match":
        pattern = Pattern(info.path)
        for number in range(len(entry.episodes)):
            yield pattern.path(entry.episodes.name(number)), info.axis
    else:
        yield info.path, info.axis


def _summed(now: Snapshot, columns: Sequence[int], found: Iterable[_Found]) -> Extent:
    sums = {column: _Sum(now.table.arrays[column]) for column in columns}
    whole, unknown, is_part = 0, list[tuple[str, str]](), False
    for one in found:
        for column, pairs in groupby(one.audits, itemgetter(0)):
            sums[column].add(one.path, [audit for _, audit in pairs])
        if one.problem:
            unknown.append((one.path, one.problem))
        whole += not one.problem and not one.is_late
        is_part |= one.is_late
    arrays = tuple(one.result() for one in sums.values())
    return Extent(arrays, len(now.table), whole, tuple(unknown), is_part)


class _Sum:
    """Adds up the audits of one array."""

    def __init__(self, info: ArrayInfo) -> None:
        self._info = info
        self._of = 0
        self._files: list[tuple[str, int, int]] = []
        # rows of the parts of a sparse matrix, and of many places, are none of the index
        self._rows: int | None = 0 if info.form in ("plain", "tokens") else None
        self._fills: dict[str, None] = {}

    def add(self, path: str, audits: Sequence[Audit]) -> None:
        """Add those of one file."""
        of = sum(audit.chunks for audit in audits)
        self._of += of
        lacking = [audit for audit in audits if audit.absent]
        if not lacking:
            return
        self._files.append((path, sum(audit.absent for audit in lacking), of))
        rows = [self._rows, *(audit.rows for audit in lacking)]
        known = [count for count in rows if count is not None]
        self._rows = sum(known) if len(known) == len(rows) else None
        self._fills.update(dict.fromkeys(audit.fill for audit in lacking))

    def result(self) -> AbsentChunks:
        """What all of them lack."""
        chunks, files = sum(absent for _, absent, _ in self._files), tuple(self._files)
        fills = tuple(self._fills)
        return AbsentChunks(self._info.name, chunks, self._of, files, self._rows, fills)
