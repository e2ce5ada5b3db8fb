"""The groups and arrays of a zarr store, many of them.

They are read from their JSON where that is plain, else by zarr.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.disk.stores.base import UNREADABLE, NotPlainError
from globidx.disk.stores.find_sequences import Described, unwritten
from globidx.disk.stores.nodes import is_array
from globidx.disk.stores.zarr.containers import key_of
from globidx.disk.stores.zarr.fast_scan import attributes_of, load, packing_by
from globidx.disk.stores.zarr.metadata import parse_metadata
from globidx.errors import MissingChunkError

#: Elements of the one kind of object that zarr reads, which are no text.
_BYTES = np.dtype(object, metadata={"vlen": bytes})


def dtype_of(array: Any) -> np.dtype[Any]:
    """The dtype of an array that zarr opened; objects with what they are in their metadata."""
    dtype: np.dtype[Any] = array.dtype
    return _BYTES if dtype.kind == "O" else dtype


class FloatArray(NamedTuple):
    """An array of floats that zarr has no data type for, as its metadata tells it."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    chunks: tuple[int, ...]
    attrs: dict[str, Any]
    fill_value: Any
    metadata: FloatMetadata


class FloatMetadata(NamedTuple):
    """The JSON object of a ``zarr.json``."""

    spelled: dict[str, Any]
    zarr_format: int = 3

    def to_dict(self) -> dict[str, Any]:
        """The object itself."""
        return self.spelled


def reason_of(error: Exception) -> str:
    """Why something in a store cannot be opened."""
    if isinstance(error, json.JSONDecodeError):
        return f"its metadata (zarr.json, .zarray or .zgroup) is damaged: it is no JSON: {error}"
    return str(error) or type(error).__name__


class Members:
    """What lies in a group of zarr's, whose own listing fails where one of many cannot be opened.

    ``list_names(group)`` lists what lies in it, and ``load(group, key)`` is the value of a key.
    """

    def __init__(
        self,
        group: Any,
        list_names: Callable[[Any], list[str]],
        load: Callable[[Any, str], bytes | None],
    ) -> None:
        self._group, self._list_names, self._load = group, list_names, load
        self.attrs = group.attrs

    def __getitem__(self, path: str) -> Any:
        """The array or group at ``path``; KeyError where there is none, ValueError where zarr has no way to it."""
        try:
            found = self._group[path]
        except ValueError:
            floats = self._floats(path)
            if floats is None:
                raise
            return floats
        return found if is_array(found) else Members(found, self._list_names, self._load)

    def _floats(self, path: str) -> FloatArray | None:
        """An array of floats that zarr has not, at a path that does not lead out of the store."""
        if {"", ".", ".."} & set(path.split("/")):
            return None
        try:
            document = json.loads(self._load(self._group, f"{path}/zarr.json") or b"null")
            array = parse_metadata(document)
        except ValueError:
            return None
        if array.dtype.metadata is None:
            # zarr has it, and what is wrong is something else
            return None
        return FloatArray(
            path,
            array.shape,
            array.dtype,
            array.chunks,
            document.get("attributes") or {},
            document.get("fill_value"),
            FloatMetadata(document),
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._list_names(self._group))

    def shapes(self) -> dict[str, tuple[int, ...] | str]:
        """The shape of each array in it and below; of one that cannot be opened, why."""
        shapes: dict[str, tuple[int, ...] | str] = {}
        for name in self:
            try:
                node = self[name]
            except KeyError:
                continue
            except UNREADABLE as error:
                shapes[name] = reason_of(error)
                continue
            if is_array(node):
                shapes[name] = node.shape
            else:
                shapes |= {f"{name}/{path}": shape for path, shape in node.shapes().items()}
        return shapes


class ZarrTree:
    """What lies in the store whose root group is ``root``; ``store``, a ``ZarrStore``, reads its arrays."""

    def __init__(self, root: Any, store: Any) -> None:
        self._root, self._store = root, store
        self._container = store.way.container
        self._marker = "zarr.json" if root.metadata.zarr_format == 3 else ".zarray"

    def groups(self, path: str) -> Iterable[str]:
        """The names of all that is in the group at ``path``; nothing where there is no group."""
        if self._container is not None:
            return list(self._container.groups(path))
        node = self._node(path)
        return [name for name, _ in node.members()] if hasattr(node, "members") else []

    def describe(self, path: str) -> Described | None:
        """The array at ``path``; None where there is none."""
        if self._container is not None:
            marker = key_of(path, self._marker)
            loaded = load(self._container, marker)
            if loaded is None:
                # zarr, which is asked next, would wait for it
                self._store.way.refuse_pipe(marker)
                if not self._container.has(marker):
                    return None
            elif loaded[0].get("node_type", "array") == "group":
                return None
            else:
                with suppress(NotPlainError):
                    array = parse_metadata(loaded[0])
                    given = attributes_of(self._container, path, loaded[0])
                    packing = packing_by(given, array.dtype, loaded[0])
                    identity = (loaded[0], packing)
                    return Described(array.shape, array.dtype, array.chunks, packing, identity)
        node = self._node(path)
        if not is_array(node):
            return None
        packing = packing_in(node)
        identity = (node.metadata.to_dict(), packing)
        return Described(node.shape, dtype_of(node), node.chunks, packing, identity)

    def read(self, path: str) -> NDArray[Any]:
        """All of the array at ``path``; ValueError where there is none, or a chunk of it is absent.

        An absent chunk of flags holds no set flag: writers leave such chunks out.
        """
        node = self._node(path)
        if not is_array(node):
            raise ValueError(f"it has no array {path!r}")
        if node.dtype.kind == "b" or node.size <= 1:
            return np.asarray(node[...])
        try:
            rows: NDArray[Any] = self._store.read(path, 0, node.shape[0])
        except MissingChunkError as error:
            raise ValueError(unwritten(error)) from None
        return rows

    def attributes(self, path: str) -> Mapping[str, Any]:
        """The attributes of the group at ``path``."""
        node = self._node(path)
        return {} if node is None else dict(node.attrs)

    def _node(self, path: str) -> Any:
        self._store.way.refuse_pipes([path])
        try:
            return self._root[path] if path else self._root
        except KeyError:
            return None


def packing_in(array: Any) -> str:
    """How the numbers of an array that zarr opened are packed."""
    document = {"zarr_format": array.metadata.zarr_format, "fill_value": array.fill_value}
    return packing_by(dict(array.attrs), array.dtype, document)
