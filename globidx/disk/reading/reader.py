"""Reading samples of an index by id, over a bounded number of open files and of decoded chunks."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from globidx.core.generator import START, Moment
from globidx.core.index.table import Entry
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.lru import HandleCache, default_capacity
from globidx.disk.index import scan as scanning
from globidx.disk.index import stamps
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading import packings
from globidx.disk.reading.advice import Advice
from globidx.disk.reading.batch import Batch, Column, FieldSpec, rows_of
from globidx.disk.reading.constants import ConstantReader
from globidx.disk.reading.counters import Counters, Tally
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.packings import ByPacking
from globidx.disk.stores import base as stores
from globidx.disk.stores.sparse import Kept
from globidx.disk.stores.zarr.shard_index import ShardIndexes
from globidx.errors import ReadError

ON_MISSING = ("error", "fill")
_OF_A_PROCESS = (
    "_advice",
    "_born_in",
    "_constants",
    "_indexes",
    "_kept",
    "_now",
    "_tally",
    "handles",
    "cached",
)


class Reader:
    """Reads samples of ``fields`` by id. Pickles without open files or cached data.

    A forked child opens its own.
    """

    _now: Snapshot | None

    def __init__(
        self,
        manager: GlobalIndexManager,
        fields: Sequence[FieldSpec],
        *,
        max_open_files: int | None,
        cache_bytes: int,
        on_missing: str | Mapping[str, str],
        backend: str,
    ) -> None:
        self.manager = manager
        self.fields = fields
        self.max_open_files = max_open_files
        self.cache_bytes = cache_bytes
        self.on_missing = on_missing
        self.backend = backend
        self._counts_for: str | None = None
        self._start()

    def read(self, sample_ids: Sequence[int], moment: Moment = START) -> list[tuple[Any, ...]]:
        """One tuple for every id, in their sequence: an array for each field, then the constants.

        Each array of a field is writable and no other's; those of one batch lie in one block of
        memory a field, which stays as long as any of them. IndexError for an id that is none;
        ReadError, naming file, item and id, where the data cannot be had. Crops are those of the
        ``moment``.
        """
        return list(zip(*map(rows_of, self.read_columns(sample_ids, moment)), strict=True))

    def read_columns(self, sample_ids: Sequence[int], moment: Moment = START) -> list[Column]:
        """What ``read`` gives, by field: its column, which is one array where it can be.

        Of each constant, a list.
        """
        now = self.manager.now
        if now is not self._now:
            # files of an older snapshot are not read again, and while they are open HDF5 would
            # serve their old metadata
            self.handles.close()
            packings.require_alike(now, self.raw)
            self._now = now
        batch = Batch(now, sample_ids, self.handles, self.cached, self._advice, moment=moment)
        try:
            columns = batch.columns(self.fields)
            if self.manager.constants:
                constants = self._constants.read(now, sample_ids)
                columns += [list(values) for values in zip(*constants, strict=True)]
            return columns
        finally:
            self._tally.add(batch.counts)

    @property
    def columns(self) -> list[int]:
        """The columns of the arrays that are read."""
        return [field.column for field in self.fields if not field.is_mask]

    @property
    def raw(self) -> list[int]:
        """The columns whose stored numbers are given, or are decoded by a function that takes them for values."""
        return [
            field.column
            for field in self.fields
            if not field.is_mask and not isinstance(field.decode, ByPacking)
        ]

    def counters(self, *, reset: bool = False) -> Counters:
        """What was read so far, here and by workers that reported.

        Counted from zero again after a ``reset``.
        """
        return self._tally.take(reset=reset)

    def close(self) -> None:
        """Close all files and drop cached data; the next read opens again."""
        self.handles.close()
        self.cached.clear()
        self._kept.clear()
        self._constants.clear()

    def open(self, key: tuple[Snapshot, int]) -> OpenFile:
        """A file of the index; ReadError if it changed since it was indexed."""
        now, file = key
        path, entry = now.paths[file], now.entry(file)
        if not stamps.is_unchanged(path, entry):
            self._refuse_changed(path, entry)
        elif entry.kind == "zarr2" and len(self.raw) < len(self.columns):
            # its attributes are in a file that no stamp watches, and values are computed by them
            self._refuse_changed(path, entry)
        forked = os.getpid() != self._born_in
        return OpenFile(
            path,
            entry,
            on_missing=self.on_missing,
            backend=self.backend,
            forked=forked,
            allow_external=self.manager.layout.allow_external,
            storage_options=self.manager.layout.storage_options,
            cached=self._indexes,
            kept=self._kept,
            codes=now.table.codes(file),
        )

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in _OF_A_PROCESS}
        return kept | {"_counts_for": self._tally.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._born_in = os.getpid()
        self._now = None
        self._tally = Tally(self._counts_for)
        capacity = default_capacity()
        if self.max_open_files is not None:
            capacity = min(capacity, self.max_open_files)
        self.handles: HandleCache[tuple[Snapshot, int], OpenFile] = HandleCache(
            capacity, self._counted
        )
        self.cached = BlockCache(self.cache_bytes)
        self._constants = ConstantReader(self.manager.constants, self.handles)
        self._indexes = ShardIndexes(self.cached)
        self._kept = Kept(self.cached)
        allow = self.manager.layout.allow_external
        self._advice = Advice(self.columns, allow_external=allow)

    def _counted(self, key: tuple[Snapshot, int]) -> OpenFile:
        opened = self.open(key)
        self._tally.add(Counters(opens=1))
        return opened

    def _refuse_changed(self, path: str, known: Entry) -> None:
        """ReadError if the file is not what was indexed.

        Its stamp differs, and so does its metadata.
        """
        now = scanning.examine(path, layout=self.manager.layout, axis=self.manager.axis)
        if isinstance(now, scanning.Failure):
            raise ReadError(now.reason)
        # a file that was touched, or copied back, has another stamp and the same samples
        if (now.length, now.digest) != (known.length, known.digest) and not _has_grown(
            path, now, known
        ):
            raise ReadError(
                f"it changed since it was indexed (it had {known.length} items, has {now.length}); "
                "refresh() the index and start a new epoch"
            )


def _has_grown(path: str, now: Entry, known: Entry) -> bool:
    """Whether a file that is being written has all rows that it had, and more: ids mean what they meant."""
    return (
        now.length > known.length
        and (now.arrays, now.inner) == (known.arrays, known.inner)
        and now.episodes is None
        and stores.is_being_written(path, known.kind)
    )
