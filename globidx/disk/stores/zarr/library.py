"""zarr stores on a local path or by URL, formats 2 and 3, sharded or not.

It is the only module that imports zarr.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync
from zarr.errors import NodeTypeValidationError

from globidx.core.index.layout import Layout
from globidx.core.index.table import SPARSE, Entry
from globidx.disk.files.paths import is_remote, join
from globidx.disk.stores import anndata, find_arrays, find_sequences, remote
from globidx.disk.stores.base import (
    Audit,
    Contents,
    Looking,
    Stored,
    array_info,
    item_first,
    make_entry,
    slab,
)
from globidx.disk.stores.find_arrays import Field
from globidx.disk.stores.zarr import presence
from globidx.disk.stores.zarr.pipes import refuse_pipe, refuse_pipes
from globidx.disk.stores.zarr.presence import ChunkFiles
from globidx.disk.stores.zarr.tree import Members, ZarrTree, dtype_of, packing_in
from globidx.errors import MissingChunkError, ReadError

#: Arrays that a store keeps open: one of a hundred thousand groups would keep as many.
_MOST_ARRAYS = 1024


def scan(path: str, layout: Layout, axis: int) -> Entry:
    """The store's arrays of ``layout``; "" is a store that is an array itself.

    ``path`` may be a URL.
    """
    with remote.as_os_errors():
        try:
            return _scan(path, layout, axis)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"its metadata (zarr.json, .zarray or .zgroup) is damaged: it is no JSON: {error}"
            ) from error


def _scan(path: str, layout: Layout, axis: int) -> Entry:
    if not is_remote(path):
        keys = () if layout.inner.kind == "match" else layout.keys
        refuse_pipes(path, None if layout.rule else keys)
    node = _open_plain(path)
    store = ZarrStore(path, 0, fill=False)
    root: Any
    if layout.inner.kind == "match" and not isinstance(node, zarr.Array):
        found, inside, identity = find_sequences.matched(ZarrTree(path, node, store), layout, axis)
        kind = f"zarr{node.metadata.zarr_format}"
        metadata = repr(identity).encode()
        return make_entry(kind, found, metadata, is_foreign=is_remote(path), inside=inside)
    if isinstance(node, zarr.Array):
        if layout.keys is not None or layout.rule is not None:
            wanted = layout.keys[0] if layout.keys else layout.rule
            raise ValueError(
                f"it is a bare array, so it has no {wanted!r} in it; leave key and layout out"
            )
        fields, root = [Field("", "", layout.form, axis)], {"": node}
    else:
        root = members = Members(node, _list_names, _load)
        fields = find_arrays.find(root, layout, axis, lambda: _arrays(path, members))
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
        documents += [_metadata(path, array), packing.encode()]
    kind = f"zarr{array.metadata.zarr_format}"
    read = _refuse_read if isinstance(node, zarr.Array) else ZarrTree(path, node, store).read
    inside = find_sequences.inside(infos, shapes, layout, read)
    categories = anndata.names_at([field.names for field in fields], read)
    metadata = b"".join(documents)
    return make_entry(
        kind,
        infos,
        metadata,
        is_foreign=is_remote(path),
        inside=inside,
        categories=categories,
    )


def _refuse_read(path: str) -> NDArray[Any]:
    raise ValueError(f"it is a bare array, so it has no {path!r} in it")


def arrays_like(
    path: str, pattern: str, varies: Sequence[str], *, allow_external: bool
) -> list[str]:
    """The arrays whose paths match ``pattern``, and of which all attributes ``varies`` are true."""
    del allow_external  # zarr arrays have their data in their store
    root = _open_plain(path)
    if isinstance(root, zarr.Array):
        return []
    listed = find_sequences.arrays_like(
        ZarrTree(path, root, ZarrStore(path, 0, fill=False)), pattern
    )
    return [one for one in listed if all(root[one].attrs.get(name, True) for name in varies)]


def available(path: str, *, allow_external: bool) -> dict[str, str]:
    """What an AnnData store has a row of for each observation, by key."""
    del allow_external  # zarr arrays have their data in their store
    with remote.as_os_errors():
        return anndata.available(_open_plain(path))


def ome_pattern(path: str) -> str | None:
    """The key of the images of a store by URL that holds many."""
    root = _open_plain(path)
    return None if isinstance(root, zarr.Array) else find_arrays.ome_pattern(root)


def contents(path: str, pattern: str, *, allow_external: bool) -> Contents | None:
    """All that lies in the first group that ``pattern`` matches; None where it matches arrays."""
    del allow_external  # zarr arrays have their data in their store
    root = _open_plain(path)
    if isinstance(root, zarr.Array):
        return None
    tree = ZarrTree(path, root, ZarrStore(path, 0, fill=False))
    return find_sequences.contents(tree, pattern)


def audit(path: str | Path, array: str, axis: int, looking: Looking) -> Audit:
    """What is there of an array of which zarr must be asked: whole shards, of a sharded one."""
    if not is_remote(str(path)):
        refuse_pipes(os.fspath(path), [array])
    with remote.as_os_errors():
        opened = zarr.open_array(_zarr_path(_path_in(path, array)), mode="r")
        if not opened.shape:
            absent = not _has_bytes(_path_in(path, array, opened.metadata.encode_chunk_key(())))
            checked = presence.has_checksums(opened.metadata.to_dict())
            return Audit((), 1, int(absent), checked, None, str(opened.fill_value))
        units = opened.shards or opened.chunks
        counts = Counter(place[axis] for place in _places(path, array, opened, units, looking))
    checked = presence.has_checksums(opened.metadata.to_dict())
    return presence.counted(opened.shape, units, counts, axis, checked, str(opened.fill_value))


def _places(
    path: str | Path, name: str, array: Any, units: Sequence[int], looking: Looking
) -> Iterator[tuple[int, ...]]:
    """The grid coordinates of the chunks that are there: by a listing where their names are usual."""
    grid = presence.grid_of(array.shape, units)
    folder, key_of = _path_in(path, name), array.metadata.encode_chunk_key
    files = _named(grid, key_of)
    if files is not None and is_remote(folder):
        keys = remote.names(folder)
        read = (presence.place_of(key, files.prefix, files.separator, grid) for key in keys)
        yield from filter(None, read)
    elif files is not None and os.path.isdir(path):
        yield from presence.local_places(folder, files, looking)
    else:
        for place in itertools.product(*map(range, grid)):
            looking.step()
            if _has_bytes(_path_in(folder, key_of(place))):
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


def open_store(path: str | Path, axis: int, *, on_missing: str) -> ZarrStore:
    """An open store; it holds no file descriptor between reads."""
    return ZarrStore(path, axis, fill=on_missing == "fill")


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


class ZarrStore:
    """Arrays of one zarr store."""

    def __init__(self, path: str | Path, axis: int, *, fill: bool) -> None:
        self._path = path
        self._is_remote = is_remote(str(path))
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
    ) -> NDArray[Any]:
        """Items ``[start, stop)``, by one basic slice."""
        along = self._axis if axis is None else axis
        fills = self._fill if fill is None else fill
        with remote.as_os_errors():
            opened = self._open(array)
            if not self._is_remote:
                self._refuse_missing(array, opened, along, start, stop, place, fills)
            block = np.asarray(opened[slab(along, start, stop, place)])
            if not fills and self._is_remote:
                self._refuse_missing(array, opened, along, start, stop, place, fills, block)
        return item_first(block, along) if place is None else item_first(block[0], along - 1)

    def describe(self, array: str) -> Stored:
        """Shape, dtype and chunks of an array."""
        with remote.as_os_errors():
            opened = self._open(array)
        return Stored(opened.shape, np.dtype(opened.dtype).newbyteorder("="), opened.chunks)

    def all(self, array: str, *, fill: bool | None = None) -> NDArray[Any]:
        """All of an array."""
        with remote.as_os_errors():
            opened = self._open(array)
            if opened.ndim and opened.size:
                held = self.read(array, 0, opened.shape[0], axis=0, fill=fill)
            else:
                held = item_first(np.asarray(opened[...]), 0)
            # objects with what they are
            return held.view(dtype_of(opened)) if held.dtype == object else held

    def value(self, path: str, attribute: str | None) -> Any:
        """An attribute, or all of an array; KeyError where there is none."""
        with remote.as_os_errors():
            if attribute is not None:
                try:
                    return zarr.open(
                        _zarr_path(_path_in(self._path, path)), mode="r", use_consolidated=False
                    ).attrs[attribute]
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
            path = _zarr_path(_path_in(self._path, name))
            opened = self._arrays[name] = zarr.open_array(path, mode="r")
        return opened

    def close(self) -> None:
        """Forget the arrays."""
        self._arrays.clear()

    def _refuse_missing(
        self,
        name: str,
        array: zarr.Array[Any],
        axis: int,
        start: int,
        stop: int,
        place: int | None,
        fill: bool,
        block: NDArray[Any] | None = None,
    ) -> None:
        """MissingChunkError where a chunk (or shard) of these items has no file with bytes in it.

        Zarr would read it as fill value. Of the ``block`` that was read, only chunks of nothing
        else are looked for: to ask a server costs as much as to read.
        """
        units = array.shards or array.chunks
        spans = [range(-(-size // unit)) for size, unit in zip(array.shape, units, strict=True)]
        # a damaged indptr may ask for far more than there is
        end = spans[axis].stop
        spans[axis] = range(start // units[axis], min(end, -(-stop // units[axis])))
        corner = [0] * len(spans)
        corner[axis] = start
        if place is not None:
            spans[0] = range(place // units[0], place // units[0] + 1)
            corner[0] = place
        for coordinates in itertools.product(*spans):
            key = array.metadata.encode_chunk_key(coordinates)
            if block is not None and not _is_fill(
                _part(block, coordinates, units, corner), array.fill_value
            ):
                continue
            if fill:
                # zarr knows what to fill in, and would wait for a FIFO
                refuse_pipe(_path_in(self._path, name, key))
            elif not _has_bytes(_path_in(self._path, name, key)):
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


def _path_in(path: str | Path, *names: str) -> str:
    """A place in a store; of a URL, too."""
    return join(os.fspath(path), *names)


def _zarr_path(path: str) -> Any:
    """What zarr opens: the path itself, or of a chain of URLs a store that is made here.

    A cache of fsspec's is marked as asynchronous if the file system below it is. It is not
    asynchronous, but zarr relies on the mark.
    """
    if not is_remote(path) or "::" not in path:
        return path
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    files, inner = remote.file_system(path)
    return zarr.storage.FsspecStore(
        AsyncFileSystemWrapper(files, asynchronous=True), read_only=True, path=inner
    )


def _has_bytes(path: str) -> bool:
    if is_remote(path):
        return remote.exists(path)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0


def _arrays(path: str, root: Members) -> dict[str, tuple[int, ...] | str]:
    if not is_remote(path):
        refuse_pipes(path, None)
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


def _metadata(path: str, array: Any) -> bytes:
    """An array's metadata as it is stored, the same bytes that are read without zarr.

    Of a URL, as zarr spells them.
    """
    if is_remote(path):
        return json.dumps(array.metadata.to_dict(), sort_keys=True, default=str).encode()
    marker = ".zarray" if array.metadata.zarr_format == 2 else "zarr.json"
    return Path(path, array.path, marker).read_bytes()


def _open_plain(path: str) -> Any:
    """The array or group at ``path``, without consolidated metadata.

    That may be stale, and say 10 items where there are 20.
    """
    if is_remote(path):
        return zarr.open(_zarr_path(path), mode="r", use_consolidated=False)
    if os.path.exists(f"{path}/.zarray") or _node_type(path) == "array":
        return zarr.open_array(path, mode="r")
    return zarr.open_group(path, mode="r", use_consolidated=False)


def _node_type(path: str) -> Any:
    try:
        return json.loads(Path(path, "zarr.json").read_bytes())["node_type"]
    except FileNotFoundError:
        return "group"
