"""Building the table.

Look at every file, or at those that changed since a cache was written, and refuse what does not fit.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from globidx.core.table import Entry, Stamp, describe, same_arrays
from globidx.disk import stores
from globidx.errors import BadFilesError

#: A file changed this recently might change again without its stamp moving (timestamps tick): its stamp proves nothing
#: yet.
RACY_NS = 2 * 10**9

_NO_STAMP: Stamp = (0, 0, 0, 0)


@dataclass(frozen=True)
class Failure:
    """A file that cannot be indexed, and why."""

    path: str
    reason: str


def examine(path: str, *, keys: Sequence[str] | None, axis: int) -> Entry | Failure:
    """What a file holds, with stamps, or why that cannot be said. Runs anywhere: in this process or an executor's."""
    started = time.time_ns()
    try:
        entry = stores.scan(Path(path), keys, axis)
        return replace(entry, stamps=_proven(_stamps(path, entry), started))
    except stores.UNREADABLE as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise  # it says nothing about the file
        return Failure(
            path, f"{error}" if isinstance(error, ValueError) and error.args else f"{type(error).__name__}: {error}"
        )


def unchanged(path: str, entry: Entry) -> bool:
    """Whether a file is provably as it was when ``entry`` was made."""
    if _NO_STAMP in entry.stamps[: _watched(entry)]:
        return False
    try:
        return _stamps(path, entry) == entry.stamps[: _watched(entry)]
    except OSError:
        return False


def complete(
    paths: Sequence[str],
    found: Sequence[Entry | None],
    *,
    keys: Sequence[str] | None,
    axis: int,
    executor: Executor | None,
) -> list[Entry | Failure]:
    """``found`` with its gaps filled by looking at those files."""
    todo = [path for path, entry in zip(paths, found, strict=True) if entry is None]
    look = partial(examine, keys=keys, axis=axis)
    fresh = (
        map(look, todo) if executor is None else executor.map(look, todo, chunksize=max(1, min(64, len(todo) // 16)))
    )
    return [next(fresh) if entry is None else entry for entry in found]


def refuse_bad(failures: Sequence[Failure]) -> None:
    """BadFilesError over all files that failed: the first ten are named in the message, every one in ``failures``."""
    if not failures:
        return
    shown = "".join(f"\n  {printable(failure.path)}: {failure.reason}" for failure in failures[:10])
    more = f"\n  and {len(failures) - 10} more" if len(failures) > 10 else ""
    count = "1 file" if len(failures) == 1 else f"{len(failures)} files"
    error = BadFilesError(f"{count} cannot be indexed; mend or remove them, or pass on_bad='skip':{shown}{more}")
    error.failures = tuple((failure.path, failure.reason) for failure in failures)
    raise error


def mismatches(paths: Sequence[str], entries: Sequence[Entry]) -> list[Failure]:
    """Files whose arrays differ from the first file's: they cannot stand in one index."""
    first, told = entries[0], f"in {printable(paths[0])} there is {describe(entries[0])}"
    return [
        Failure(path, f"it has {describe(entry)}, while {told}; give the files one item shape and dtype")
        for path, entry in zip(paths, entries, strict=True)
        if not same_arrays(first, entry)
    ]


def printable(path: str) -> str:
    """A path for messages: control characters and bytes that are no text come out escaped."""
    return path if path.isprintable() else ascii(path)


def _watched(entry: Entry) -> int:
    return 1 if entry.kind == "hdf5" else len(entry.arrays)


def _stamps(path: str, entry: Entry) -> tuple[Stamp, ...]:
    files = stores.metadata_files(Path(path), entry.kind, [info.path for info in entry.arrays])
    found = (os.stat(file) for file in files)
    return tuple((s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino) for s in found)


def _proven(stamps: tuple[Stamp, ...], now: int) -> tuple[Stamp, ...]:
    return tuple(s if max(s[1], s[2]) < now - RACY_NS else _NO_STAMP for s in stamps)
