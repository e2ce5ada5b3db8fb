"""How each array of a file is read: if its layout is plain, without its library."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.patterns import Pattern, Runs, runs_of
from globidx.core.index.table import SPARSE, ArrayInfo, Entry
from globidx.core.reading.selection import Selection
from globidx.core.values import dtypes
from globidx.disk.files import forks
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.paths import is_remote
from globidx.disk.reading.sources import (
    CodeSource,
    EmptySource,
    FarLooseSource,
    FarRunsSource,
    FarSparseSource,
    FillingSource,
    LibrarySource,
    PartSource,
    Source,
    StackedSource,
    selected,
)
from globidx.disk.stores import base as stores
from globidx.disk.stores.base import NotPlainError
from globidx.disk.stores.index_entries import parts_of
from globidx.disk.stores.ragged import LooseSource, RunsSource, WholeSource
from globidx.disk.stores.sparse import ColumnSource, Kept, Part, SparseSource
from globidx.disk.stores.zarr.shard_index import ShardIndexes

#: ``auto`` reads plain layouts without the libraries; ``library`` reads everything by zarr-python
#: and h5py; ``tensorstore`` reads zarr by tensorstore.
BACKENDS = ("auto", "library", "tensorstore")


#: Of a file that is read by itself, codes are those of the file.
NO_CODES: Mapping[int, NDArray[np.int64] | None] = MappingProxyType({})
#: Kinds of files whose keys only zarr's own stores can find.
_ELSEWHERE = {
    "references": "by references",
    "parquet": "by references",
    "icechunk": "in an icechunk repository",
}
#: Sources that an open file keeps.
_MOST_SOURCES = 1024
#: In place of the number of an episode: all of them.
_WHOLE = -1


def fills(on_missing: str | Mapping[str, str], array: str | None = None) -> bool:
    """Whether absent chunks of an array are read as fill values; with None, of what is no array.

    >>> fills("fill"), fills({"mask": "fill"}, "mask"), fills({"mask": "fill"}, "image")
    (True, True, False)
    """
    if isinstance(on_missing, str):
        return on_missing == "fill"
    return array is not None and on_missing.get(array) == "fill"


class OpenFile:
    """A file, with a source for each array that is read.

    ``on_missing``: what an absent chunk is, ``"error"`` or ``"fill"``, of all arrays, or by name.
    ``forked``: this process was forked with the dataset in it. ``allow_external``: its data may lie
    in files outside its folder. ``storage_options`` are fsspec's. ``cached`` keeps indexes of
    shards, ``kept`` what sparse matrices need. ``codes`` are, by column, the codes of all files'
    categories by those of this file. ``far`` holds the keys of a zarr store by URL, or
    the bytes of an HDF5 file.
    """

    def __init__(
        self,
        path: str,
        entry: Entry,
        *,
        on_missing: str | Mapping[str, str],
        backend: str,
        forked: bool,
        allow_external: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        cached: ShardIndexes | None = None,
        kept: Kept | None = None,
        codes: Mapping[int, NDArray[np.int64] | None] = NO_CODES,
        far: Any = None,
    ) -> None:
        self._path = path
        self._kept, self._codes = kept, codes
        self._entry = entry
        self._allow_external, self._cached = allow_external, cached
        self._storage_options = storage_options
        self._on_missing = on_missing
        self._backend = backend
        self._forked = forked
        self._sources: dict[tuple[int, int], Source] = {}
        self._parts: dict[tuple[Source, Selection], PartSource] = {}
        self._store: Any = None
        self._kept_container: Any = far
        # held by the thread that opens one of these
        self._opening = threading.Lock()
        if entry.kind == "hdf5":
            # an HDF5 file is open for as long as it is used; zarr stores have no descriptor
            self.library()

    def source(self, column: int, number: int = 0) -> Source:
        """The way to the ``column``-th array, of the file or of its ``number``-th episode."""
        info, kind = self._entry.arrays[column], self._entry.inner.kind
        if kind == "axis" and info.form != "stacked":
            # the same for all sequences
            number = 0
        source = self._sources.get((column, number))
        if source is None:
            if len(self._sources) >= _MOST_SOURCES:
                # a file of many groups; to open them again costs less than to keep all
                self._sources.clear()
                self._parts.clear()
            if info.form == "stacked":
                source = self._stacked(column, number)
            elif info.form == "codes":
                source = CodeSource(self._part(info, info.path), self._codes.get(column))
            else:
                source = self._source(info, self.path(column, number))
            self._sources[column, number] = source
        return source

    def part(
        self, column: int, number: int, selection: Selection, *, keep: bool = True
    ) -> PartSource:
        """The way to what is selected of the rows; not kept if it will not be asked for again."""
        source = self.source(column, number)
        part = self._parts.get((source, selection))
        if part is None:
            part = selected(source, selection)
            if keep:
                self._parts[source, selection] = part
        return part

    def path(self, column: int, number: int = 0) -> str:
        """Where in the file the array lies."""
        key, episodes = self._entry.arrays[column].path, self._entry.episodes
        if episodes is None or self._entry.inner.kind != "match":
            return key
        return Pattern(key).path(episodes.name(number))

    def value(self, path: str, attribute: str | None) -> Any:
        """An attribute of what lies at ``path``, or all of the array there.

        KeyError where there is none.
        """
        return self.library().value(path, attribute)

    def close(self) -> None:
        """Close it; reading afterwards is an error."""
        self._sources.clear()
        self._parts.clear()
        if self._store is not None:
            self._store.close()

    def _stacked(self, column: int, place: int) -> Source:
        """The rows at one place along axis 0, by the source of the array where that has a way."""
        whole = self._sources.get((column, _WHOLE))
        info = self._entry.arrays[column]
        if whole is None:
            whole = self._sources[column, _WHOLE] = self._source(info, info.path)
        return whole.at(place) if isinstance(whole, StackedSource) else whole

    def _source(self, info: ArrayInfo, path: str) -> Source:
        if info.form in SPARSE:
            return self._sparse(info, path)
        fill = fills(self._on_missing, info.name)
        if info.form == "ragged":
            runs = runs_of(path)
            assert runs is not None, "a field in runs names them"
            return self._runs(info, runs, fill)
        if info.form == "loose":
            element = dtypes.parse(info.dtype).element
            assert element is not None, "items of any shape are arrays"
            rows = self._source(replace(info, form="plain", dtype=element.name), path)
            read = partial(self._read_rows, path, info.axis, fill)
            loose = FarLooseSource if is_remote(self._path) else LooseSource
            return loose(rows, read, element.memory)
        if info.form == "whole":
            return WholeSource(self.library, path, info.axis, fill=fill)
        if 0 in info.row_shape:
            return EmptySource()
        library = LibrarySource(self.library, path, info.axis, fill=fill)
        if self._backend == "library":
            library.how += " (as asked)"
            return library
        try:
            fast = self._fast(info, path)
        except NotPlainError as error:
            library.how += f" ({error})"
            return library
        return FillingSource(fast, library) if fill else fast

    def _sparse(self, info: ArrayInfo, path: str) -> SparseSource:
        """The rows of a sparse matrix, whose three arrays are read as others are."""
        parts = [self._part(info, part) for part in parts_of(path, info.form)]
        shape = self._entry.length, info.item_shape[0]
        kept = self._kept or Kept(BlockCache(0))
        by_row = FarSparseSource if is_remote(self._path) else SparseSource
        made = by_row if info.form == "csr" else ColumnSource
        return made(path, parts, shape, kept, self._version)

    def _runs(self, info: ArrayInfo, runs: Runs, fill: bool) -> RunsSource:
        """Runs of rows: by URL by our own path, where that reads all of the arrays."""
        if is_remote(self._path):
            parts = {path: self._part(info, path) for path in (runs.array, *runs.tell)}
            if all(hasattr(part.source, "pieces") for part in parts.values()):
                return FarRunsSource(runs, parts, self._kept or Kept(BlockCache(0)), self._version)
        return RunsSource(self.library, runs, fill=fill)

    @property
    def _version(self) -> Hashable:
        # another version of a file has other stamps, where it has any
        return self._path, self._entry.digest, self._entry.stamps

    def _part(self, info: ArrayInfo, path: str) -> Part:
        """An array behind a field, of numbers, as it is stored."""
        shape, dtype, chunks = self.library().describe(path)
        source = self._source(ArrayInfo(info.name, shape[1:], dtype.name, 0, path), path)
        # a row is one number of it, in numpy's words
        row = np.dtype((dtype, shape[1:])) if shape[1:] else dtype
        return Part(source, row, shape[0], chunks[0] if chunks else 0)

    def _read_rows(
        self, path: str, axis: int, fill: bool | None, start: int, stop: int
    ) -> NDArray[Any]:
        rows: NDArray[Any] = self.library().read(path, start, stop, axis=axis, fill=fill)
        return rows

    def _fast(self, info: ArrayInfo, path: str) -> Source:
        is_stacked = info.form == "stacked"
        if self._entry.kind == "hdf5":
            fast: Source = self.library().source(
                path, info.axis, is_stacked=is_stacked, memory=info.memory
            )
            return fast
        if is_remote(self._path) and (self._kept_container is None or self._backend != "auto"):
            raise NotPlainError("by URL")
        if self._entry.kind in _ELSEWHERE:
            raise NotPlainError(_ELSEWHERE[self._entry.kind])
        if self._backend == "tensorstore":
            if not self._entry.kind.startswith("zarr"):
                raise NotPlainError("in a zip file")
            if is_stacked:
                raise NotPlainError("many sequences in an array")
            tensors: Any = forks.import_module("globidx.disk.stores.zarr.tensors")
            by_tensorstore: Source = tensors.TensorSource(
                self._path, path, self._entry.kind, info.axis, forked=self._forked
            )
            return by_tensorstore
        plain: Any = forks.import_module("globidx.disk.stores.zarr.fast")
        marker = "zarr.json" if self._entry.kind.endswith("3") else ".zarray"
        source: Source = plain.ZarrSource(self._container(), path, info.axis, marker, self._cached)
        return source

    def _container(self) -> Any:
        """What holds the keys of a zarr store; the directory of a zip file is parsed once."""
        with self._opening:
            if self._kept_container is None:
                inflated = None if self._cached is None else self._cached.cache
                self._kept_container = stores.container_of(self._path, self._entry.kind, inflated)
            return self._kept_container

    def library(self) -> Any:
        """The file as zarr-python or h5py opens it, once it is needed.

        zarr takes half a second to import.
        """
        # most often it is there
        if self._store is None:
            with self._opening:
                if self._store is None:
                    self._store = self._opened()
        return self._store

    def _opened(self) -> Any:
        if self._forked and self._entry.kind != "hdf5":
            stores.refuse_fork()
        return stores.open_store(
            self._path,
            self._entry.kind,
            self._entry.arrays[0].axis,
            on_missing="fill" if fills(self._on_missing) else "error",
            allow_external=self._allow_external,
            storage_options=self._storage_options,
            far=self._kept_container if is_remote(self._path) else None,
        )
