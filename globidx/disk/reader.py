"""Reading items of an index: the plan is the core's, here it is carried out over open files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import reading
from globidx.core.reading import Read
from globidx.core.table import Entry
from globidx.disk import indexing, stores
from globidx.disk.blocks import BlockCache
from globidx.disk.handles import HandleCache, default_capacity
from globidx.disk.indexed import Indexed
from globidx.disk.manager import GlobalIndexManager
from globidx.disk.stores import Store
from globidx.errors import MissingChunkError, ReadError

ON_MISSING = ("error", "fill")


class Reader:
    """Reads samples of ``fields`` by id. Pickles without open files or cached data; a forked child opens its own."""

    def __init__(
        self,
        manager: GlobalIndexManager,
        fields: Sequence[str],
        *,
        max_open_files: int | None,
        cache_bytes: int,
        on_missing: str,
    ) -> None:
        self._manager = manager
        self._fields = tuple(fields)
        self._columns = [[info.name for info in manager.arrays].index(field) for field in fields]
        self._max_open_files = max_open_files
        self._cache_bytes = cache_bytes
        self._on_missing = on_missing
        self._start()

    def read(self, sample_ids: Sequence[int]) -> list[tuple[NDArray[Any], ...]]:
        """One tuple of arrays, a field each, for every id, in their sequence. Each array is writable and nobody else's.

        IndexError for an id that is none; ReadError, naming file, item and id, where the data cannot be had.
        """
        now = self._manager.now  # one look for the whole batch, whatever a refresh does meanwhile
        files, items = now.index.locate_many(sample_ids)
        samples: list[Any] = [None] * len(files)
        for read in reading.plan(files, items):
            blocks = [self._block(now, read, column, sample_ids) for column in self._columns]
            for place, offset in zip(read.places.tolist(), read.offsets.tolist(), strict=True):
                samples[place] = tuple(np.array(block[offset]) for block in blocks)  # a copy: blocks are shared
        return samples

    def close(self) -> None:
        """Close all files and drop cached data; the next read opens again."""
        self._handles.close()
        self._cached.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_handles", "_cached")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        capacity = default_capacity()
        if self._max_open_files is not None:
            capacity = min(capacity, self._max_open_files)
        self._handles: HandleCache[tuple[Indexed, int], Store] = HandleCache(capacity, self._open)
        self._cached = BlockCache(self._cache_bytes)

    def _block(self, now: Indexed, read: Read, column: int, sample_ids: Sequence[int]) -> NDArray[Any]:
        try:
            with self._handles.use((now, read.file)) as store:
                return self._items(now, store, read, column)
        except MissingChunkError as error:
            raise MissingChunkError(self._told(now, read, sample_ids, error)) from error
        except (*stores.UNREADABLE, MemoryError) as error:
            raise ReadError(self._told(now, read, sample_ids, error)) from error

    def _items(self, now: Indexed, store: Store, read: Read, column: int) -> NDArray[Any]:
        """Items of one array, by whole chunks where those are small enough to keep.

        Decoding one costs the same as decoding an item of it.
        """
        info = now.table.arrays[column]
        chunk = now.chunk_length(read.file, column)
        item_bytes = int(np.prod(info.item_shape, dtype=np.int64)) * np.dtype(info.dtype).itemsize
        if chunk <= 1 or chunk * item_bytes > self._cache_bytes:
            return store.read(info.name, read.start, read.stop)
        length = int(now.table.lengths[read.file])
        parts = []
        for first in range(read.start - read.start % chunk, read.stop, chunk):
            key = (now.generation, read.file, column, first)
            whole = self._cached.get(key)
            if whole is None:
                whole = store.read(info.name, first, min(first + chunk, length))
                self._cached.put(key, whole)
            parts.append(whole[max(0, read.start - first) : read.stop - first])
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _open(self, key: tuple[Indexed, int]) -> Store:
        now, file = key
        path, entry = now.paths[file], now.entry(file)
        if not indexing.unchanged(path, entry):
            self._refuse_changed(path, entry)
        return stores.open_store(Path(path), entry.kind, self._manager.axis, on_missing=self._on_missing)

    def _refuse_changed(self, path: str, known: Entry) -> None:
        """ReadError where the file is not what was indexed: its stamp says maybe, its metadata says for certain."""
        now = indexing.examine(path, layout=self._manager.layout, axis=self._manager.axis)
        if isinstance(now, indexing.Failure):
            raise ReadError(now.reason)
        if (now.length, now.digest) != (known.length, known.digest):
            raise ReadError(
                f"it changed since it was indexed (it had {known.length} items, has {now.length}); "
                "refresh() the index and start a new epoch"
            )

    def _told(self, now: Indexed, read: Read, sample_ids: Sequence[int], error: Exception) -> str:
        ids = [int(sample_ids[place]) for place in read.places[:3].tolist()]
        items = f"item {read.start}" if read.stop == read.start + 1 else f"items [{read.start}, {read.stop})"
        said = (
            str(error)
            if isinstance(error, (ReadError, ValueError)) and str(error)
            else f"{type(error).__name__}: {error}"
        )
        path = indexing.printable(now.paths[read.file])
        return f"sample id {', '.join(map(str, ids))}: {items} of {path}: {said}"
