"""Scans local zarr stores, in folders or zip files, from their JSON alone: ten times faster than opening them.

Anything unusual (another data type, codec, grid, extension, or a missing file) is None here, and
zarr itself opens the store: it understands more, and its errors are clearer.
"""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from globidx.core.index.layout import Layout
from globidx.core.index.table import Entry
from globidx.core.values.packing import ATTRIBUTES
from globidx.disk.stores import ome
from globidx.disk.stores.base import NotPlainError
from globidx.disk.stores.find_arrays import Field, fields_of
from globidx.disk.stores.index_entries import array_info, make_entry, packing_of
from globidx.disk.stores.zarr.containers import MOST_METADATA, Container, key_of
from globidx.disk.stores.zarr.metadata import parse_metadata

#: Metadata of this many bytes are of no plate.
_LARGEST = 2**30


def scan(store: Container, layout: Layout, axis: int) -> Entry | None:
    """The entry of a store whose root and arrays are plain, or None.

    The arrays are ``layout.keys``, or the root itself.
    """
    root = load(store, "zarr.json")
    if root is not None:
        marker, zarr_format = "zarr.json", 3
        is_array = root[0].get("node_type") == "array"
    else:
        root = load(store, ".zarray") or load(store, ".zgroup")
        marker, zarr_format = ".zarray", 2
        is_array = root is not None and "shape" in root[0]
    if root is None or not layout.is_direct or is_array != (layout.keys is None):
        return None
    loaded: list[tuple[dict[str, Any], bytes] | None]
    if is_array:
        fields: Sequence[Field] = [Field("", "", layout.form, axis)]
        loaded = [root]
    else:
        if root[0].get("zarr_format") != zarr_format:
            return None
        fields = fields_of(layout, axis)
        loaded = [load(store, key_of(field.path, marker)) for field in fields]
    arrays, metadata = [], []
    for field, one in zip(fields, loaded, strict=True):
        if one is None:
            return None
        document, data = one
        attributes = attributes_of(store, field.path, document)
        try:
            array = parse_metadata(document)
        except NotPlainError:
            return None
        if document["zarr_format"] != zarr_format or not isinstance(attributes, dict):
            return None
        if not _is_common_fill(document.get("fill_value", ""), array.dtype, is_v2=zarr_format == 2):
            return None
        packing = packing_by(attributes, array.dtype, document)
        info = array_info(
            field, array.shape, array.dtype, array.chunks, length=layout.length, packing=packing
        )
        arrays.append(info)
        metadata += [data, packing.encode()]
    return make_entry(f"{store.kind}{zarr_format}", arrays, b"".join(metadata))


def packing_by(attributes: Any, dtype: Any, document: dict[str, Any]) -> str:
    """How the numbers of an array are packed, as ``packing_of`` says it.

    Of zarr 2 the fill value in the metadata ``document`` counts as ``_FillValue``. In zarr 3 that
    is an attribute, in which xarray writes floats as base64. NotPlainError where a fill value is
    spelled in another way.
    """
    if not (isinstance(attributes, dict) and isinstance(dtype, np.dtype) and dtype.kind in "biufc"):
        return ""
    if document["zarr_format"] == 3 and attributes.keys().isdisjoint(ATTRIBUTES):
        # as most are
        return ""
    fill, spelled = document.get("fill_value"), attributes.get("_FillValue")
    if document["zarr_format"] == 2 and fill is not None:
        try:
            own = dtype.type(complex(*fill) if isinstance(fill, list) else fill)
        except (TypeError, ValueError, OverflowError):
            raise NotPlainError("fill_value") from None
        return packing_of(attributes.get, dtype, own)
    if document["zarr_format"] == 3 and dtype.kind == "f" and isinstance(spelled, str):
        with suppress(ValueError, struct.error):
            (number,) = struct.unpack("<d", base64.b64decode(spelled, validate=True))
            attributes = {**attributes, "_FillValue": number}
    return packing_of(attributes.get, dtype)


def attributes_of(store: Container, path: str, document: dict[str, Any]) -> Any:
    """The attributes of an array, by its metadata ``document``; those of zarr 2 are in a file of their own."""
    if document.get("zarr_format") == 2:
        found = load(store, key_of(path, ".zattrs"))
        return found[0] if found else {}
    return document.get("attributes", {})


def ome_pattern(store: Container) -> str | None:
    """The key of the images of a store on a disk that holds many.

    A plate has thousands of groups, which zarr opens at ten times the cost.
    """
    return ome.key_of(partial(_group_attributes, store), partial(_is_array, store))


def _group_attributes(store: Container, path: str) -> dict[str, Any]:
    """The attributes of a group; none where there is no group."""
    loaded = load(store, key_of(path, "zarr.json")) or load(store, key_of(path, ".zgroup"))
    document = loaded[0] if loaded else _large(store, key_of(path, "zarr.json"))
    found = attributes_of(store, path, document)
    return found if isinstance(found, dict) else {}


def _large(store: Container, key: str) -> dict[str, Any]:
    """A JSON object of any size: the metadata of a plate may hold those of all that is in it."""
    found = store.read(key, _LARGEST)
    value = json.loads(found[0] or b"{}") if found else {}
    return value if isinstance(value, dict) else {}


def _is_array(store: Container, path: str) -> bool:
    loaded = load(store, key_of(path, "zarr.json"))
    if loaded is None:
        return store.has(key_of(path, ".zarray"))
    return loaded[0].get("node_type") == "array"


def load(store: Container, key: str) -> tuple[dict[str, Any], bytes] | None:
    """A JSON object and its bytes; None where there is no such key, or not that in it."""
    data = store.load(key)
    if data is None or len(data) >= MOST_METADATA:
        return None
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return (value, data) if isinstance(value, dict) else None


def _is_common_fill(fill: Any, dtype: np.dtype[Any], *, is_v2: bool) -> bool:
    """Whether a fill value is spelled as writers spell it. Any other is for zarr to judge."""
    if fill is None:
        return is_v2
    if dtype.metadata:
        # numbers, and bits or words in text
        return type(fill) in (int, float, str)
    if dtype.kind == "b":
        return type(fill) is bool
    if dtype.kind == "c":
        return isinstance(fill, list) and [type(part) for part in fill] in (
            [int, int],
            [float, float],
        )
    if dtype.kind in "iu":
        return type(fill) is int and 0 <= fill < 128
    return type(fill) in (int, float)
