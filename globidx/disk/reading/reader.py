"""Reading samples of an index by id, over a bounded number of open files and of decoded chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import compress, product
from typing import Any
from weakref import ref

from globidx.core.generator import CROP, START, Moment
from globidx.core.index.table import Entry
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.lru import HandleCache, default_capacity
from globidx.disk.files.paths import is_remote
from globidx.disk.files.shared_blocks import SharedBlocks
from globidx.disk.index import scan as scanning
from globidx.disk.index import stamps
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.index.shared_chunks import SharedChunks, name_of_cache
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.local_cache import pages
from globidx.disk.local_cache.cached_objects import CachedObjects, Counts
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.reading import packings
from globidx.disk.reading.advice import Advice
from globidx.disk.reading.batch import Batch, FieldSpec, Need
from globidx.disk.reading.constants import ConstantReader
from globidx.disk.reading.counters import Counters, Tally
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.packings import ByPacking
from globidx.disk.reading.sources import LeadingSource, Rows
from globidx.disk.reading.takes import Column, rows_of
from globidx.disk.remote.ahead import Wish
from globidx.disk.remote.foresight import Foresight, Rely, Wishes
from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import Objects
from globidx.disk.remote.options import server_of
from globidx.disk.remote.retries import Bounds
from globidx.disk.stores import base as stores
from globidx.disk.stores.sparse import Kept
from globidx.disk.stores.zarr.shard_index import ShardIndexes
from globidx.errors import ReadError

#: Files whose chunks say how far to look ahead, and the most ids that are looked at.
_LOOKED_AT, _MOST_IDS = 1024, 4096
#: Bytes of the indexes of shards by URL that are kept.
_INDEX_BYTES = 64 * 2**20
ON_MISSING = ("error", "fill")
#: Whose decoded chunks are: each process has its own, or all of a node share them.
CACHES = ("process", "shared")
_UNREADABLE = (*stores.UNREADABLE, MemoryError)
_OF_A_PROCESS = (
    "_advice",
    "_born_in",
    "_cached_objects",
    "_constants",
    "_indexes",
    "_kept",
    "line",
    "_now",
    "_tally",
    "_chunks",
    "_shared",
    "handles",
    "cached",
)


class Reader:
    """Reads samples of ``fields`` by id. Pickles without open files or cached data.

    A forked child opens its own.
    """

    _now: Snapshot | None
    _shared: SharedBlocks | None
    _chunks: SharedChunks | None

    def __init__(
        self,
        manager: GlobalIndexManager,
        fields: Sequence[FieldSpec],
        *,
        max_open_files: int | None,
        cache_bytes: int,
        on_missing: str | Mapping[str, str],
        backend: str,
        cache: str = "process",
        bounds: Bounds = Bounds(),  # noqa: B008 - it does not change
        local_cache: LocalCache | None = None,
    ) -> None:
        self.manager = manager
        self.fields = fields
        self.max_open_files = max_open_files
        self.cache_bytes = cache_bytes
        self.on_missing = on_missing
        self.backend = backend
        self.bounds = bounds
        self.local_cache = local_cache
        self._counts_for: str | None = None
        self._shared_name = self._name() if cache == "shared" else None
        self._start()
        if self._shared is not None:
            # here and now, so that what cannot be had is told, and it outlives the workers
            self._shared.open()

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
        now = self._renewed()
        kept = self._kept_of(now)
        batch = Batch(now, sample_ids, self.handles, kept, self._advice, moment=moment)
        foresight = self._foresight_of(now, moment)
        if foresight is not None:
            foresight[0].before(sample_ids, foresight[1])
        try:
            columns = batch.columns(self.fields)
            if self.manager.constants:
                constants = self._constants.read(now, sample_ids)
                columns += [list(values) for values in zip(*constants, strict=True)]
            return columns
        finally:
            self._tally.add(batch.counts)

    def foresee(self, batches: Sequence[Sequence[int]], moment: Moment = START) -> None:
        """Learn which batches this thread reads, the first of them now, so that servers are asked ahead of time."""
        foresight = self._foresight_of(self._renewed(), moment)
        if foresight is not None:
            foresight[0].tell(batches, foresight[1])

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
        if self._shared is not None:
            self._shared.clear()
        self._kept.clear()
        self._constants.clear()
        if self.line is not None:
            self.line.close()
        self._cached_objects.clear()

    def kept_by(self) -> str:
        """Whose decoded chunks are, in words; nothing where each process has its own, as it should."""
        if self._shared is None:
            return ""
        self._shared.open()
        why = self._shared.why_not
        return " by all processes of the node" if why is None else f" by each process, since {why}"

    def open(self, key: tuple[Snapshot, int]) -> OpenFile:
        """A file of the index; ReadError if it changed since it was indexed."""
        now, file = key
        path, entry = now.paths[file], now.entry(file)
        far = None
        if self.line is not None:
            kept = pages.beside(now.cache_path.parent)
            far = far_store(path, entry, self.line, self._indexes.cache, kept)
        chunks = self._kept_of(now)
        if isinstance(chunks, SharedChunks):
            chunks.note(file, getattr(far, "version", ""))
        if not stamps.is_unchanged(path, entry):
            self._refuse_changed(path, entry, far)
        elif entry.kind == "zarr2" and len(self.raw) < len(self.columns):
            # its attributes are in a file that no stamp watches, and values are computed by them
            self._refuse_changed(path, entry, far)
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
            far=far,
        )

    def _renewed(self) -> Snapshot:
        """The files as they were found last, by which all is read from here on."""
        now = self.manager.now
        if now is not self._now:
            # files of an older snapshot are not read again, and while they are open HDF5 would
            # serve their old metadata
            self.handles.close()
            packings.require_alike(now, self.raw)
            if self.line is not None:
                self.line.forget()
            for objects in self._cached_objects:
                objects.count_from(now.refreshed_at)
            self._now = now
        return now

    def _foresight_of(self, now: Snapshot, moment: Moment) -> tuple[Foresight, Wishes] | None:
        """What asks servers ahead of time, and what for; None where there is nobody to ask."""
        line, kept = self.line, self._cached_objects
        if line is None or (kept and all(one.is_filled for one in kept)):
            return None
        return line.foresight, partial(self._wishes, line, now, moment)

    def _wishes(
        self, line: Line, now: Snapshot, moment: Moment, ids: Sequence[int], rely: Rely
    ) -> Iterator[list[Wish]]:
        """What a batch asks servers for, its files opened at the same time.

        What cannot be had is left to be told when the batch is read.
        """
        with suppress(*_UNREADABLE):
            yield from self._lacking(line, now, list(self._needs(now, moment, ids)), rely)

    def _lacking(
        self, line: Line, now: Snapshot, needs: Sequence[Need], rely: Rely
    ) -> Iterator[list[Wish]]:
        """What servers are asked for of what is needed; what is decoded is relied on."""
        kept, far, claimed = self._kept_of(now), list[Need](), set[Hashable]()
        for need in needs:
            key = need.key
            if key is not None and (kept.is_claimed(key) or kept.has(key)):
                # of what processes share, nobody tells what goes
                if self._shared is None:
                    rely(key, partial(self._lacking, line, now, [need]))
                # once more: it may have gone before. It is kept before it is claimed no more
                is_claimed = kept.is_claimed(key)
                if kept.has(key):
                    continue
                if is_claimed:
                    claimed.add(key)
            far.append(need)
        return self._asked(line, now, far, claimed)

    def _asked(
        self, line: Line, now: Snapshot, needs: Sequence[Need], claimed: Collection[Hashable]
    ) -> Iterator[list[Wish]]:
        """What servers are asked for on account of some needs, files opened at the same time."""
        with suppress(*_UNREADABLE):
            files = list(dict.fromkeys(need.file for need in needs))
            # one that cannot be opened is waited for here once, and where it is read
            opened = set(compress(files, line.openers.map(partial(self._touch, now), files)))
            sources = [(self._far_source(now, need), need) for need in needs if need.file in opened]
            rows = [
                (Rows(one, need.start, need.stop), need.key in claimed)
                for one, need in sources
                if hasattr(one, "pieces")
            ]
            leading = [(one, need) for one, need in sources if hasattr(one, "then")]
            first = [found for one, need in leading for found in one.first(need.start, need.stop)]
            in_hand = _wished(line, [one for one, is_claimed in rows if is_claimed])
            # once for what follows here, and once for the batch
            free = _wished(
                line, [one for one, is_claimed in rows if not is_claimed] + first + first
            )
            yield free + [wish._replace(is_claimed=True) for wish in in_hand]
            then = [found for one, need in leading for found in _then(one, need)]
            yield _wished(line, then)

    def _needs(self, now: Snapshot, moment: Moment, ids: Sequence[int]) -> Iterator[Need]:
        """The rows that a batch takes, those of which each sample takes another part among them."""
        kept = self._kept_of(now)
        yield from Batch(now, ids, self.handles, kept).needs(self.fields)
        for field, id in product(self.fields, ids):
            if field.crop is not None:
                # what it raises is raised where the sample is read
                with suppress(Exception):
                    selection = field.crop.of(moment.rng(int(id), CROP))
                    of_one = field._replace(selection=selection, crop=None)
                    for need in Batch(now, [id], self.handles, kept).needs([of_one]):
                        yield need._replace(field=field._replace(selection=selection))

    def _touch(self, now: Snapshot, file: int) -> bool:
        """Open a file, so that it need not be waited for later; whether that could be done."""
        with suppress(*_UNREADABLE), self.handles.use((now, file)):
            return True
        return False

    def _far_source(self, now: Snapshot, need: Need) -> Any:
        """The way to an array, which may be one that can say what it will ask for; None if there is none."""
        with suppress(*_UNREADABLE), self.handles.use((now, need.file)) as file:
            column, selection = need.field.column, need.field.selection
            if selection is None:
                return file.source(column, need.number)
            # the part that one sample takes is no other's
            return file.part(column, need.number, selection, keep=need.field.crop is None)
        return None

    @property
    def kept_on_disk(self) -> Counts:
        """What this process found in the cache on local disk, and what it fetched."""
        return sum((one.counts for one in self._cached_objects), Counts())

    def _kept_on_disk(self, objects: Objects) -> Objects:
        assert self.local_cache is not None, "it is asked where there is a cache"
        cached = CachedObjects(objects, self.local_cache, self.manager.num_files)
        # a refresh from here on is told to it as well
        self._cached_objects.append(cached)
        cached.count_from(self.manager.now.refreshed_at)
        return cached

    @property
    def foresight(self) -> int:
        """How many samples' chunks keep all requests busy twice over; 0 where all files are local."""
        if self.line is None:
            return 0
        lengths = self.manager.now.units.chunk_lengths[:_LOOKED_AT]
        shortest = int(lengths[:, self.columns].min(initial=_MOST_IDS))
        return min(2 * self.bounds.requests * max(1, shortest), _MOST_IDS)

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: value for name, value in self.__dict__.items() if name not in _OF_A_PROCESS}
        return kept | {"_counts_for": self._tally.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self._born_in = os.getpid()
        self._now = None
        self._cached_objects: list[CachedObjects] = []
        self._tally = Tally(self._counts_for)
        capacity = default_capacity()
        if self.max_open_files is not None:
            capacity = min(capacity, self.max_open_files)
        self.handles: HandleCache[tuple[Snapshot, int], OpenFile] = HandleCache(
            capacity, _opener(self)
        )
        self._shared = self._chunks = None
        if self._shared_name is None:
            self.cached = BlockCache(self.cache_bytes)
        else:
            self._shared = SharedBlocks(self._shared_name, self.cache_bytes)
            self.cached = self._shared.local
        self._constants = ConstantReader(self.manager.constants, self.handles)
        #: What asks servers for files by URL; None where all files are local.
        self.line: Line | None = None
        if is_remote(self.manager.now.root):
            around = None if self.local_cache is None else self._kept_on_disk
            self.line = line = Line(self.bounds, self.manager.layout.storage_options, around=around)
            # not by way of this reader, which would then be freed late
            self.cached.on_drop = line.gone
        # what is far is not to be asked again for where chunks lie
        self._indexes = ShardIndexes(self.cached if self.line is None else BlockCache(_INDEX_BYTES))
        self._kept = Kept(self.cached)
        allow = self.manager.layout.allow_external
        self._advice = Advice(self.columns, allow_external=allow)

    def _kept_of(self, now: Snapshot) -> BlockCache | SharedChunks:
        """Where a batch finds chunks of this look decoded."""
        if self._shared is None:
            return self.cached
        chunks = self._chunks
        if chunks is None or chunks.now is not now:
            chunks = self._chunks = SharedChunks(self._shared, now)
        return chunks

    def _name(self) -> str:
        """What the processes call it that may share decoded chunks."""
        missing = self.on_missing
        facts = missing if isinstance(missing, str) else sorted(missing.items())
        server = server_of(self.manager.layout.storage_options)
        return name_of_cache(self.manager.now, self.columns, self.cache_bytes, facts, server)

    def _counted(self, key: tuple[Snapshot, int]) -> OpenFile:
        opened = self.open(key)
        self._tally.add(Counters(opens=1))
        return opened

    def _refuse_changed(self, path: str, known: Entry, far: Any) -> None:
        """ReadError if the file is not what was indexed.

        Its stamp differs, and so does its metadata.
        """
        now = scanning.examine(path, layout=self.manager.layout, axis=self.manager.axis, far=far)
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


def _opener(reader: Reader) -> Callable[[tuple[Snapshot, int]], OpenFile]:
    """Opens files for a reader; it does not keep that alive, with all the memory that it has."""
    known = ref(reader)

    def opened(key: tuple[Snapshot, int]) -> OpenFile:
        reader = known()
        assert reader is not None, "it is asked by the reader"
        return reader._counted(key)

    return opened


def _then(source: LeadingSource, need: Need) -> list[Rows]:
    """Where rows lie, if that can be found out."""
    with suppress(*_UNREADABLE):
        return source.then(need.start, need.stop)
    return []


def _wished(line: Line, rows: Sequence[Rows]) -> list[Wish]:
    """The pieces for some rows, after a look at the index of each shard that was not read from yet."""
    unknown = {(one, chunk): None for one, *ends in rows for chunk in one.unknown(*ends)}
    line.map(lambda found: found[0].look_up(found[1]), list(unknown))
    return [wish for one, *ends in rows for wish in one.pieces(*ends)]


def far_store(
    path: str,
    entry: Entry,
    line: Line,
    inflated: BlockCache | None = None,
    kept: pages.Pages | None = None,
) -> Any:
    """What holds the keys of a zarr store by URL, all metadata that opening it takes loaded at once.

    Or the bytes of an HDF5 file; None of a file that is read by zarr.
    """
    if entry.kind == "hdf5":
        return stores.far_container(path, line, pages=kept)
    if not entry.kind.startswith(("zarr", "zip")):
        return None
    far = stores.far_container(path, line, inflated, kept)
    names = ["zarr.json"] if entry.kind.endswith("3") else [".zarray", ".zattrs"]
    nodes = ["", *(info.path for info in entry.arrays if info.form == "plain")]
    roots = [] if entry.kind.endswith("3") else ["zarr.json", ".zgroup"]
    far.prime(roots + [f"{node}/{name}".lstrip("/") for node in nodes for name in names])
    return far


def _has_grown(path: str, now: Entry, known: Entry) -> bool:
    """Whether a file that is being written has all rows that it had, and more: ids mean what they meant."""
    return (
        now.length > known.length
        and (now.arrays, now.inner) == (known.arrays, known.inner)
        and now.episodes is None
        and stores.is_being_written(path, known.kind)
    )
