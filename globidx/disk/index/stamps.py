"""Stamps: the ``stat`` of the files that hold an index's metadata, for a million of them at once.

A stamp is (size, mtime_ns, ctime_ns, inode). One whose ctime is 0 proves nothing: the file was so
young when it was noted that it might change again without its times moving (timestamps tick), or
its data lie in other files too, which its mtime of -1 then says. Of an object by URL, the size is a
digest of its version.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.layout import Inner
from globidx.core.index.patterns import Pattern, matches
from globidx.core.index.table import KINDS, SINGLE, ArrayInfo, Entry, Stamp, Table
from globidx.disk.files.paths import Paths, subfolders
from globidx.disk.stores import base as stores
from globidx.disk.stores.index_entries import parts_of

#: A file that changed within so many nanoseconds might change again without its stamp moving.
SETTLED_NS = 2 * 10**9
_BLOCK = 16384
#: Sequences along an axis, of which the metadata of the arrays tell all.
_STACKED = Inner("axis")
_GONE = (-1, 0, 0, 0)
#: In place of a time of change: the data lie in files that have stamps of their own.
_ELSEWHERE = -1
#: Kinds of files that hold metadata, and lead to the data.
_LEADING = ("references", "parquet")


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file that was looked at."""
    # some file systems use all 64 bits
    inode = status.st_ino & 0x7FFF_FFFF_FFFF_FFFF
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode


def of_others(noted: Stamp) -> Stamp:
    """The stamp of a file that leads to data in others: it identifies the file, and says no more."""
    size, _, _, inode = noted
    return size, _ELSEWHERE, 0, inode


def tell(entry: Entry) -> bool:
    """Whether the stamps of a file differ where its data do, as far as these were not rewritten in place."""
    return entry.kind not in _LEADING and all(
        written != _ELSEWHERE for _, written, _, _ in entry.stamps
    )


def stamps_of(paths: Iterable[bytes]) -> NDArray[np.int64]:
    """Stamps of files, one row each: (-1, 0, 0, 0) of one that cannot be looked at."""
    stamps: list[int] = []
    for path in paths:
        try:
            stamps += stamp(os.stat(path))
        except (OSError, ValueError):
            stamps += _GONE
    return np.array(stamps, np.int64).reshape(-1, 4)


def without_racy_times(noted: Stamp, started: int, settled_ns: int = SETTLED_NS) -> Stamp:
    """A stamp that was taken at the time ``started`` (ns), without its times where it proves nothing.

    It proves something of a file whose last change was more than ``settled_ns`` before.
    """
    size, written, changed, inode = noted
    return (size, 0, 0, inode) if max(written, changed) >= started - settled_ns else noted


def noted_of(path: bytes, entry: Entry) -> list[Stamp]:
    """The stamps of the files whose metadata ``entry`` was read from.

    OSError where one is not there.

    A zarr store with sequences inside has one stamp for all files that tell where these are.
    """
    if entry.kind == "icechunk":
        return [stores.stamp_of_snapshot(os.fsdecode(path))]
    if _is_watched_as_one(entry.kind, entry.inner):
        return [_as_one(path, watched(path, entry))]
    return [stamp(os.stat(path + suffix)) for suffix in _suffixes(entry.kind, entry.arrays)]


def is_unchanged(path: str, entry: Entry) -> bool:
    """Whether a file is provably as it was when ``entry`` was made."""
    try:
        now = np.array(noted_of(os.fsencode(path), entry), np.int64)
    except (OSError, ValueError):
        return False
    # a single file has one stamp, whatever it holds
    noted = np.array(entry.stamps, np.int64).reshape(-1, 4)[: len(now)]
    return len(noted) == len(now) and bool(_are_same(now, noted).all())


def unchanged(
    table: Table, rows: NDArray[np.int64], paths: Paths, indices: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Whether each of ``rows`` is proved unchanged.

    Their files have the given ``indices`` in ``paths``.
    """
    answers = [np.zeros(0, bool)]
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        answers.append(_unchanged(table, rows[block], paths, indices[block]))
    return np.concatenate(answers)


def _unchanged(
    table: Table, rows: NDArray[np.int64], paths: Paths, indices: NDArray[np.int64]
) -> NDArray[np.bool_]:
    first = int(indices[0])
    # indices ascend
    near = paths.encoded(first, int(indices[-1]) + 1)
    selected = [near[index - first] for index in indices.tolist()]
    is_single = np.array([kind in SINGLE for kind in KINDS])
    width = len(table.arrays)
    noted = table.stamps[rows]
    counts = np.where(is_single[table.kinds[rows]], 1, width)
    # a single file has one stamp, whatever it holds
    noted = noted[np.arange(width) < counts[:, None]]
    watched_as_one = any(
        _is_watched_as_one(KINDS[kind], table.inner) for kind in set(table.kinds[rows].tolist())
    )
    if len(table.paths) or watched_as_one:
        entries = (table.entry(row) for row in rows.tolist())
        return np.array(
            [
                is_unchanged(os.fsdecode(path), entry)
                for path, entry in zip(selected, entries, strict=True)
            ],
            bool,
        )
    suffixes = [_suffixes(kind, table.arrays) for kind in KINDS]
    kinds = table.kinds[rows].tolist()
    files = [
        path + suffix
        for path, kind in zip(selected, kinds, strict=True)
        for suffix in suffixes[kind]
    ]
    same = _are_same(stamps_of(files), noted)
    return np.logical_and.reduceat(same, np.concatenate([[0], np.cumsum(counts)[:-1]]))


def _are_same(now: NDArray[np.int64], noted: NDArray[np.int64]) -> NDArray[np.bool_]:
    """For each stamp that was ``noted``: whether it proves something, and is what it was."""
    same: NDArray[np.bool_] = (now == noted).all(axis=1) & (noted[:, 2] != 0)
    return same


def _suffixes(kind: str, arrays: Sequence[ArrayInfo]) -> list[bytes]:
    if kind in SINGLE:
        return [b"/.zmetadata" if kind == "parquet" else b""]
    marker = ".zarray" if kind == "zarr2" else "zarr.json"
    return [os.fsencode(_watched_of(info, marker)) for info in arrays]


def _watched_of(info: ArrayInfo, marker: str) -> str:
    """The file whose stamp tells that an array grew."""
    # of several arrays behind one, the first tells how many rows there are
    folder = parts_of(info.path, info.form)[0]
    if info.form == "csc":
        # but of these the attributes of the group alone do
        folder, marker = info.path, ".zattrs" if marker == ".zarray" else marker
    return f"/{folder}/{marker}" if folder else f"/{marker}"


def _is_watched_as_one(kind: str, inner: Inner) -> bool:
    # of a snapshot no file has a stamp
    return kind == "icechunk" or (not inner.is_plain and kind not in SINGLE and inner != _STACKED)


def watched(path: bytes, entry: Entry) -> Iterator[bytes]:
    """All files and folders of a zarr store from whose state the sequences inside it follow.

    Of the groups that the keys match all are, those without arrays too: a writer may add these later.
    """
    marker = ".zarray" if entry.kind == "zarr2" else "zarr.json"
    keys = [info.path for info in entry.arrays]
    inner = entry.inner
    names: list[str] = []
    if inner.kind == "match":
        patterns = [Pattern(key) for key in keys]
        store = os.fsdecode(path)
        names = sorted(
            set(matches(patterns[0], lambda group: subfolders(os.path.join(store, group))))
        )
        keys = [pattern.path(name) for name in names for pattern in patterns]
    for key in keys:
        yield os.path.join(path, os.fsencode(key), os.fsencode(marker))
    told = [key for key in (*inner.arrays, inner.only, inner.missing) if key is not None]
    for key in told:
        starred = Pattern(key)
        for one in [starred.path(name) for name in names] if starred.stars else [key]:
            # what these hold matters, too
            for folder, _, files in os.walk(os.path.join(path, os.fsencode(one))):
                yield folder
                yield from (os.path.join(folder, file) for file in sorted(files))


def _as_one(path: bytes, files: Iterable[bytes]) -> Stamp:
    """One stamp for many files: as young as the youngest of them.

    It has another size where any of them changed.
    """
    names = list(files)
    stamps = stamps_of(names)
    digest = hashlib.blake2b(stamps.tobytes(), digest_size=8)
    digest.update(b"\0".join(names))
    size = int.from_bytes(digest.digest(), "little") >> 1
    written, changed = stamps[:, 1:3].max(axis=0).tolist()
    return size, written, changed, os.stat(path).st_ino & 0x7FFF_FFFF_FFFF_FFFF
