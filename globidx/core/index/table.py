"""The table: what every file of an index holds, and the fingerprint over it.

A million files are a few arrays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.index.categories import Categories
from globidx.core.index.chunking import Chunking
from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import PLAIN, Inner
from globidx.core.index.names import Names, common_folder
from globidx.core.values import dtypes
from globidx.core.values.dtypes import Member

#: Kinds of files, told apart by where their metadata lies: in the file itself, or in ``.zarray``
#: or ``zarr.json`` of each array.
#: Of references it lies in a JSON file or in ``.zmetadata``; an icechunk repository has snapshots.
KINDS = ("hdf5", "zarr2", "zarr3", "zip2", "zip3", "references", "parquet", "icechunk")
#: Those whose metadata lies in one file, which has one stamp, whatever it holds.
SINGLE = frozenset(KINDS) - {"zarr2", "zarr3"}
DIGEST_SIZE = 16
#: Forms of arrays that are sparse matrices: a group of three arrays each.
SPARSE = frozenset({"csr", "csc"})
#: How arrays of AnnData are stored, for messages.
STORED = {
    "csr": "stored sparse by row",
    "csc": "stored sparse by column",
    "codes": "stored as codes of categories",
}
#: The columns of a table that have one row a file.
PER_FILE = ("lengths", "kinds", "chunk_lengths", "digests", "stamps")

#: Of a column that no file differs in.
NO_NAMES = Names.of(())

Stamp = tuple[int, int, int, int]
Schema = tuple[str, tuple[int, ...], str, str, int, str]


@dataclass(frozen=True)
class ArrayInfo:
    """One array of a file.

    Parameters
    ----------
    name : str
        Its name in the index.
    item_shape : tuple of int
        The shape of an item.
    dtype : str
        The dtype of an item, as ``dtypes`` spells it.
    chunk_length : int
        Rows in a chunk, 0 if the array is not chunked.
    path : str
        Its path in the file, "" for a bare zarr array.
    form : {"plain", "tokens", "csr", "csc", "codes", "stacked"}
        What an item is: a row, ``item_shape[0]`` successive rows, a row of a matrix that is stored
        sparse by row or by column, the number of a category, or a row of one place along axis 0.
    packing : str
        How values are computed from what is stored, as ``Packing`` spells it; "" if they are stored
        themselves. Of a table whose files differ, that of the first file.
    axis : int
        The axis along which its rows lie.
    member : str
        The member of a compound dtype that is meant; "" for all of an item.

    Examples
    --------
    >>> ArrayInfo("images", (128, 128), "uint16", chunk_length=16, path="entry/data").item_bytes
    32768
    """

    name: str
    item_shape: tuple[int, ...]
    dtype: str
    chunk_length: int
    path: str
    form: str = "plain"
    packing: str = ""
    axis: int = 0
    member: str = ""

    @cached_property
    def memory(self) -> np.dtype[Any]:
        """How elements are kept in memory."""
        return dtypes.parse(self.dtype).memory

    @cached_property
    def is_simple(self) -> bool:
        """Whether elements are numbers or times, and neither objects nor made of members."""
        return self.memory.names is None and not self.memory.hasobject

    @property
    def member_path(self) -> tuple[str, ...]:
        """The names that lead to the member that is meant."""
        return dtypes.parse(self.dtype).path_to(self.member) or ()

    @property
    def value(self) -> Member:
        """What a sample gets of an item: a dtype, and a shape."""
        member = dtypes.parse(self.dtype).at(self.member_path)
        return Member(member.dtype, self.item_shape + member.shape)

    @property
    def rows(self) -> int:
        """The number of stored rows in an item."""
        return self.item_shape[0] if self.form == "tokens" else 1

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row as it is stored."""
        return self.item_shape[1:] if self.form == "tokens" else self.item_shape

    @property
    def row_bytes(self) -> int:
        """The bytes of a row in memory."""
        return prod(self.row_shape) * self.memory.itemsize

    @property
    def item_bytes(self) -> int:
        """The bytes of an item in memory."""
        return prod(self.item_shape) * self.memory.itemsize


@dataclass(frozen=True)
class Entry:
    """One file: its kind, its arrays of ``length`` items each, and what it is recognised by.

    That is a digest of its metadata, and its stamps.

    A stamp is (size, mtime_ns, ctime_ns, inode) of a file that holds metadata. It is all zeros if
    it cannot prove that nothing changed. The data of a *foreign* file lie in other files too, so
    that no stamp of its own proves anything. ``sources`` are those files and the dataset in each,
    "" for raw bytes. ``episodes`` are the sequences inside it, where the layout has such, found as
    ``inner`` says. ``categories`` are the names of codes or columns, as ``Categories`` takes them.
    """

    kind: str
    length: int
    arrays: tuple[ArrayInfo, ...]
    digest: bytes
    stamps: tuple[Stamp, ...] = ()
    is_foreign: bool = False
    sources: tuple[tuple[str, str], ...] = ()
    inner: Inner = PLAIN
    episodes: Episodes | None = None
    missing: Missing | None = None
    categories: tuple[str, ...] = ()

    def with_stamps(self, stamps: tuple[Stamp, ...]) -> Entry:
        """Return the same file with these stamps."""
        # all fields by hand: dataclasses.replace takes twice the time, for each file of a scan
        return Entry(
            self.kind,
            self.length,
            self.arrays,
            self.digest,
            stamps,
            self.is_foreign,
            self.sources,
            self.inner,
            self.episodes,
            self.missing,
            self.categories,
        )

    @property
    def schema(self) -> tuple[Schema, ...]:
        """What all files of an index must have in common.

        That is all of an array but its path, chunks and packing.
        """
        return _schema(self.arrays)


@dataclass(frozen=True)
class Table:
    """All files of an index: one row a file, in order.

    Names are relative to the deepest folder that holds all files. Item shape and dtype of each
    array are the same in every file; what may differ is a column: ``lengths`` (int64), ``kinds``
    (uint8, indices of ``KINDS``), ``chunk_lengths`` (int64, files x arrays), ``digests`` (uint8,
    files x 16), ``stamps`` (int64, files x arrays x 4). ``paths`` (files x arrays, file by file)
    is empty if every array has the same path in all files: ``arrays`` has it; and so are
    ``packings``. ``episodes`` are the sequences inside the files, and ``missing`` the rows that
    they lack, where the layout has such; ``inner`` is how they were found. ``categories`` are the
    names that codes and columns have.
    """

    names: Names
    arrays: tuple[ArrayInfo, ...]
    lengths: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    chunk_lengths: NDArray[np.int64]
    digests: NDArray[np.uint8]
    stamps: NDArray[np.int64]
    paths: Names
    packings: Names = NO_NAMES
    inner: Inner = PLAIN
    episodes: Episodes | None = None
    missing: Missing | None = None
    categories: Categories | None = None

    @classmethod
    def of(cls, names: Iterable[str], entries: Sequence[Entry]) -> Table:
        """Make a table of files, at least one, whose entries have the same ``schema``."""
        arrays, paths = _in_common(
            tuple(replace(info, chunk_length=0) for info in entries[0].arrays),
            "path",
            [info.path for entry in entries for info in entry.arrays],
        )
        arrays, packings = _in_common(
            arrays, "packing", [info.packing for entry in entries for info in entry.arrays]
        )
        stamps = np.zeros((len(entries), len(arrays), 4), np.int64)
        for row, entry in zip(stamps, entries, strict=True):
            if entry.stamps:
                row[: len(entry.stamps)] = entry.stamps
        return cls(
            names=Names.of(names),
            arrays=arrays,
            lengths=np.array([entry.length for entry in entries], np.int64),
            kinds=np.array([KINDS.index(entry.kind) for entry in entries], np.uint8),
            chunk_lengths=np.array(
                [[info.chunk_length for info in entry.arrays] for entry in entries], np.int64
            ),
            digests=np.frombuffer(b"".join(entry.digest for entry in entries), np.uint8).reshape(
                -1, DIGEST_SIZE
            ),
            stamps=stamps,
            paths=paths,
            packings=packings,
            inner=entries[0].inner,
            episodes=_all(Episodes.joined, [entry.episodes for entry in entries]),
            missing=_all(Missing.joined, [entry.missing for entry in entries]),
            categories=Categories.of([entry.categories for entry in entries]),
        )

    def __len__(self) -> int:
        return len(self.lengths)

    @cached_property
    def shared(self) -> list[int]:
        """For each array, the first one that is the same array of the file under another name."""
        alike = [(info.path, info.axis, info.form, info.rows) for info in self.arrays]
        if len(self.paths):
            # paths differ from file to file
            return list(range(len(alike)))
        return [alike.index(one) for one in alike]

    @classmethod
    def joined(cls, tables: Sequence[Table]) -> Table:
        """Make a table of the files of several tables, one after the other.

        They have the same ``schema``.
        """
        first = tables[0]
        if len(tables) == 1:
            return first
        arrays, paths = _joined(tables, first.arrays, "path")
        arrays, packings = _joined(tables, arrays, "packing")
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(table, name) for table in tables]) for name in PER_FILE
        }
        return replace(
            first,
            names=Names.joined([table.names for table in tables]),
            arrays=arrays,
            paths=paths,
            packings=packings,
            episodes=_all(Episodes.joined, [table.episodes for table in tables]),
            missing=_all(Missing.joined, [table.missing for table in tables]),
            categories=Categories.joined([table.categories for table in tables]),
            **columns,
        )

    def take(self, rows: NDArray[np.int64]) -> Table:
        """Make a table of the files of these rows, at least one, in that sequence."""
        if len(rows) == len(self) and np.array_equal(rows, np.arange(len(self))):
            return self
        arrays, paths, packings = self.arrays, self.paths, self.packings
        cells = (rows[:, None] * len(arrays) + np.arange(len(arrays))).ravel()
        if len(paths):
            arrays, paths = _in_common(arrays, "path", list(paths.take(cells)))
        if len(packings):
            arrays, packings = _in_common(arrays, "packing", list(packings.take(cells)))
        columns: dict[str, Any] = {name: getattr(self, name)[rows] for name in PER_FILE}
        return replace(
            self,
            names=self.names.take(rows),
            arrays=arrays,
            paths=paths,
            packings=packings,
            episodes=None if self.episodes is None else self.episodes.take(rows),
            missing=None if self.missing is None else self.missing.take(rows),
            categories=None if self.categories is None else self.categories.take(rows),
            **columns,
        )

    @property
    def schema(self) -> tuple[Schema, ...]:
        """What all files of an index must have in common.

        That is all of an array but its path, chunks and packing.
        """
        return _schema(self.arrays)

    def spelled(self, what: str) -> Names:
        """Return the ``"path"`` or ``"packing"`` of each array in each file, file by file."""
        column: Names = getattr(self, f"{what}s")
        return column if len(column) else Names.of(_each(self.arrays, what) * len(self))

    def packings_of(self, column: int) -> list[tuple[int, str]]:
        """Return each packing of an array, as it is spelled, behind the first file that has it."""
        if not len(self.packings):
            return [(0, self.arrays[column].packing)]
        first: dict[bytes, int] = {}
        spelled = self.packings.encoded(0, len(self.packings))[column :: len(self.arrays)]
        for file, packing in enumerate(spelled):
            first.setdefault(packing, file)
        return [(file, packing.decode()) for packing, file in first.items()]

    def packing(self, file: int, column: int) -> str:
        """Return how an array of a file is packed, as it is spelled."""
        if not len(self.packings):
            return self.arrays[column].packing
        return self.packings[file * len(self.arrays) + column]

    def codes(self, row: int) -> dict[int, NDArray[np.int64] | None]:
        """For each array of codes, by its column, those of all files by the codes of this one."""
        if self.categories is None:
            return {}
        columns = (column for column, info in enumerate(self.arrays) if info.form == "codes")
        return {column: self.categories.codes(row, column) for column in columns}

    def entry(self, row: int) -> Entry:
        """Return the entry that the row was made of."""
        count = len(self.arrays)
        own = slice(row * count, (row + 1) * count)
        paths = self.paths[own] or _each(self.arrays, "path")
        packings = self.packings[own] or _each(self.arrays, "packing")
        lengths = self.chunk_lengths[row].tolist()
        arrays = (
            replace(info, chunk_length=length, path=path, packing=packing)
            for info, length, path, packing in zip(
                self.arrays, lengths, paths, packings, strict=True
            )
        )
        return Entry(
            kind=KINDS[self.kinds[row]],
            length=int(self.lengths[row]),
            arrays=tuple(arrays),
            digest=self.digests[row].tobytes(),
            stamps=tuple((a, b, c, d) for a, b, c, d in self.stamps[row].tolist()),
            inner=self.inner,
            episodes=None if self.episodes is None else self.episodes.of_file(row),
        )

    @property
    def chunk_items(self) -> NDArray[np.int64]:
        """Whole items in a chunk, files x arrays; 0 if an array is not chunked."""
        return whole_items(self.chunk_lengths, self.arrays)

    def chunking(self) -> Chunking:
        """Return how the samples are stored in chunks."""
        return Chunking.of(
            self.lengths, self.chunk_items, [info.item_bytes for info in self.arrays]
        )

    def described(self) -> list[Any]:
        """The axes, names, item shapes and dtypes of the arrays, as JSON values."""
        axes = [info.axis for info in self.arrays]
        values = [(info.name, info.value) for info in self.arrays]
        arrays = [[name, list(value.shape), value.dtype.name] for name, value in values]
        return [axes[0] if len(set(axes)) == 1 else axes, arrays]

    def fingerprint(self, num_files: int | None = None) -> str:
        """Return a digest of the first files, by default all.

        It is of their names, item counts, item shapes and dtypes.

        Folder, age and data are not in it, so that a dataset may move. Names are relative to the
        deepest folder that holds *those* files: files that are appended elsewhere do not change
        the names of the first ones.
        """
        count = len(self) if num_files is None else num_files
        names: bytes | memoryview = self.names.spelled(count)
        if count and common_folder([self.names[0], self.names[count - 1]]):
            some = self.names[:count]
            cut = common_folder(some)
            names = b"".join(os.fsencode(name[cut:]) + b"\0" for name in some)
        schema = self.described()
        digest = hashlib.blake2b(b"globidx.index.1", digest_size=16)
        for part in (
            json.dumps(schema).encode(),
            self.lengths[:count].astype("<i8", copy=False).data,
            names,
        ):
            # The size goes first, so that no two lists of parts are the same bytes.
            digest.update(b"%d:" % memoryview(part).nbytes)
            digest.update(part)
        if self.episodes is not None:
            first = self.episodes.take(np.arange(count))
            for column in (first.counts, first.starts, first.lengths, first.listed):
                digest.update(column.astype("<i8").tobytes())
            digest.update(first.names.spelled(len(first.names)))
        return digest.hexdigest()


def _all(join: Callable[[list[Any]], Any], parts: list[Any]) -> Any:
    """The parts joined; None where the layout of their files has no such thing."""
    return None if parts[0] is None else join(parts)


def whole_items(chunk_lengths: NDArray[np.int64], arrays: Sequence[ArrayInfo]) -> NDArray[np.int64]:
    """Whole items in chunks of so many rows, a column for each array; 0 where it is not chunked."""
    rows = np.array([info.rows for info in arrays], np.int64)
    return np.where(chunk_lengths > 0, np.maximum(1, chunk_lengths // rows), 0)


def describe(table: Table) -> str:
    """Return the arrays of a table for messages.

    For example ``images of (128, 128) uint16, labels of () int64``.
    """
    return ", ".join(
        f"{info.name or 'array'} of {info.value.shape} {info.value.dtype.name}"
        + (f" {STORED[info.form]}" if info.form in STORED else "")
        for info in table.arrays
    )


def _schema(arrays: Sequence[ArrayInfo]) -> tuple[Schema, ...]:
    return tuple(
        (info.name, info.item_shape, info.dtype, info.form, info.axis, info.member)
        for info in arrays
    )


def _each(arrays: Sequence[ArrayInfo], what: str) -> list[str]:
    return [getattr(info, what) for info in arrays]


def _in_common(
    arrays: tuple[ArrayInfo, ...], what: str, spelled: list[str]
) -> tuple[tuple[ArrayInfo, ...], Names]:
    """The arrays with the first file's path or packing, and that of each file unless all are alike."""
    first = spelled[: len(arrays)]
    alike = spelled == first * (len(spelled) // len(arrays))
    changes: list[dict[str, Any]] = [{what: one} for one in first]
    arrays = tuple(replace(info, **change) for info, change in zip(arrays, changes, strict=True))
    return arrays, NO_NAMES if alike else Names.of(spelled)


def _joined(
    tables: Sequence[Table], arrays: tuple[ArrayInfo, ...], what: str
) -> tuple[tuple[ArrayInfo, ...], Names]:
    """``_in_common`` of the files of several tables, which mostly are alike."""
    first = tables[0]
    if any(len(getattr(table, f"{what}s")) for table in tables) or any(
        _each(table.arrays, what) != _each(first.arrays, what) for table in tables
    ):
        return arrays, Names.joined([table.spelled(what) for table in tables])
    return arrays, getattr(first, f"{what}s")
