"""Decoding chunks straight into their place, and only where they fill it exactly.

The decompressors are numcodecs', which zarr depends on. They fill as much of a buffer as there is data and say nothing
about the rest, and Blosc decodes a frame that was cut into something. So sizes are compared with what frames claim
before they are decoded.
"""

from __future__ import annotations

import gzip
import lzma
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Data = bytes | memoryview


class Codec(NamedTuple):
    """One step from stored bytes towards an array: ``expand`` returns bytes, ``into``, where there is one, fills a
    buffer exactly or raises.
    """

    expand: Callable[[Data], Data]
    into: Callable[[Data, NDArray[np.uint8]], None] | None = None


def decode(codecs: Sequence[Codec], data: Data, out: NDArray[np.uint8]) -> None:
    """Undo ``codecs``, the last one first, and fill ``out``; ValueError where that is not what comes out."""
    for codec in reversed(codecs[1:]):
        data = codec.expand(data)
    if codecs and codecs[0].into is not None:
        codecs[0].into(data, out)
    else:
        fill(codecs[0].expand(data) if codecs else data, out)


def fill(data: Data, out: NDArray[np.uint8]) -> None:
    """Copy ``data``, which must be as long as ``out``."""
    expect(len(data), len(out))
    out[:] = np.frombuffer(data, np.uint8)


def codec_of(name: str, configuration: Mapping[str, Any]) -> Codec | None:
    """The codec that zarr calls ``name``, in format 2 or 3; None where it is none of these."""
    if name == "zlib":
        return Codec(inflate)
    if name == "gzip":
        return Codec(gzip.decompress, _gunzip)
    if name == "bz2":
        return Codec(import_module("bz2").decompress)
    if name == "lzma":
        raw = {key: configuration.get(key) for key in ("format", "filters")}
        return Codec(partial(lzma.decompress, format=raw["format"] or lzma.FORMAT_XZ, filters=raw["filters"]))
    if name == "crc32c":  # format 2 may have it before the bytes
        return Codec(without_crc32c) if configuration.get("location", "end") == "end" else None
    framed = {"zstd": _zstd_size, "blosc": _blosc_size, "lz4": _lz4_size}.get(name)
    if framed is None:
        return None
    module: Any = import_module(f"numcodecs.{name}")
    if name == "blosc":
        module.use_threads = False  # as zarr sets it: every loader worker would start as many as there are cores
    return _framed(getattr(module, _CLASSES[name])().decode, framed)


def inflate(data: Data, limit: int | None = None) -> bytes:
    """What a zlib or gzip stream holds, its checksum verified: by zlib-ng or isal where one is installed.

    ValueError where that is more than ``limit`` bytes, as soon as one of them too many is there.
    """
    library = inflater()
    try:
        # 32 + 15: either header
        stream = library.decompressobj(wbits=47)
        inflated: bytes = stream.decompress(data, 0 if limit is None else limit + 1)
    except library.error as error:
        raise ValueError(str(error)) from error  # each library has an error class of its own
    if limit is not None and len(inflated) > limit:
        raise ValueError(f"it inflates to more than the {limit} bytes that belong there")
    if not stream.eof:
        raise ValueError("the compressed stream is incomplete: it was cut")
    return inflated


@cache
def inflater() -> Any:
    """The library that ``inflate`` uses: the fastest there is."""
    for name in ("zlib_ng.zlib_ng", "isal.isal_zlib"):
        try:
            return import_module(name)
        except ImportError:
            continue
    return zlib


def without_crc32c(data: Data) -> Data:
    """The bytes before a little-endian CRC-32C of them; ValueError where it is another one."""
    if len(data) < 4:
        raise ValueError(f"{len(data)} bytes hold no checksum")
    body = memoryview(data)[:-4]
    stored = int.from_bytes(data[-4:], "little")
    found = _crc32c()(body.tobytes() if not isinstance(data, bytes) else data[:-4])
    if stored != found:
        raise ValueError(f"its checksum is {stored:#010x}, but its bytes have {found:#010x}: they were damaged")
    return body


_CLASSES = {"zstd": "Zstd", "blosc": "Blosc", "lz4": "LZ4"}


def _gunzip(data: Data, out: NDArray[np.uint8]) -> None:
    inflated = inflate(data, len(out))
    fill(inflated if len(inflated) == len(out) else gzip.decompress(data), out)  # a stream may have several members


@cache
def _crc32c() -> Callable[[bytes], int]:
    checksum: Callable[[bytes], int] = import_module("google_crc32c").value
    return checksum


def _framed(decompress: Callable[..., Any], size: Callable[[Data], int | None]) -> Codec:
    """A codec whose frames say how much they hold; where one does not, it is decoded to find out."""

    def expand(data: Data) -> Data:
        size(data)
        return memoryview(decompress(data)).cast("B")

    def into(data: Data, out: NDArray[np.uint8]) -> None:
        claimed = size(data)
        if claimed is None:
            fill(expand(data), out)
        else:
            expect(claimed, len(out))
            decompress(data, out=out)

    return Codec(expand, into)


def _zstd_size(data: Data) -> int | None:
    """What the frame header says (RFC 8878, 3.1.1.1); None where it does not, or where more frames may follow."""
    if bytes(data[:4]) != b"\x28\xb5\x2f\xfd" or len(data) < 14:
        return None
    descriptor = data[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    return int.from_bytes(data[start : start + width], "little") + 256 * (flag == 1) if width else None


def _blosc_size(data: Data) -> int:
    """Bytes of the header: 4 to 7 how many it decodes to, 12 to 15 how long the frame is."""
    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError(f"{len(data)} bytes are not the whole Blosc frame: it was cut, or is none")
    return int.from_bytes(data[4:8], "little")


def _lz4_size(data: Data) -> int:
    """numcodecs puts the decoded size before the block."""
    return int.from_bytes(data[:4], "little")


def expect(found: int, wanted: int) -> None:
    """ValueError unless ``found`` bytes are as many as belong there."""
    if found != wanted:
        raise ValueError(f"it holds {found} bytes, where {wanted} belong")
