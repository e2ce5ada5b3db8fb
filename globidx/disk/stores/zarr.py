"""zarr stores on a local path, formats 2 and 3, sharded or not: the only module that imports zarr."""

from __future__ import annotations

import itertools
import json
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from globidx.core.table import Entry
from globidx.disk.stores import (
    array_info,
    choose_keys,
    item_first,
    make_entry,
    metadata_files,
    slab,
)
from globidx.errors import MissingChunkError


def scan(path: Path, keys: Sequence[str] | None, axis: int) -> Entry:
    """The store's arrays named by ``keys``, or its only one; "" is a store that is an array itself."""
    node = _open_plain(path)
    if isinstance(node, zarr.Array):
        if keys is not None:
            raise ValueError(f"it is a bare array, so it has no array {keys[0]!r}; leave key out")
        arrays: dict[str, Any] = {"": node}
        names: tuple[str, ...] = ("",)
    else:
        wanted = [key.strip("/") for key in keys] if keys is not None else None
        arrays = {key: node[key] for key in wanted or () if key in node}
        if wanted is None or not all(isinstance(arrays.get(key), zarr.Array) for key in wanted):
            arrays = {name: item for name, item in node.members(max_depth=None) if isinstance(item, zarr.Array)}
        names = choose_keys(wanted, sorted(arrays))
    chosen = [arrays[name] for name in names]
    kind = f"zarr{chosen[0].metadata.zarr_format}"
    infos = [array_info(name, a.shape, a.dtype, a.chunks, axis) for name, a in zip(names, chosen, strict=True)]
    metadata = b"".join(file.read_bytes() for file in metadata_files(path, kind, names))
    return make_entry(kind, infos, metadata)


def open_store(path: Path, axis: int, *, on_missing: str) -> ZarrStore:
    """An open store; it holds no file descriptor between reads."""
    return ZarrStore(path, axis, fill=on_missing == "fill")


class ZarrStore:
    """Arrays of one zarr store."""

    def __init__(self, path: Path, axis: int, *, fill: bool) -> None:
        self._path = path
        self._axis = axis
        self._fill = fill
        self._arrays: dict[str, zarr.Array[Any]] = {}

    def read(self, array: str, start: int, stop: int) -> NDArray[Any]:
        """Items ``[start, stop)``, by one basic slice."""
        opened = self._arrays.get(array)
        if opened is None:
            opened = self._arrays[array] = zarr.open_array(self._path / array, mode="r")
        if not self._fill:
            self._refuse_missing(array, opened, start, stop)
        block = opened[slab(self._axis, start, stop)]
        return item_first(np.asarray(block), self._axis)

    def close(self) -> None:
        """Forget the arrays."""
        self._arrays.clear()

    def _refuse_missing(self, name: str, array: zarr.Array[Any], start: int, stop: int) -> None:
        """MissingChunkError where a chunk (or shard) of these items has no file with bytes in it.

        Zarr would read it as fill value.
        """
        units = array.shards or array.chunks
        spans = [range(-(-size // unit)) for size, unit in zip(array.shape, units, strict=True)]
        spans[self._axis] = range(start // units[self._axis], -(-stop // units[self._axis]))
        for coordinates in itertools.product(*spans):
            key = array.metadata.encode_chunk_key(coordinates)
            if not _has_bytes(os.path.join(self._path, name, key)):
                shown = f"array {name!r}" if name else "the array"
                raise MissingChunkError(
                    f"chunk {key} of {shown} is not in the store, and zarr would read fill value {array.fill_value!r}; "
                    "if the writer skips chunks that hold nothing else, pass on_missing='fill'"
                )


def _has_bytes(path: str) -> bool:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size > 0


def _open_plain(path: Path) -> Any:
    """The array or group at ``path``, without consolidated metadata.

    That may be stale, and say 10 items where there are 20.
    """
    if (path / ".zarray").exists() or _node_type(path) == "array":
        return zarr.open_array(path, mode="r")
    return zarr.open_group(path, mode="r", use_consolidated=False)


def _node_type(path: Path) -> Any:
    try:
        return json.loads((path / "zarr.json").read_bytes())["node_type"]
    except FileNotFoundError:
        return "group"
