"""What a local zarr store holds, straight from its JSON: ten times faster than opening it.

Only what is plainly understood is answered here. Anything unusual (another data type, codec, grid, extension, or a file
that is not there) is None, and zarr itself is asked: it knows more, and words what is wrong.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from globidx.core.index.layout import Layout
from globidx.core.index.table import Entry
from globidx.disk.stores.base import array_info, make_entry, packing_of
from globidx.disk.stores.find_arrays import Field

_MOST_BYTES = 2**20
_MOST_OFTEN = 2**13  # room for more would cost more than reading does
# lists, not sets: what is looked for in them may be anything that JSON can say
_TYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
_CODECS = "bytes transpose blosc gzip zstd crc32c sharding_indexed".split()
_INNER_CODECS = _CODECS[:-1]
_COMPRESSORS = "blosc gzip zlib zstd lz4 bz2 lzma".split()
_V2_DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
_V3_KEYS = frozenset(
    "zarr_format node_type shape data_type chunk_grid chunk_key_encoding fill_value codecs attributes "
    "dimension_names storage_transformers consolidated_metadata".split()
)
_V2_KEYS = frozenset("zarr_format shape chunks dtype compressor fill_value order filters dimension_separator".split())


def scan(path: str, layout: Layout, axis: int) -> Entry | None:
    """The entry of a store whose root and arrays (``layout.keys``, or the root itself) are plain, or None."""
    root = _load(f"{path}/zarr.json")
    if root is not None:
        marker, kind, is_array = "zarr.json", "zarr3", root[0].get("node_type") == "array"
    else:
        root = _load(f"{path}/.zarray") or _load(f"{path}/.zgroup")
        marker, kind, is_array = ".zarray", "zarr2", root is not None and "shape" in root[0]
    if root is None or layout.rule is not None or is_array != (layout.keys is None):
        return None
    if is_array:
        found = [("", root)]
    else:
        if root[0].get("zarr_format") != (3 if marker == "zarr.json" else 2):
            return None
        read = [(key, _load(f"{path}/{key}/{marker}")) for key in layout.keys or ()]
        found = [(name, array) for name, array in read if array is not None]
        if len(found) < len(read):
            return None
    plain = _plain_v3 if marker == "zarr.json" else _plain_v2
    arrays = []
    for name, (metadata, _) in found:
        beside = _load(f"{path}/{name}/.zattrs") if marker == ".zarray" else None
        attributes: Any = beside[0] if beside else metadata.get("attributes", {})
        told = plain(metadata)
        if told is None or not isinstance(attributes, dict):
            return None
        shape, dtype, chunks = told
        field = Field(name, name, layout.form)
        packing = packing_of(attributes.get)
        arrays.append(array_info(field, shape, np.dtype(dtype), chunks, axis, length=layout.length, packing=packing))
    return make_entry(kind, arrays, b"".join(data for _, (_, data) in found))


def _load(path: str) -> tuple[dict[str, Any], bytes] | None:
    """A JSON object and its bytes; None where there is no such file, or not that in it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not be waited for
    except OSError:
        return None
    try:
        data = os.read(descriptor, _MOST_OFTEN)
        if len(data) == _MOST_OFTEN:
            data += os.read(descriptor, _MOST_BYTES)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    try:
        value = json.loads(data.decode())
    except (ValueError, RecursionError):
        return None
    return (value, data) if isinstance(value, dict) and len(data) < _MOST_BYTES else None


def _plain_v3(array: Mapping[str, Any]) -> tuple[list[int], str, list[int]] | None:
    """Shape, dtype and chunk shape, of the inner chunks if the array is sharded; None for what is not plain."""
    grid, encoding, codecs = array.get("chunk_grid"), array.get("chunk_key_encoding"), array.get("codecs")
    if not (
        array.keys() <= _V3_KEYS
        and array.get("zarr_format") == 3
        and array.get("node_type") == "array"
        and array.get("data_type") in _TYPES
        and array.get("storage_transformers", []) == []
        and _plain_fill(array.get("fill_value"), array["data_type"])
        and isinstance(grid, dict)
        and grid.get("name") == "regular"
        and isinstance(encoding, dict)
        and encoding.get("name") in ("default", "v2")
        and isinstance(codecs, list)
        and codecs
        and all(isinstance(codec, dict) and codec.get("name") in _CODECS for codec in codecs)
    ):
        return None
    shape, chunks = array.get("shape"), _configured(grid, "chunk_shape")
    if codecs[0]["name"] == "sharding_indexed":
        if _sized(shape, array["data_type"], chunks) is None:
            return None
        chunks = _configured(codecs[0], "chunk_shape")
        inner = (codecs[0].get("configuration") or {}).get("codecs")
        if len(codecs) > 1 or not isinstance(inner, list) or not all(_names(codec) for codec in inner):
            return None
    return _sized(shape, array["data_type"], chunks)


def _plain_v2(array: Mapping[str, Any]) -> tuple[list[int], str, list[int]] | None:
    compressor, dtype = array.get("compressor"), array.get("dtype")
    if not (
        _V2_KEYS - {"dimension_separator"} <= array.keys() <= _V2_KEYS
        and array.get("zarr_format") == 2
        and array.get("filters") is None
        and array.get("order") in ("C", "F")
        and array.get("dimension_separator", ".") in (".", "/")
        and (compressor is None or (isinstance(compressor, dict) and compressor.get("id") in _COMPRESSORS))
        and isinstance(dtype, str)
        and _V2_DTYPE.fullmatch(dtype)
    ):
        return None
    name, fill = np.dtype(dtype).name, array.get("fill_value")
    if fill is not None and not _plain_fill(fill, name):
        return None
    return _sized(array.get("shape"), name, array.get("chunks"))


def _plain_fill(fill: Any, dtype: str) -> bool:
    """Whether it is a fill value as writers spell it: what else it might be, zarr judges."""
    if dtype == "bool":
        return type(fill) is bool
    if dtype.startswith("complex"):
        return isinstance(fill, list) and [type(part) for part in fill] in ([int, int], [float, float])
    if "int" in dtype:
        return type(fill) is int and 0 <= fill < 128
    return type(fill) in (int, float)


def _names(codec: Any) -> bool:
    return isinstance(codec, dict) and codec.get("name") in _INNER_CODECS


def _configured(value: Mapping[str, Any], name: str) -> Any:
    configuration = value.get("configuration")
    return configuration.get(name) if isinstance(configuration, dict) else None


def _sized(shape: Any, dtype: str, chunks: Any) -> tuple[list[int], str, list[int]] | None:
    lists = isinstance(shape, list) and isinstance(chunks, list) and len(shape) == len(chunks)
    if not lists or not all(type(size) is int and size >= 0 for size in shape):
        return None
    return (shape, dtype, chunks) if all(type(size) is int and size > 0 for size in chunks) else None
