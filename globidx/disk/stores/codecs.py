"""Decodes chunks straight into their part of a buffer, and only if they fill it exactly.

No size in a chunk's header is trusted: every codec stops one byte after the expected size, so that
a chunk which would inflate to gigabytes costs no more memory than a good one.

The decompressors are numcodecs', which zarr depends on. They fill as much of a buffer as there is
data and do not report how much that was, and Blosc decodes truncated frames. So sizes are compared
with the frames' headers before they are decoded.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.disk.files import forks
from globidx.disk.files.crc32c import crc32c
from globidx.disk.stores import zstd_frames
from globidx.disk.stores.zstd_frames import refuse_more

Data = bytes | memoryview

#: What zlib calls a stream with a zlib or a gzip header.
_EITHER = 47

#: Bytes that are inflated at once, at least.
_PIECE = 2**20

#: What an LZMA stream may claim to need; the largest preset needs 65 MiB.
_LZMA_MEMORY = 2**28


class Codec(NamedTuple):
    """One step from stored bytes towards an array.

    ``expand(data, limit)`` returns at most ``limit`` bytes, or raises as soon as there are more;
    ``into``, where there is one, fills a buffer exactly or raises.
    """

    expand: Callable[[Data, int], Data]
    into: Callable[[Data, NDArray[np.uint8]], None] | None = None


def decode(codecs: Sequence[Codec], data: Data, out: NDArray[np.uint8]) -> None:
    """Undo ``codecs``, the last one first, and fill ``out``.

    ValueError where that is not what comes out.
    """
    for step in range(len(codecs) - 1, 0, -1):
        # what comes out of all but the first codec has no known size, only a bound
        data = codecs[step].expand(data, most_stored(len(out), step))
    if codecs and codecs[0].into is not None:
        codecs[0].into(data, out)
    else:
        fill(codecs[0].expand(data, len(out)) if codecs else data, out)


def most_stored(nbytes: int, codecs: int) -> int:
    """The most bytes that ``nbytes`` may take after ``codecs`` codecs.

    Compression adds a few bytes in a thousand to what it cannot compress, and some to every block,
    member or frame. Twice as much and 64 KiB leave room for small ones.

    >>> most_stored(8, 0), most_stored(8, 1)
    (8, 65552)
    """
    for _ in range(codecs):
        nbytes = 2 * nbytes + 2**16
    return nbytes


def fill(data: Data, out: NDArray[np.uint8]) -> None:
    """Copy ``data``, which must be as long as ``out``."""
    expect(len(data), len(out))
    out[:] = np.frombuffer(data, np.uint8)


def expect(nbytes: int, expected: int) -> None:
    """ValueError unless ``nbytes`` bytes are as many as belong there."""
    if nbytes != expected:
        raise ValueError(f"it holds {nbytes} bytes, where {expected} belong")


def is_known(name: str, configuration: Mapping[str, Any]) -> bool:
    """Whether ``codec_of`` has the codec that zarr calls ``name``, in format 2 or 3.

    Imports nothing.
    """
    if name == "crc32c":
        # format 2 may have the checksum before the bytes
        return bool(configuration.get("location", "end") == "end")
    return name in _NAMES


def codec_of(name: str, configuration: Mapping[str, Any]) -> Codec:
    """The codec that zarr calls ``name``, which ``is_known``."""
    if name == "zlib":
        return Codec(inflate, inflate_into)
    if name == "gzip":
        return Codec(_gunzip)
    if name == "bz2":
        return Codec(partial(_streams, bz2.BZ2Decompressor, OSError))
    if name == "lzma":
        return Codec(partial(_streams, _lzma(configuration), lzma.LZMAError))
    if name == "crc32c":
        return Codec(lambda data, limit: _at_most(without_crc32c(data), limit))
    module: Any = forks.import_module(f"numcodecs.{name}")
    if name == "blosc":
        # as zarr sets it: else every loader worker would start as many threads as there are cores
        module.use_threads = False
    decompress = getattr(module, _CLASSES[name])().decode
    if name == "zstd":
        return Codec(partial(zstd_frames.expand, decompress), partial(zstd_frames.into, decompress))
    return _framed(decompress, _blosc_size if name == "blosc" else _lz4_size)


def inflate(data: Data, limit: int) -> bytes:
    """What a zlib or gzip stream holds, its checksum verified.

    zlib-ng or isal inflates it where one is installed.

    ValueError where that is more than ``limit`` bytes, as soon as one of them too many is there.
    """
    return _inflated(data, limit, _EITHER)[0]


def inflate_raw(data: Data, limit: int) -> bytes:
    """What a deflated stream without header and checksum holds, as zip files have them."""
    return _inflated(data, limit, -15)[0]


def inflate_into(data: Data, out: NDArray[np.uint8]) -> None:
    """``inflate`` into ``out``, which it must fill; by libdeflate where it is installed.

    libdeflate never writes more than it is given room for, and takes two thirds of the time, but
    does not say what is wrong.
    """
    library = _libdeflate()
    if library is not None and len(out):
        try:
            inflated = library.zlib_decompress(data, len(out))
        except library.DeflateError:
            # a gzip header, or damaged: the other way says what
            pass
        else:
            fill(inflated, out)
            return
    _inflate_by_pieces(data, out)


def inflates_by() -> str:
    """The library that ``inflate_into`` uses."""
    return "libdeflate" if _libdeflate() else str(inflater().__name__).split(".")[0]


def _inflate_by_pieces(data: Data, out: NDArray[np.uint8]) -> None:
    """Inflate into ``out`` a piece at a time, so that there is no second copy of all of it."""
    filled = 0
    # the rest of the stream is copied once a piece
    piece = max(_PIECE, len(out) // 8)
    with _inflating(_EITHER) as stream:
        while not stream.eof:
            part = stream.decompress(data, min(piece, len(out) - filled + 1))
            # no progress: the stream was cut
            if not part and not stream.eof:
                break
            refuse_more(filled + len(part), len(out))
            out[filled : filled + len(part)] = np.frombuffer(part, np.uint8)
            filled, data = filled + len(part), stream.unconsumed_tail
    _expect_whole(stream)
    expect(filled, len(out))


@cache
def _libdeflate() -> Any:
    try:
        return forks.import_module("deflate")
    except ImportError:
        return None


@cache
def inflater() -> Any:
    """The library that ``inflate`` uses: the fastest there is that inflates streams."""
    for name in ("zlib_ng.zlib_ng", "isal.isal_zlib"):
        try:
            return forks.import_module(name)
        except ImportError:
            continue
    return zlib


def without_crc32c(data: Data) -> Data:
    """The bytes before a little-endian CRC-32C of them; ValueError where it is another one."""
    if len(data) < 4:
        raise ValueError(f"{len(data)} bytes hold no checksum")
    body = memoryview(data)[:-4]
    verify_crc32c([body], data[-4:])
    return body


def verify_crc32c(pieces: Iterable[Data], stored: Data) -> None:
    """ValueError unless ``stored`` is the CRC-32C of the pieces, one after the other.

    It is little-endian.
    """
    checksum = 0
    for piece in pieces:
        checksum = crc32c().extend(checksum, piece if isinstance(piece, bytes) else piece.tobytes())
    expected = int.from_bytes(stored, "little")
    if expected != checksum:
        raise ValueError(
            f"its checksum is {expected:#010x}, but its bytes have {checksum:#010x}: they were damaged"
        )


_CLASSES = {"zstd": "Zstd", "blosc": "Blosc", "lz4": "LZ4"}
_NAMES = frozenset({"zlib", "gzip", "bz2", "lzma", *_CLASSES})


def _inflated(data: Data, limit: int, wbits: int) -> tuple[bytes, bytes]:
    """The content of one stream, and the bytes after it."""
    with _inflating(wbits) as stream:
        # one byte too many shows that there is more, whatever that would be
        inflated: bytes = stream.decompress(data, limit + 1)
    refuse_more(len(inflated), limit)
    _expect_whole(stream)
    return inflated, stream.unused_data


@contextmanager
def _inflating(wbits: int) -> Iterator[Any]:
    """A stream of ``inflater``; its own class of errors becomes ValueError."""
    library = inflater()
    try:
        yield library.decompressobj(wbits=wbits)
    except library.error as error:
        raise ValueError(str(error)) from error


def _expect_whole(stream: Any) -> None:
    if not stream.eof:
        raise ValueError("its compressed stream is incomplete: it was cut")


def _gunzip(data: Data, limit: int) -> Data:
    """All members of a gzip stream, as Python's gzip reads it.

    Zeros between and behind them are left out.
    """
    parts: list[bytes] = []
    while data or not parts:
        part, rest = _inflated(data, limit, 31)
        parts.append(part)
        limit -= len(part)
        data = rest.lstrip(b"\0")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _streams(start: Callable[[], Any], broken: type[Exception], data: Data, limit: int) -> Data:
    """All streams of bzip2 or LZMA, one behind the other.

    What follows the last and is none is left out, as Python's own modules do.
    """
    parts: list[bytes] = []
    while data or not parts:
        stream = start()
        try:
            part = stream.decompress(data, limit + 1)
        except broken as error:
            if parts:
                break
            raise ValueError(str(error)) from error
        refuse_more(len(part), limit)
        _expect_whole(stream)
        parts.append(part)
        limit -= len(part)
        data = stream.unused_data
    return b"".join(parts)


def _lzma(configuration: Mapping[str, Any]) -> Callable[[], lzma.LZMADecompressor]:
    kind, filters = configuration.get("format") or lzma.FORMAT_XZ, configuration.get("filters")
    # raw streams have no header: the filters are in the metadata
    if kind == lzma.FORMAT_RAW:
        return lambda: lzma.LZMADecompressor(kind, filters=filters)
    return lambda: lzma.LZMADecompressor(kind, _LZMA_MEMORY, filters)


def _framed(decompress: Callable[..., Any], size: Callable[[Data], int]) -> Codec:
    """A codec whose frames have their decoded size in a header."""

    def expand(data: Data, limit: int) -> Data:
        refuse_more(size(data), limit)
        return memoryview(decompress(data)).cast("B")

    def into(data: Data, out: NDArray[np.uint8]) -> None:
        expect(size(data), len(out))
        decompress(data, out=out)

    return Codec(expand, into)


def _blosc_size(data: Data) -> int:
    """Bytes of the header: 4 to 7 how many it decodes to, 12 to 15 how long the frame is."""
    # Blosc itself decodes a cut frame into something
    if len(data) < 16 or int.from_bytes(data[12:16], "little") != len(data):
        raise ValueError(f"{len(data)} bytes are not the whole Blosc frame: it was cut, or is none")
    return int.from_bytes(data[4:8], "little")


def _lz4_size(data: Data) -> int:
    """numcodecs puts the decoded size before the block."""
    return int.from_bytes(data[:4], "little")


def _at_most(data: Data, limit: int) -> Data:
    refuse_more(len(data), limit)
    return data
