"""A member of a zip file: where its bytes lie, and what is made of them.

Where they begin only the header in front of them says: its fields have lengths of their own, other
than those in the central directory.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Hashable
from typing import NamedTuple

import numpy as np

from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.codecs import inflate_raw, inflater
from globidx.disk.stores.zarr.containers import Opened

_LOCAL = b"PK\x03\x04"
#: Bytes of a local header without its name and extra field, and the most that the latter takes.
_HEADER, _MOST_EXTRA = 30, 2**16 - 1
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ENCRYPTED = 1
#: Other methods of section 4.4.5 that are met.
_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}


class Member(NamedTuple):
    """What the central directory says of a member.

    Its header is at ``header``, what follows it at ``limit``; its bytes begin at ``start``, -1
    where nobody has looked yet. ``packed`` of them are in the file, and make ``size``.
    """

    name: str
    header: int
    limit: int
    start: int
    packed: int
    size: int
    crc: int
    method: int
    flags: int

    @property
    def is_deflated(self) -> bool:
        """Whether its bytes are inflated, and not read as they are."""
        return self.method == _DEFLATED

    @property
    def spelled(self) -> bytes:
        """Its name in the header."""
        return self.name.encode()

    @property
    def head(self) -> int:
        """The bytes of its header that tell where its own bytes begin."""
        return _HEADER + len(self.spelled)

    def end(self, extra: int = _MOST_EXTRA) -> int:
        """Where its bytes end at the latest, if its header has ``extra`` bytes behind its name.

        Of members side by side that is where the next one begins, whatever the header says.
        """
        return min(self.limit, self.header + self.head + extra + self.packed)

    def require_sound(self) -> None:
        """ValueError where it cannot be read, or the directory claims what cannot be."""
        if self.flags & _ENCRYPTED:
            raise ValueError(f"member {self.name!r} of the zip file is encrypted; write it without")
        if self.method not in (_STORED, _DEFLATED):
            known = _METHODS.get(self.method, f"method {self.method}")
            raise ValueError(
                f"member {self.name!r} of the zip file is compressed by {known}; stored and deflated members can be "
                "read"
            )
        is_whole = self.is_deflated or self.packed == self.size
        if self.header < 0 or not is_whole or self.header + _HEADER + self.packed > self.limit:
            raise self._beyond(self.header)

    def begin(self, local: bytes) -> int:
        """Where its bytes begin, by those of the file from its header on.

        ValueError where there is no header of this member, or its bytes would overlap with others.
        """
        if local[:4] != _LOCAL or len(local) < _HEADER:
            raise damaged(f"at byte {self.header} there is no header of member {self.name!r}")
        length, extra = struct.unpack_from("<HH", local, 26)
        spelled = self.spelled
        # a name that is no ASCII may be in an encoding of its time, of which the length tells
        # little
        is_own = length == len(spelled) and local[_HEADER : self.head] == spelled
        if self.name.isascii() and not is_own:
            raise damaged(f"the header at byte {self.header} is not that of member {self.name!r}")
        start = int(self.header + _HEADER + length + extra)
        if start + self.packed > self.limit:
            raise self._beyond(start)
        return start

    def unpacked(self, packed: bytes) -> bytes:
        """All that it holds, its checksum verified, made of the bytes in the file."""
        data = inflate_raw(packed, self.size) if self.is_deflated else packed
        if len(data) != self.size:
            raise damaged(f"member {self.name!r} holds {len(data)} bytes, where {self.size} belong")
        # 7 GB/s by zlib, several times that by zlib-ng
        checksum = inflater().crc32(data)
        if checksum != self.crc:
            raise ValueError(
                f"member {self.name!r} of the zip file has checksum {self.crc:#010x}, but its bytes have "
                f"{checksum:#010x}: they were damaged"
            )
        return data

    def _beyond(self, start: int) -> ValueError:
        return damaged(
            f"member {self.name!r} claims bytes [{start}, {start + self.packed}), where {self.size} bytes belong, and "
            f"others begin at {self.limit}"
        )


class OpenedMember:
    """A member whose bytes begin at ``start`` of the open zip file ``raw``; see ``Opened``.

    ``inflated`` keeps those that are read in parts and were deflated.
    """

    __slots__ = ("_inflated", "_member", "_raw", "_start", "packed", "size", "version")

    def __init__(
        self,
        raw: Opened,
        member: Member,
        start: int,
        version: Hashable,
        inflated: BlockCache | None,
    ) -> None:
        self._raw, self._member, self._start = raw, member, start
        self.version, self._inflated = version, inflated
        self.size, self.packed = member.size, member.packed if member.is_deflated else 0

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; the checksum is verified of all of them only."""
        if size == self.size and not offset:
            return self._whole()
        if self.packed:
            return self._part_of_inflated(size, offset)
        return self._raw.read(max(0, min(size, self.size - offset)), self._start + offset)

    def close(self) -> None:
        """Close the zip file."""
        self._raw.close()

    def _part_of_inflated(self, size: int, offset: int) -> bytes:
        key = "inflated", self.version, self._member.name
        kept = None if self._inflated is None else self._inflated.get(key)
        if kept is None:
            kept = np.frombuffer(self._whole(), np.uint8)
            if self._inflated is not None:
                self._inflated.put(key, kept)
        return kept[offset : offset + size].tobytes()

    def _whole(self) -> bytes:
        return self._member.unpacked(self._raw.read(self._member.packed, self._start))


def damaged(what: str) -> ValueError:
    """The error for a zip file that is not as one is written."""
    return ValueError(f"the zip file is damaged: {what}")
