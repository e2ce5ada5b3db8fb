"""The metadata of a plain zarr array, parsed once for both of its users.

Those are the scan of a store, and its reader.

Plain is what the specifications of zarr 2 and 3 describe and zarr itself writes by default: a
regular grid, and codecs that are known here. Anything else is refused with the reason, and left to
zarr.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from globidx.core.values import dtypes
from globidx.disk.stores.base import NotPlainError
from globidx.disk.stores.codecs import Codec, codec_of, is_known

# lists, not sets: what is looked up in them may be anything that JSON can hold
_TYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64 complex64 complex128".split()
_TYPES += dtypes.SMALL
_V3_CODECS = "blosc gzip zstd crc32c".split()
_V2_DTYPE = re.compile(r"[<>|](b1|[iu][1248]|f[248]|c8|c16)")
_V3_KEYS = frozenset(
    "zarr_format node_type shape data_type chunk_grid chunk_key_encoding fill_value codecs attributes "
    "dimension_names storage_transformers consolidated_metadata".split()
)

#: A codec's name and its configuration.
Step = tuple[str, Mapping[str, Any]]


class Sharding(NamedTuple):
    """Chunks in one file, whose shape is in elements.

    Also whether its index comes first, and whether that has a CRC-32C.
    """

    shape: tuple[int, ...]
    index_first: bool
    checked: bool


class ArrayMetadata(NamedTuple):
    """Where the chunks of an array are stored, and how they are encoded.

    ``chunks`` is the shape of what is decoded at once: of the inner chunks where there are shards.
    ``axes`` is the sequence in which the axes of a chunk are stored. The key of a chunk file is
    ``prefix`` and the chunk's grid coordinates, joined by ``separator``.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    sharding: Sharding | None
    dtype: np.dtype[Any]
    axes: tuple[int, ...]
    steps: tuple[Step, ...]
    prefix: str
    separator: str

    def key(self, coordinates: tuple[int, ...]) -> str:
        """The file of a chunk or shard, relative to the array's folder.

        >>> parse_array(b'{"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": "<u2", "compressor": null, \
"fill_value": 0, "order": "C", "filters": null}').key((1,))
        '1'
        """
        return self.prefix + self.separator.join(map(str, coordinates))

    def codecs(self) -> tuple[Codec, ...]:
        """The codecs that undo ``steps``.

        The packages that decode are imported here, and not for a scan.
        """
        return tuple(codec_of(name, configuration) for name, configuration in self.steps)


@lru_cache(maxsize=256)
def parse_array(document: bytes) -> ArrayMetadata:
    """``parse_metadata`` of a ``zarr.json`` or ``.zarray``.

    It is kept for the next file that holds the same bytes.
    """
    return parse_metadata(json.loads(document))


def parse_metadata(array: Any) -> ArrayMetadata:
    """The metadata in the JSON value of a ``zarr.json`` or ``.zarray``.

    Raises
    ------
    NotPlainError
        If not all of it is understood. The message names the part.
    """
    _require(isinstance(array, dict), "its metadata is no JSON object")
    try:
        return _parse_v3(array) if array.get("zarr_format") == 3 else _parse_v2(array)
    except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
        if isinstance(error, NotPlainError):
            raise
        # JSON of another shape than these
        raise NotPlainError(f"unusual metadata ({type(error).__name__}: {error})") from error


def _parse_v2(array: Mapping[str, Any]) -> ArrayMetadata:
    _require(array["zarr_format"] == 2, "zarr_format", array["zarr_format"])
    name = array["dtype"]
    order = array["order"]
    compressor = array["compressor"]
    _require(isinstance(name, str) and _V2_DTYPE.fullmatch(name) is not None, "dtype", name)
    # an empty list breaks the specification, and zarr takes it for none
    _require(array["filters"] is None or array["filters"] == [], "filters")
    _require(order in ("C", "F"), "order", order)
    separator = array.get("dimension_separator", ".")
    _require(separator in (".", "/"), "dimension_separator", separator)
    shape, chunks = _sizes(array["shape"]), _sizes(array["chunks"], low=1)
    _require(len(shape) == len(chunks), "chunks of another dimension")
    steps: tuple[Step, ...] = ()
    if compressor is not None:
        steps = ((compressor["id"], compressor),)
        _require(is_known(*steps[0]), "codec", compressor["id"])
    axes = tuple(range(len(shape)))
    return ArrayMetadata(
        shape=shape,
        chunks=chunks,
        sharding=None,
        dtype=np.dtype(name),
        axes=axes if order == "C" else axes[::-1],
        steps=steps,
        prefix="",
        separator=separator,
    )


def _parse_v3(array: Mapping[str, Any]) -> ArrayMetadata:
    unknown = array.keys() - _V3_KEYS
    _require(not unknown, "keys", *unknown)
    _require(array["node_type"] == "array", "node_type", array["node_type"])
    _require(array["data_type"] in _TYPES, "data type", array["data_type"])
    _require(not array.get("storage_transformers"), "storage transformers")
    grid, encoding = array["chunk_grid"], array["chunk_key_encoding"]
    _require(grid["name"] == "regular", "chunk grid", grid["name"])
    _require(encoding["name"] in ("default", "v2"), "chunk key encoding", encoding["name"])
    is_default = encoding["name"] == "default"
    separator = (encoding.get("configuration") or {}).get("separator", "/" if is_default else ".")
    _require(separator in (".", "/"), "chunk key separator", separator)
    shape, chunks = _sizes(array["shape"]), _sizes(grid["configuration"]["chunk_shape"], low=1)
    codecs, sharding = array["codecs"], None
    if codecs[0]["name"] == "sharding_indexed":
        _require(len(codecs) == 1, "codecs around shards")
        settings = codecs[0]["configuration"]
        sharding = _sharding(settings, chunks)
        chunks, codecs = _sizes(settings["chunk_shape"], low=1), settings["codecs"]
        _require(
            all(whole % part == 0 for whole, part in zip(sharding.shape, chunks, strict=True)),
            "uneven shards",
        )
    _require(len(shape) == len(chunks), "chunks of another dimension")
    axes, byte_order, steps = _chain(codecs, len(chunks), array["data_type"])
    return ArrayMetadata(
        shape=shape,
        chunks=chunks,
        sharding=sharding,
        dtype=_dtype(array["data_type"], byte_order),
        axes=axes,
        steps=steps,
        prefix=f"c{separator}" if is_default else "",
        separator=separator,
    )


def _sharding(settings: Mapping[str, Any], shape: tuple[int, ...]) -> Sharding:
    names = [codec["name"] for codec in settings["index_codecs"]]
    _require(names in (["bytes"], ["bytes", "crc32c"]), "shard index codecs", names)
    _require(
        settings["index_codecs"][0]["configuration"]["endian"] == "little",
        "a big-endian shard index",
    )
    location = settings.get("index_location", "end")
    _require(location in ("start", "end"), "shard index location", location)
    return Sharding(shape, location == "start", len(names) == 2)


def _chain(
    codecs: list[Any], dimensions: int, data_type: str
) -> tuple[tuple[int, ...], str, tuple[Step, ...]]:
    """The stored axes, the byte order, and the codecs from bytes to bytes.

    Axes are those after all leading transpositions.
    """
    steps = [(codec["name"], codec.get("configuration") or {}) for codec in codecs]
    axes = tuple(range(dimensions))
    while steps and steps[0][0] == "transpose":
        order = steps.pop(0)[1]["order"]
        _require(
            isinstance(order, list) and sorted(order) == list(range(dimensions)),
            "transpose order",
            order,
        )
        axes = tuple(axes[axis] for axis in order)
    _require(
        bool(steps) and steps[0][0] == "bytes", "first codec", steps[0][0] if steps else "none"
    )
    endian: str = steps.pop(0)[1].get(
        "endian", "little" if _dtype(data_type, "little").itemsize == 1 else "missing"
    )
    _require(endian in ("little", "big"), "byte order", endian)
    for name, configuration in steps:
        _require(name in _V3_CODECS and is_known(name, configuration), "codec", name)
    return axes, endian, tuple(steps)


@lru_cache(maxsize=64)
def _dtype(data_type: str, byte_order: str) -> np.dtype[Any]:
    size = dtypes.SMALL.get(data_type)
    # floats that numpy does not have are known by their metadata
    dtype = np.dtype(f"u{size}", metadata={"small": data_type}) if size else np.dtype(data_type)
    return dtype.newbyteorder("<" if byte_order == "little" else ">")


def _sizes(sizes: Any, low: int = 0) -> tuple[int, ...]:
    _require(isinstance(sizes, list), "sizes", sizes)
    # a loop takes a third of the time of all(), and a scan parses every file's sizes
    for size in sizes:
        if type(size) is not int or size < low:
            raise NotPlainError(f"sizes {sizes!r}")
    return tuple(sizes)


def _require(is_plain: bool, what: str, *values: object) -> None:
    # the message is made only where it is needed: thousands of stores are scanned, and most are
    # plain
    if not is_plain:
        raise NotPlainError(" ".join([what, *map(repr, values)]))
