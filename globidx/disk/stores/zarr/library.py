"""zarr stores in a folder, a zip file, or by URL, formats 2 and 3, sharded or not.

It is the only module that imports zarr.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import (
    ByteRequest,
    OffsetByteRequest,
    RangeByteRequest,
    Store,
    SuffixByteRequest,
)
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import NodeTypeValidationError

from globidx.core.index.layout import Layout
from globidx.core.index.table import SPARSE, Entry
from globidx.disk.files.paths import is_remote, join
from globidx.disk.remote.by_fsspec import as_os_errors, file_system
from globidx.disk.remote.hands import Hands, alone
from globidx.disk.remote.line import for_scans
from globidx.disk.remote.objects import Piece
from globidx.disk.remote.retries import REQUESTS
from globidx.disk.stores import anndata, find_arrays, find_sequences, remote
from globidx.disk.stores.base import (
    ZARR_MARKERS,
    Audit,
    Contents,
    Looking,
    Stored,
    chunks_of,
    container_of,
    far_container,
    is_elsewhere,
    is_zip,
    item_first,
    slab,
    zip_by_url,
)
from globidx.disk.stores.find_arrays import Field
from globidx.disk.stores.index_entries import array_info, make_entry
from globidx.disk.stores.zarr import presence, references, repository
from globidx.disk.stores.zarr.containers import Container, key_of
from globidx.disk.stores.zarr.far import Far
from globidx.disk.stores.zarr.pipes import refuse_pipe, refuse_pipes
from globidx.disk.stores.zarr.presence import ChunkFiles
from globidx.disk.stores.zarr.tree import Members, ZarrTree, dtype_of, packing_in, reason_of
from globidx.errors import MissingChunkError, ReadError

#: Arrays that a store keeps open: one of a hundred thousand groups would keep as many.
_MOST_ARRAYS = 1024
#: Ask servers for what zarr awaits. They are nobody else's: whoever waits for zarr may be one of
#: those that open files, or fetch.
_HANDS = Hands(REQUESTS)


def scan(path: str, layout: Layout, axis: int, far: Any = None) -> Entry:
    """The store's arrays of ``layout``; "" is a store that is an array itself.

    ``path`` may be a URL; ``far`` is then that of ``open_store``.
    """
    with as_os_errors():
        try:
            return _scan(path, layout, axis, far)
        except json.JSONDecodeError as error:
            raise ValueError(reason_of(error)) from error


def _scan(path: str, layout: Layout, axis: int, far: Any) -> Entry:
    with _opened(path, layout.allow_external, layout.storage_options, far) as store:
        return _scan_opened(store, layout, axis)


def _scan_opened(store: ZarrStore, layout: Layout, axis: int) -> Entry:
    way = store.way
    keys = () if layout.inner.kind == "match" else layout.keys
    way.refuse_pipes(None if layout.rule else keys)
    node = way.open_root()
    root: Any
    if layout.inner.kind == "match" and not isinstance(node, zarr.Array):
        found, inside, identity = find_sequences.matched(ZarrTree(node, store), layout, axis)
        kind = way.kind(node)
        metadata = repr(identity).encode() + way.version.encode()
        return way.stamped(
            make_entry(kind, found, metadata, is_foreign=way.is_foreign, inside=inside)
        )
    if isinstance(node, zarr.Array):
        if layout.keys is not None or layout.rule is not None:
            wanted = layout.keys[0] if layout.keys else layout.rule
            raise ValueError(
                f"it is a bare array, so it has no {wanted!r} in it; leave key and layout out"
            )
        fields, root = [Field("", "", layout.form, axis)], {"": node}
    else:
        root = members = Members(node, _list_names, _load)
        fields = find_arrays.find(root, layout, axis, lambda: _arrays(way, members))
    infos, documents, shapes = [], [], []
    for field in fields:
        shape: tuple[int, ...]
        chunks: tuple[int, ...] | None = None
        if field.form in SPARSE:
            group = root[field.path]
            array = group["data"]
            shape = anndata.matrix_shape(group, field.form)
            dtype = array.dtype
            documents.append(f"{shape}".encode())
        elif field.form == "ragged":
            array, shape, dtype, chunks = find_arrays.described_runs(root, field.path)
            documents.append(f"{shape}".encode())
        else:
            array = root[field.path]
            shape, dtype, chunks = array.shape, dtype_of(array), array.chunks
        packing = "" if field.form in SPARSE else packing_in(array)
        dtype = anndata.given_dtype(field.form, dtype)
        infos.append(array_info(field, shape, dtype, chunks, length=layout.length, packing=packing))
        shapes.append(shape)
        documents += [way.metadata(array), packing.encode()]
    read = _refuse_read
    if not isinstance(node, zarr.Array):
        tree = ZarrTree(node, store)
        find_sequences.Everything(tree, layout).require()
        read = tree.read
    inside = find_sequences.inside(infos, shapes, layout, read)
    categories = anndata.names_at([field.names for field in fields], read)
    metadata = b"".join(documents) + way.version.encode()
    entry = make_entry(
        way.kind(array),
        infos,
        metadata,
        is_foreign=way.is_foreign,
        inside=inside,
        categories=categories,
    )
    return way.stamped(entry)


def _refuse_read(path: str) -> NDArray[Any]:
    raise ValueError(f"it is a bare array, so it has no {path!r} in it")


def arrays_like(
    path: str,
    pattern: str,
    varies: Sequence[str],
    *,
    allow_external: bool,
    storage_options: Mapping[str, Any] | None = None,
) -> list[str]:
    """The arrays whose paths match ``pattern``, and of which all attributes ``varies`` are true."""
    with _opened(path, allow_external, storage_options) as store:
        root = store.way.open_root()
        if isinstance(root, zarr.Array):
            return []
        listed = find_sequences.arrays_like(ZarrTree(root, store), pattern)
        return [one for one in listed if all(root[one].attrs.get(name, True) for name in varies)]


def available(
    path: str, *, allow_external: bool, storage_options: Mapping[str, Any] | None = None
) -> dict[str, str]:
    """What an AnnData store has a row of for each observation, by key."""
    with as_os_errors(), _opened(path, allow_external, storage_options) as store:
        return anndata.available(store.way.open_root())


def ome_pattern(
    path: str, *, allow_external: bool, storage_options: Mapping[str, Any] | None = None
) -> str | None:
    """The key of the images of a store that holds many, and is no folder or zip file."""
    with _opened(path, allow_external, storage_options) as store:
        root = store.way.open_root()
        return None if isinstance(root, zarr.Array) else find_arrays.ome_pattern(root)


def contents(
    path: str,
    pattern: str,
    *,
    allow_external: bool,
    storage_options: Mapping[str, Any] | None = None,
) -> Contents | None:
    """All that lies in the first group that ``pattern`` matches; None where it matches arrays."""
    with _opened(path, allow_external, storage_options) as store:
        root = store.way.open_root()
        if isinstance(root, zarr.Array):
            return None
        return find_sequences.contents(ZarrTree(root, store), pattern)


def audit(
    path: str | Path,
    array: str,
    axis: int,
    looking: Looking,
    *,
    allow_external: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Audit:
    """What is there of an array of which zarr must be asked: whole shards, of a sharded one."""
    with (
        as_os_errors(),
        _opened(os.fspath(path), allow_external, storage_options) as store,
    ):
        return _audit(store.way, array, axis, looking)


def _audit(way: Way, array: str, axis: int, looking: Looking) -> Audit:
    way.refuse_pipes([array])
    opened = way.open_array(array)
    checked = presence.has_checksums(opened.metadata.to_dict())
    if not opened.shape:
        absent = not way.has(key_of(array, opened.metadata.encode_chunk_key(())))
        return Audit((), 1, int(absent), checked, None, str(opened.fill_value))
    units = opened.shards or opened.chunks
    counts = Counter(place[axis] for place in _places(way, array, opened, units, looking))
    return presence.counted(opened.shape, units, counts, axis, checked, str(opened.fill_value))


def _places(
    way: Way, name: str, array: Any, units: Sequence[int], looking: Looking
) -> Iterator[tuple[int, ...]]:
    """The grid coordinates of the chunks that are there: by a listing where their names are usual."""
    grid = presence.grid_of(array.shape, units)
    named = array.metadata.encode_chunk_key
    files = _named(grid, named)
    if files is not None and way.container is None and is_remote(way.path):
        keys = way.names(name)
        read = (presence.place_of(key, files.prefix, files.separator, grid) for key in keys)
        yield from filter(None, read)
    elif files is not None and way.container is not None and way.container.kind == "zarr":
        yield from presence.local_places(join(way.path, name), files, looking)
    else:
        for place in itertools.product(*map(range, grid)):
            looking.step()
            if way.has(key_of(name, named(place))):
                yield place


def _named(grid: tuple[int, ...], key_of: Callable[[Any], str]) -> ChunkFiles | None:
    """How the chunks of an array are named; None if not by a prefix and their coordinates."""
    if not grid:
        return None
    first = key_of((0,) * len(grid))
    prefix = first[: 1 - 2 * len(grid)]
    separator = first[-2] if len(grid) > 1 else "/"
    is_usual = separator in "./" and first == prefix + separator.join("0" * len(grid))
    return ChunkFiles(grid, prefix, separator) if is_usual else None


def open_store(
    path: str | Path,
    axis: int,
    *,
    on_missing: str,
    allow_external: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    far: Any = None,
) -> ZarrStore:
    """An open store; it holds no file descriptor between reads, unless it is a zip file.

    ``far`` holds the keys of a store by URL, where there is such already.
    """
    return ZarrStore(
        path,
        axis,
        fill=on_missing == "fill",
        allow_external=allow_external,
        storage_options=storage_options,
        far=far,
    )


def refuse_fork() -> None:
    """ReadError where zarr's codec pipeline would hang in a forked process.

    It would wait for threads of the parent.
    """
    pipeline = str(zarr.config.get("codec_pipeline.path", ""))
    if pipeline.startswith("zarrs."):
        raise ReadError(
            f"zarr is set to decode by {pipeline}, which hangs in forked processes; start workers with "
            "multiprocessing_context='forkserver' or 'spawn', or unset codec_pipeline.path"
        )


@contextmanager
def _opened(
    path: str, allow_external: bool, storage_options: Mapping[str, Any] | None, far: Any = None
) -> Iterator[ZarrStore]:
    store = open_store(
        path,
        0,
        on_missing="error",
        allow_external=allow_external,
        storage_options=storage_options,
        far=far,
    )
    try:
        yield store
    finally:
        store.close()


class Way:
    """How zarr reaches the store at ``path``, and how its keys are looked at without zarr.

    ``container`` holds the keys of a store in a folder or zip file, also one by URL, whose directory
    is here; it is None where a look is a request, or as slow as one. ``version`` identifies the data
    of a store with versions. No stamp proves anything of one that ``is_foreign``. ``far`` holds the
    keys of a store by URL, where there is such already.
    """

    def __init__(
        self,
        path: str,
        options: Mapping[str, Any] | None = None,
        *,
        allow_external: bool = False,
        far: Any = None,
    ) -> None:
        self.path, self._options = path, options
        self.is_foreign = is_remote(path)
        self.container: Container | None = None
        self.version, self._root, self._kind = "", "", ""
        self._store: Any = path
        self._format: Any = None
        if self.is_foreign:
            self._reach_by_url(far)
        elif os.path.isfile(path) and is_zip(Path(path)):
            zipped = container_of(path, "zip")
            self.container, self._root = zipped, zipped.root
            self._store = zarr.storage.ZipStore(path, mode="r")
        elif os.path.isdir(path) and any(
            os.path.exists(f"{path}/{marker}") for marker in ZARR_MARKERS
        ):
            self.container = container_of(path, "zarr")
        else:
            self._reach_elsewhere(allow_external=allow_external)

    def _reach_by_url(self, far: Any) -> None:
        """Make a store of zarr's for a URL; of a zip file, its directory says what is there."""
        url, options = self.path, self._options
        far = far or far_container(url, for_scans(options))
        zipped = zip_by_url(url, options)
        if zipped is not None:
            self.container = far
            url, options = f"zip://{far.root}::{zipped[0]}", _behind_zip(zipped[0], options)
        part = _part_of_object if zipped is None else _part_of_member
        self._store = _ByLine(partial(part, far), partial(_by_url, url, options))

    def _reach_elsewhere(self, *, allow_external: bool) -> None:
        """Make a store of zarr's for references to other files, or for an icechunk repository."""
        self._kind = is_elsewhere(self.path) or ""
        if self._kind == "icechunk":
            session = repository.session(self.path)
            self._store, self.version = session.store, session.snapshot_id
        elif self._kind:
            files = references.file_system(self.path, self._options, allow_external=allow_external)
            self._store = zarr.storage.FsspecStore(files, read_only=True, path="")
            # of a key that is none of format 2, its reader makes a number
            self._format = 2 if self._kind == "parquet" else None
            self.is_foreign = not references.are_inline(self.path)
        else:
            # zarr's own error says what is missing in this folder
            self.container = container_of(self.path, "zarr")

    def open_array(self, name: str) -> zarr.Array[Any]:
        """The array of that name."""
        return zarr.open_array(
            self._store, path=key_of(self._root, name), mode="r", zarr_format=self._format
        )

    def open_node(self, name: str) -> Any:
        """The array or group of that name, without consolidated metadata.

        That may be stale, and say 10 items where there are 20.
        """
        path = key_of(self._root, name)
        return zarr.open(
            self._store,
            path=path,
            mode="r",
            use_consolidated=False,
            zarr_format=self._format,
        )

    def open_root(self) -> Any:
        """The array or group that the store is."""
        if self.container is None:
            return self.open_node("")
        if self.container.has(".zarray") or self._node_type() == "array":
            return self.open_array("")
        return zarr.open_group(self._store, path=self._root, mode="r", use_consolidated=False)

    def kind(self, node: Any) -> str:
        """The kind of a file, in an index, that has this array or group."""
        if self._kind:
            return self._kind
        kind = "zarr" if self.container is None else self.container.kind
        return f"{kind}{node.metadata.zarr_format}"

    def stamped(self, entry: Entry) -> Entry:
        """The entry of this store, with the stamp of its version where it has versions."""
        if not self.version:
            return entry
        return entry.with_stamps((repository.stamp_of(self.version),))

    def has(self, key: str) -> bool:
        """Whether there are bytes of a key."""
        if self.container is not None:
            return self.container.has(key)
        return bool(sync(self._store.exists(key)))

    def names(self, path: str) -> Any:
        """The names of all keys below ``path`` of a store by URL."""
        return remote.names(join(self.path, path), self._options)

    def metadata(self, array: Any) -> bytes:
        """An array's metadata as it is stored, the same bytes that are read without zarr.

        Of a URL, as zarr spells them.
        """
        if self.container is None:
            return json.dumps(array.metadata.to_dict(), sort_keys=True, default=str).encode()
        marker = ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
        inside = array.path[len(self._root) :].strip("/")
        return self._read(key_of(inside, marker))

    def refuse_pipes(self, keys: Sequence[str] | None) -> None:
        """ValueError where metadata of a node, on the way to ``keys`` or of all, is no regular file."""
        if self.container is not None and self.container.kind == "zarr":
            refuse_pipes(self.path, keys)

    def refuse_pipe(self, key: str) -> None:
        """ValueError where a file is there that can be waited for."""
        if self.container is not None and self.container.kind == "zarr":
            refuse_pipe(join(self.path, key))

    def close(self) -> None:
        """Close a file that zarr keeps open."""
        if isinstance(self._store, zarr.storage.ZipStore):
            # zarr fails to close one that it had no need to open yet
            with suppress(AttributeError):
                self._store.close()

    def _read(self, key: str) -> bytes:
        assert self.container is not None, "what is read by URL has no container"
        found = self.container.read(key, sys.maxsize)
        return found[0] if found else b""

    def _node_type(self) -> Any:
        data = self._read("zarr.json")
        document = json.loads(data) if data else {"node_type": "group"}
        if not isinstance(document, dict) or "node_type" not in document:
            raise ValueError("its zarr.json is damaged: it has no node_type")
        return document["node_type"]


class ZarrStore:
    """Arrays of one zarr store."""

    def __init__(
        self,
        path: str | Path,
        axis: int,
        *,
        fill: bool,
        allow_external: bool = False,
        storage_options: Mapping[str, Any] | None = None,
        far: Any = None,
    ) -> None:
        self._path = os.fspath(path)
        self._options, self._allow_external, self._far = storage_options, allow_external, far
        self._way: Way | None = None
        self._axis = axis
        self._fill = fill
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def read(
        self,
        array: str,
        start: int,
        stop: int,
        *,
        axis: int | None = None,
        place: int | None = None,
        fill: bool | None = None,
        beside: Sequence[slice] = (),
    ) -> NDArray[Any]:
        """Items ``[start, stop)``, by one basic slice."""
        fills = self._fill if fill is None else fill
        along = self._axis if axis is None else axis
        box = slab(along, start, stop, place, beside)
        with as_os_errors():
            opened = self._open(array)
            is_near = self.way.container is not None
            if is_near:
                self._refuse_missing(array, opened, box, fills)
            block = np.asarray(opened[box])
            if not fills and not is_near:
                self._refuse_missing(array, opened, box, fills, block)
        return item_first(block, along) if place is None else item_first(block[0], along - 1)

    def describe(self, array: str) -> Stored:
        """Shape, dtype and chunks of an array, those inside where they lie in shards."""
        with as_os_errors():
            opened = self._open(array)
        return Stored(opened.shape, np.dtype(opened.dtype).newbyteorder("="), opened.chunks)

    def all(self, array: str, *, fill: bool | None = None) -> NDArray[Any]:
        """All of an array."""
        with as_os_errors():
            opened = self._open(array)
            if opened.ndim and opened.size:
                held = self.read(array, 0, opened.shape[0], axis=0, fill=fill)
            else:
                held = item_first(np.asarray(opened[...]), 0)
            # objects with what they are
            return held.view(dtype_of(opened)) if held.dtype == object else held

    def value(self, path: str, attribute: str | None) -> Any:
        """An attribute, or all of an array; KeyError where there is none."""
        with as_os_errors():
            if attribute is not None:
                try:
                    return self.way.open_node(path).attrs[attribute]
                except FileNotFoundError:
                    raise KeyError(path) from None
            try:
                array = self._open(path)
            except (FileNotFoundError, NodeTypeValidationError):
                raise KeyError(path) from None
            if array.ndim and array.size and np.dtype(array.dtype).kind in "biufc":
                return self.read(path, 0, array.shape[0], axis=0)
            return array[...]

    def _open(self, name: str) -> zarr.Array[Any]:
        opened = self._arrays.get(name)
        if opened is None:
            if len(self._arrays) >= _MOST_ARRAYS:
                self._arrays.clear()
            opened = self._arrays[name] = self.way.open_array(name)
        return opened

    @property
    def way(self) -> Way:
        """How the store is reached; it is looked for when it is first asked for."""
        if self._way is None:
            external = self._allow_external
            self._way = Way(self._path, self._options, allow_external=external, far=self._far)
        return self._way

    def close(self) -> None:
        """Forget the arrays."""
        self._arrays.clear()
        if self._way is not None:
            self._way.close()
            self._way = None

    def _refuse_missing(
        self,
        name: str,
        array: zarr.Array[Any],
        box: tuple[slice, ...],
        fill: bool,
        block: NDArray[Any] | None = None,
    ) -> None:
        """MissingChunkError where a chunk (or shard) of this box has no file with bytes in it.

        Zarr would read it as fill value. Of the ``block`` that was read, only chunks of nothing
        else are looked for: to ask a server costs as much as to read.
        """
        units = array.shards or array.chunks
        spans = chunks_of(box, array.shape, units)
        corner = [one.start or 0 for one in box] + [0] * (len(units) - len(box))
        for coordinates in itertools.product(*spans):
            key = array.metadata.encode_chunk_key(coordinates)
            if block is not None and not _is_fill(
                _part(block, coordinates, units, corner), array.fill_value
            ):
                continue
            if fill:
                # zarr knows what to fill in, and would wait for a FIFO
                self.way.refuse_pipe(key_of(name, key))
            elif not self.way.has(key_of(name, key)):
                shown = f"array {name!r}" if name else "the array"
                raise MissingChunkError(
                    f"chunk {key} of {shown} is not in the store, and zarr would read fill value {array.fill_value!r}"
                )


def _part(
    block: NDArray[Any], coordinates: Sequence[int], units: Sequence[int], corner: Sequence[int]
) -> NDArray[Any]:
    """What a read from ``corner`` on holds of the chunk at these coordinates."""
    spans = zip(coordinates, units, corner, strict=True)
    return block[
        tuple(slice(max(0, n * unit - first), (n + 1) * unit - first) for n, unit, first in spans)
    ]


def _is_fill(part: NDArray[Any], fill: Any) -> bool:
    filled = np.full_like(part, 0 if fill is None else fill)
    return np.array_equal(part, filled, equal_nan=part.dtype.kind in "fc")


class _ByLine(Store):  # type: ignore[misc]
    """The keys of a store by URL as zarr reads them: asked for again, compared, kept as all others.

    ``part`` waits for the bytes of a piece of a key; None where there is no such key. ``listed``
    makes a store of zarr's that lists a folder without what lies below.
    """

    supports_writes = supports_deletes = False
    supports_listing = True

    def __init__(self, part: Callable[[Piece], bytes | None], listed: Callable[[], Store]) -> None:
        super().__init__(read_only=True)
        self._part, self._listed = part, listed

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        data = await self._data(key, *_ends(byte_range))
        return None if data is None else prototype.buffer.from_bytes(data)

    async def get_partial_values(
        self,
        prototype: BufferPrototype,
        key_ranges: Iterable[tuple[str, ByteRequest | None]],
    ) -> list[Buffer | None]:
        wanted = [self.get(key, prototype, byte_range) for key, byte_range in key_ranges]
        return await asyncio.gather(*wanted)

    async def exists(self, key: str) -> bool:
        # of all of a shard one byte tells
        return await self._data(key, 0, 1) is not None

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async for name in self._listed().list_dir(prefix):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for name in self._listed().list_prefix(prefix):
            yield name

    async def list(self) -> AsyncIterator[str]:
        async for name in self._listed().list():
            yield name

    async def set(self, *_: object) -> None:
        self._check_writable()

    async def delete(self, *_: object) -> None:
        self._check_writable()

    async def _data(self, *part: Any) -> bytes | None:
        # zarr's only thread must not wait for a server
        return await asyncio.wrap_future(_HANDS.begin(self._part, Piece(*part)))


def _part_of_object(far: Far, part: Piece) -> bytes | None:
    found = far.objects.get(far.piece(*part))
    return None if found is None else found.data


def _part_of_member(zipped: Container, part: Piece) -> bytes | None:
    # those that fetch may wait for zarr
    with alone():
        if part == Piece(part.key):
            found = zipped.read(part.key, sys.maxsize)
            return None if found is None else found[0]
        opened = zipped.open(part.key)
        if opened is None:
            return None
        with closing(opened):
            start, stop = part.within(opened.size)
            return opened.read(stop - start, start)


def _ends(byte_range: ByteRequest | None) -> tuple[int, int | None]:
    """The bounds of the bytes that zarr asks for, as a ``Piece`` has them."""
    match byte_range:
        case RangeByteRequest(start, end):
            return start, end
        case OffsetByteRequest(offset):
            return offset, None
        case SuffixByteRequest(suffix):
            return -suffix, None
    return 0, None


def _by_url(path: str, options: Mapping[str, Any] | None) -> Any:
    """A store of zarr's for a URL, or for a chain of URLs.

    A cache of fsspec's is marked as asynchronous if the file system below it is. It is not
    asynchronous, but zarr relies on the mark.
    """
    if "::" not in path:
        return zarr.storage.FsspecStore.from_url(
            path, storage_options=dict(options or {}), read_only=True
        )
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    files, inner = file_system(path, options)
    return zarr.storage.FsspecStore(
        AsyncFileSystemWrapper(files, asynchronous=True), read_only=True, path=inner
    )


def _behind_zip(url: str, options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of a URL, as fsspec wants them where that is the zip file in a chain."""
    protocols = url.partition("://")[0].split("::")
    named = {name: value for name, value in (options or {}).items() if name in protocols}
    others = {name: value for name, value in (options or {}).items() if name not in protocols}
    return named | ({protocols[0]: others | named.get(protocols[0], {})} if others else {})


def _arrays(way: Way, root: Members) -> dict[str, tuple[int, ...] | str]:
    way.refuse_pipes(None)
    return root.shapes()


def _list_names(group: Any) -> list[str]:
    """What lies in a group, in the sequence of names; its metadata and hidden files left out."""

    async def listed() -> list[str]:
        return [name async for name in group.store.list_dir(group.path)]

    return sorted(
        name for name in sync(listed()) if name != "zarr.json" and not name.startswith(".")
    )


def _load(group: Any, key: str) -> bytes | None:
    """The bytes of a key below a group; None where there are none."""
    stored = sync(group.store.get(f"{group.path}/{key}".lstrip("/"), default_buffer_prototype()))
    return None if stored is None else bytes(stored.to_bytes())
