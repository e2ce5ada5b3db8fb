"""The table: what every file of an index holds, a million files in a few arrays, and the fingerprint over it."""

from __future__ import annotations

import hashlib
import json
import os.path
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

#: Kinds of files, told apart by where their metadata lies: in the file itself, or in ``.zarray`` or ``zarr.json`` of
#: each array.
KINDS = ("hdf5", "zarr2", "zarr3")
DIGEST_SIZE = 16

Stamp = tuple[int, int, int, int]


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a file.

    Its name in the index, the shape and dtype of an item, rows per chunk (0: not chunked), where it lies in the file
    ("" for a bare zarr array), and how rows make items: ``plain``, a row is an item; ``tokens``, ``item_shape[0]`` rows
    in a row are; ``csr``, a row is an item and is stored sparsely, as AnnData does.
    """

    name: str
    item_shape: tuple[int, ...]
    dtype: str
    chunk_length: int
    path: str
    form: str = "plain"

    @property
    def rows(self) -> int:
        """How many rows of the stored array make an item."""
        return self.item_shape[0] if self.form == "tokens" else 1


@dataclass(frozen=True)
class Entry:
    """One file: its kind, item count, arrays (aligned: all have ``length`` items), a digest of its metadata, and its
    stamps.

    A stamp is (size, mtime_ns, ctime_ns, inode) of a file that holds metadata: zeros where it does not prove that
    nothing changed.
    """

    kind: str
    length: int
    arrays: tuple[ArrayInfo, ...]
    digest: bytes
    stamps: tuple[Stamp, ...] = ()


class Names(Sequence[str]):
    """Many names in one block of bytes, so that a million of them cost their letters and no Python objects.

    Any file name fits: bytes that are no UTF-8 come back as Python's surrogate escapes.

    >>> names = Names.of(["a.zarr", "b.h5"])
    >>> names[1], len(names), names[:1]
    ('b.h5', 2, ['a.zarr'])
    """

    __slots__ = ("_blob", "_ends")

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self._blob, self._ends = blob, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        """The names, encoded; each ends in a NUL, which no file name contains."""
        encoded = [os.fsencode(name) + b"\0" for name in names]
        ends = np.cumsum(np.array([len(name) for name in encoded], np.int64))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [self[number] for number in range(*place.indices(len(self)))]
        number = range(len(self))[place]
        start = int(self._ends[number - 1]) if number else 0
        return os.fsdecode(self._blob[start : int(self._ends[number]) - 1].tobytes())

    def spelled(self, count: int) -> bytes:
        """The first ``count`` names as they are kept: each with its NUL."""
        return self._blob[: int(self._ends[count - 1]) if count else 0].tobytes()

    def arrays(self) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """The block and the end of each name in it: what ``Names(...)`` takes."""
        return self._blob, self._ends


@dataclass(frozen=True)
class Table:
    """All files of an index, in order: names relative to the deepest folder that holds all, and columns as long as
    there are files.

    Item shape and dtype of each array are the same in every file; what may differ is a column: ``lengths`` (int64),
    ``kinds`` (uint8, places in ``KINDS``), ``chunk_lengths`` (int64, files x arrays), ``digests`` (uint8, files x 16),
    ``stamps`` (int64, files x arrays x 4). ``paths`` (files x arrays names, file by file) is empty where every array
    lies at the same place in all files, which ``arrays`` then tells.
    """

    names: Names
    arrays: tuple[ArrayInfo, ...]
    axis: int
    lengths: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    chunk_lengths: NDArray[np.int64]
    digests: NDArray[np.uint8]
    stamps: NDArray[np.int64]
    paths: Names

    @classmethod
    def of(cls, names: Iterable[str], entries: Sequence[Entry], axis: int) -> Table:
        """The table of files whose entries agree in their arrays (``same_arrays``); there is at least one."""
        arrays = entries[0].arrays
        paths = [[info.path for info in entry.arrays] for entry in entries]
        alike = all(row == paths[0] for row in paths)
        stamps = np.zeros((len(entries), len(arrays), 4), np.int64)
        for row, entry in zip(stamps, entries, strict=True):
            row[: len(entry.stamps)] = entry.stamps
        return cls(
            names=Names.of(names),
            arrays=arrays,
            axis=axis,
            lengths=np.array([entry.length for entry in entries], np.int64),
            kinds=np.array([KINDS.index(entry.kind) for entry in entries], np.uint8),
            chunk_lengths=np.array([[info.chunk_length for info in entry.arrays] for entry in entries], np.int64),
            digests=np.frombuffer(b"".join(entry.digest for entry in entries), np.uint8).reshape(-1, DIGEST_SIZE),
            stamps=stamps,
            paths=Names.of(() if alike else (path for row in paths for path in row)),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def entry(self, number: int) -> Entry:
        """One file's row, as it was put in."""
        count = len(self.arrays)
        paths = self.paths[number * count : (number + 1) * count] or [info.path for info in self.arrays]
        arrays = (
            replace(info, chunk_length=length, path=path)
            for info, length, path in zip(self.arrays, self.chunk_lengths[number].tolist(), paths, strict=True)
        )
        return Entry(
            kind=KINDS[self.kinds[number]],
            length=int(self.lengths[number]),
            arrays=tuple(arrays),
            digest=self.digests[number].tobytes(),
            stamps=tuple((a, b, c, d) for a, b, c, d in self.stamps[number].tolist()),
        )

    def fingerprint(self, num_files: int | None = None) -> str:
        """Content identity of the first ``num_files`` files (all by default): names, item counts, item shapes and
        dtypes.

        Not their place, age or bytes: a dataset may move. Names count from the deepest folder that holds *those* files,
        so files appended elsewhere do not change what the first ones are called.
        """
        count = len(self) if num_files is None else num_files
        names = self.names.spelled(count)
        if count and common_folder([self.names[0], self.names[count - 1]]):
            some = self.names[:count]
            cut = common_folder(some)
            names = b"".join(os.fsencode(name[cut:]) + b"\0" for name in some)
        schema = [self.axis, [[info.name, list(info.item_shape), info.dtype] for info in self.arrays]]
        digest = hashlib.blake2b(b"globidx.index.1", digest_size=16)
        for part in (json.dumps(schema).encode(), self.lengths[:count].astype("<i8").tobytes(), names):
            digest.update(b"%d:" % len(part))  # so that no two lists of parts spell the same
            digest.update(part)
        return digest.hexdigest()


def common_folder(names: Sequence[str]) -> int:
    """How many leading characters of each name spell the deepest folder that holds all of them.

    >>> common_folder(["a/b/x.h5", "a/b/c/y.h5"])
    4
    """
    if not names:
        return 0
    shared = os.path.commonprefix([min(names), max(names)])  # what the extremes share, all share
    return shared.rfind("/") + 1


def same_arrays(one: Entry, other: Entry) -> bool:
    """Whether two files can stand in one index: the same arrays, item shapes and dtypes."""
    return _schema(one) == _schema(other)


def describe(entry: Entry) -> str:
    """An entry's arrays for messages: ``images of (128, 128) uint16, labels of () int64``."""
    return ", ".join(f"{name or 'array'} of {shape} {dtype}" for name, shape, dtype in _schema(entry))


def _schema(entry: Entry) -> list[tuple[str, tuple[int, ...], str]]:
    return [(info.name, info.item_shape, info.dtype) for info in entry.arrays]
