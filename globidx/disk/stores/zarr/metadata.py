"""How a plain zarr array lies on disk: its metadata as a value, shared by all files that say the same.

Plain is what the specification of zarr 2 and 3 describes and zarr itself writes by default: a regular grid, and codecs
that are known here. Anything else is refused with the reason, and left to zarr.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from globidx.disk.stores.base import NotPlainError
from globidx.disk.stores.codecs import Codec, codec_of

_TYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
_V2_DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
_V3_KEYS = frozenset(
    "zarr_format node_type shape data_type chunk_grid chunk_key_encoding fill_value codecs attributes "
    "dimension_names storage_transformers consolidated_metadata".split()
)


@dataclass(frozen=True)
class Shards:
    """Chunks in one file: its shape in elements, whether its index comes first, and whether that has a CRC-32C."""

    shape: tuple[int, ...]
    index_first: bool
    checked: bool


@dataclass(frozen=True)
class ArrayMetadata:
    """Where chunks lie and how they are encoded.

    ``chunks`` are those that are decoded, inside of shards where there are any. ``axes`` is the sequence in which a
    chunk's axes are stored. The key of a chunk file is ``prefix`` and its place in the grid, joined by ``separator``.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: Shards | None
    dtype: np.dtype[Any]
    axes: tuple[int, ...]
    codecs: tuple[Codec, ...]
    codec_names: tuple[str, ...]
    prefix: str
    separator: str

    def key(self, place: tuple[int, ...]) -> str:
        """The file of a chunk or shard, relative to the array's folder.

        >>> parse_array(b'{"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": "<u2", "compressor": null, \
"fill_value": 0, "order": "C", "filters": null}').key((1,))
        '1'
        """
        return self.prefix + self.separator.join(map(str, place))


@lru_cache(maxsize=256)
def parse_array(metadata: bytes) -> ArrayMetadata:
    """The array that a ``zarr.json`` or ``.zarray`` describes; NotPlainError where not all of it is understood."""
    array = json.loads(metadata)
    _want(isinstance(array, dict), "its metadata is no JSON object")
    try:
        return _parse_v3(array) if array.get("zarr_format") == 3 else _parse_v2(array)
    except (KeyError, TypeError, AttributeError, IndexError) as error:  # JSON of another shape than these
        raise NotPlainError(f"unusual metadata ({type(error).__name__}: {error})") from error


def _parse_v2(array: Mapping[str, Any]) -> ArrayMetadata:
    _want(array["zarr_format"] == 2, f"zarr_format {array['zarr_format']!r}")
    _want(bool(isinstance(array["dtype"], str) and _V2_DTYPE.fullmatch(array["dtype"])), f"dtype {array['dtype']!r}")
    _want(not array["filters"], "filters")
    _want(array["order"] in ("C", "F"), f"order {array['order']!r}")
    separator = array.get("dimension_separator", ".")
    _want(separator in (".", "/"), f"dimension_separator {separator!r}")
    shape, chunks = _sizes(array["shape"]), _sizes(array["chunks"])
    compressor = array["compressor"]
    named = [] if compressor is None else [(compressor["id"], compressor)]
    axes = tuple(range(len(shape)))
    return ArrayMetadata(
        shape=shape,
        chunks=chunks,
        shards=None,
        dtype=np.dtype(array["dtype"]),
        axes=axes if array["order"] == "C" else axes[::-1],
        codecs=tuple(_codec(name, configuration) for name, configuration in named),
        codec_names=tuple(name for name, _ in named),
        prefix="",
        separator=separator,
    )


def _parse_v3(array: Mapping[str, Any]) -> ArrayMetadata:
    _want(array.keys() <= _V3_KEYS, f"metadata {sorted(array.keys() - _V3_KEYS)}")
    _want(array["data_type"] in _TYPES, f"data type {array['data_type']!r}")
    _want(not array.get("storage_transformers"), "storage transformers")
    _want(array["chunk_grid"]["name"] == "regular", f"chunk grid {array['chunk_grid']['name']!r}")
    shape = _sizes(array["shape"])
    chunks = _sizes(array["chunk_grid"]["configuration"]["chunk_shape"])
    encoding = array["chunk_key_encoding"]
    _want(encoding["name"] in ("default", "v2"), f"chunk key encoding {encoding['name']!r}")
    default = encoding["name"] == "default"
    separator = (encoding.get("configuration") or {}).get("separator", "/" if default else ".")
    _want(separator in (".", "/"), f"chunk key separator {separator!r}")
    codecs, shards = array["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        _want(len(codecs) == 1, "codecs around shards")
        sharding = codecs[0]["configuration"]
        shards, chunks, codecs = _shards(sharding, chunks), _sizes(sharding["chunk_shape"]), sharding["codecs"]
        _want(all(whole % part == 0 for whole, part in zip(shards.shape, chunks, strict=True)), "uneven shards")
    named = [(codec["name"], codec.get("configuration") or {}) for codec in codecs]
    axes, named = _axes(named, len(chunks))
    dtype = np.dtype(array["data_type"])
    _want(bool(named) and named[0][0] == "bytes", f"codec {named[0][0] if named else 'none'!r}")
    endian = named[0][1].get("endian", "little" if dtype.itemsize == 1 else None)
    _want(endian in ("little", "big"), f"byte order {endian!r}")
    _want(len(shape) == len(chunks), "chunks of another dimension")
    return ArrayMetadata(
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype.newbyteorder("<" if endian == "little" else ">"),
        axes=axes,
        codecs=tuple(_codec(name, configuration) for name, configuration in named[1:]),
        codec_names=tuple(name for name, _ in named[1:]),
        prefix=f"c{separator}" if default else "",
        separator=separator,
    )


def _shards(sharding: Mapping[str, Any], shape: tuple[int, ...]) -> Shards:
    names = [codec["name"] for codec in sharding["index_codecs"]]
    _want(names in (["bytes"], ["bytes", "crc32c"]), f"shard index codecs {names}")
    _want(sharding["index_codecs"][0]["configuration"]["endian"] == "little", "a big-endian shard index")
    location = sharding.get("index_location", "end")
    _want(location in ("start", "end"), f"shard index location {location!r}")
    return Shards(shape, location == "start", len(names) == 2)


def _axes(
    named: list[tuple[str, Mapping[str, Any]]], dimensions: int
) -> tuple[tuple[int, ...], list[tuple[str, Mapping[str, Any]]]]:
    """The axes as they are stored after all leading transpositions, and the codecs behind those."""
    axes = tuple(range(dimensions))
    while named and named[0][0] == "transpose":
        order = named[0][1]["order"]
        _want(isinstance(order, list) and sorted(order) == list(range(dimensions)), f"transpose order {order!r}")
        axes = tuple(axes[place] for place in order)
        named = named[1:]
    return axes, named


def _codec(name: str, configuration: Mapping[str, Any]) -> Codec:
    codec = codec_of(name, configuration) if isinstance(name, str) else None
    if codec is None:
        raise NotPlainError(f"codec {name!r}")
    return codec


def _sizes(sizes: Any) -> tuple[int, ...]:
    _want(isinstance(sizes, list) and all(type(size) is int and size >= 0 for size in sizes), f"sizes {sizes!r}")
    return tuple(sizes)


def _want(plain: bool, what: str) -> None:
    if not plain:
        raise NotPlainError(what)
