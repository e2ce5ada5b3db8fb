"""Zstandard frames, of which a chunk may have several, decoded in bounded memory (RFC 8878).

libzstd's decoder of streams grows with what comes out. Its decoder of single frames fills a buffer
and stops at its end, but needs the decoded size, so each frame goes to that one, with the size
written into its header.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Data = bytes | memoryview
Decompress = Callable[..., Any]

_MAGIC, _SKIPPABLE = 0xFD2FB528, 0x184D2A5
# the most that a compressed block holds
_BLOCK = 2**17
# how far frames of unknown size may exceed the expected size while they are decoded
_SLACK = 2**21


class Frame(NamedTuple):
    """One frame.

    Its bytes, the decoded size in its header (None: not given), where that field is, and the largest size it can decode
    to.
    """

    data: Data
    size: int | None
    end_of_header: int
    most: int


def into(decompress: Decompress, data: Data, out: NDArray[np.uint8]) -> None:
    """Fill ``out`` with what all frames hold together, or raise ValueError or RuntimeError."""
    header = _header(memoryview(data))
    if header is not None and header[0] == len(out) != 0:
        # a second frame makes it raise, since there is no room for it
        decompress(data, out=out)
        return
    all_frames, filled = frames(data), 0
    for index, frame in enumerate(all_frames):
        room = len(out) - filled
        # the last frame must hold all that is left, so its size is known after all
        if frame.size is None and index == len(all_frames) - 1 and room:
            size = room
            decompress(_with_size(frame, room), out=out[filled:])
        elif frame.size:
            size = frame.size
            refuse_more(filled + size, len(out))
            decompress(frame.data, out=out[filled : filled + size])
        else:
            part = np.frombuffer(_expanded(decompress, frame, room), np.uint8)
            size = len(part)
            out[filled : filled + size] = part
        filled += size
    if filled != len(out):
        raise ValueError(f"it holds {filled} bytes, where {len(out)} belong")


def expand(decompress: Decompress, data: Data, limit: int) -> Data:
    """What all frames hold together, at most ``limit`` bytes; ValueError where it is more."""
    parts: list[Data] = []
    for frame in frames(data):
        parts.append(_expanded(decompress, frame, limit))
        limit -= len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def frames(data: Data) -> list[Frame]:
    """The frames of a chunk, skippable ones left out.

    ValueError where its bytes are not whole frames.

    Found by the lengths of their blocks, without decoding any.
    """
    view = memoryview(data)
    offset = 0
    result = list[Frame]()
    while offset < len(view) or not result:
        magic = int.from_bytes(view[offset : offset + 4], "little")
        if magic >> 4 == _SKIPPABLE:
            offset += 8 + int.from_bytes(view[offset + 4 : offset + 8], "little")
            _refuse_cut(offset, view)
            if offset == len(view):
                break
            continue
        frame = _frame(view[offset:])
        result.append(frame)
        offset += len(frame.data)
    return result


def _frame(view: memoryview) -> Frame:
    """The frame that ``view`` begins with."""
    header = _header(view)
    if header is None:
        raise ValueError("its bytes are no Zstandard frame")
    size, start = header
    offset = start
    most = 0
    is_last = False
    while not is_last:
        _refuse_cut(offset + 3, view)
        # RFC 8878, 3.1.1.2: a header of three bytes, then the block; of a run, one byte of it
        block = int.from_bytes(view[offset : offset + 3], "little")
        is_last = bool(block & 1)
        kind = block >> 1 & 3
        length = block >> 3
        most += _BLOCK if kind == 2 else length
        offset += 3 + (1 if kind == 1 else length)
    # a checksum of four bytes follows where the header says so
    offset += 4 * (view[4] >> 2 & 1)
    _refuse_cut(offset, view)
    return Frame(view[:offset], size, start, most)


def _header(view: memoryview) -> tuple[int | None, int] | None:
    """(decoded size, length of the header) by RFC 8878, 3.1.1.1; None if this is no frame."""
    if int.from_bytes(view[:4], "little") != _MAGIC or len(view) < 6:
        return None
    descriptor = view[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    start = 5 + (1 - single) + (0, 1, 2, 4)[descriptor & 3]
    size = (
        int.from_bytes(view[start : start + width], "little") + 256 * (flag == 1) if width else None
    )
    return size, start + width


def _with_size(frame: Frame, size: int) -> bytes:
    """A frame without a size, with ``size`` written into its header.

    libzstd raises if it decodes to another one.
    """
    view, end = memoryview(frame.data), frame.end_of_header
    descriptor = bytes([view[4] | 0xC0])
    return b"".join([view[:4], descriptor, view[5:end], size.to_bytes(8, "little"), view[end:]])


def _expanded(decompress: Decompress, frame: Frame, limit: int) -> Data:
    if frame.size == 0:
        return b""
    if frame.size is not None:
        refuse_more(frame.size, limit)
    elif frame.most > limit + _SLACK:
        raise ValueError(
            f"it has a Zstandard frame that does not say how much it holds, and may hold {frame.most} bytes where "
            f"{limit} belong; backend='library' reads it whatever it is"
        )
    part = memoryview(decompress(frame.data)).cast("B")
    refuse_more(len(part), limit)
    return part


def refuse_more(nbytes: int, limit: int) -> None:
    """ValueError where there are more than ``limit`` bytes."""
    if nbytes > limit:
        raise ValueError(f"it holds {nbytes} bytes or more, where {limit} belong")


def _refuse_cut(end: int, view: memoryview) -> None:
    if end > len(view):
        raise ValueError("its last Zstandard frame ends too early: it was cut")
