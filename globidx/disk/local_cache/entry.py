"""One entry of the cache on local disk: bytes of an object, and what tells that they are whole.

A file of a head of fixed size, the identity, a checksum for each ``PAGE`` of the data, and the data.
So a part of them is read and checked by itself. The checksums are CRC-32C, as in zarr's shards: a
tenth of the time that the fastest digest of hashlib takes, and as good against damage; they are none
against forgery.
"""

from __future__ import annotations

import hashlib
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from globidx.disk.files.crc32c import crc32c
from globidx.disk.remote.objects import Found

_MAGIC = b"gxcache2"
#: Bytes of the data that one checksum is over.
PAGE = 2**16
#: Magic, checksum of all but the data, bytes of the identity, size of the object, bytes of data;
#: when it was asked for.
_HEAD = struct.Struct("<8sIIqqq")
#: Where the last of these lies, which changes without the rest and is not under the checksum.
_ASKED_AT, _ASKED = _HEAD.size - 8, struct.Struct("<q")
#: Behind magic and checksum, what the checksum is over begins.
_CHECKED_FROM = 12
_CHECKSUM = struct.Struct("<I")
#: An entry that was used all the time is noted as used once in so many ns.
_MINUTE = 60 * 10**9
#: A pipe that somebody put there is not waited for.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_READING = os.O_RDONLY | _SAFELY
#: Read at once, in the hope that identity and checksums end in it.
_AT_ONCE = 512
#: An object that is not there has this size.
ABSENT = -1
#: In place of the start of a piece: what is known of an object, without bytes of it.
ABOUT = "about"


class DamagedError(ValueError):
    """An entry is not what was written."""


class Identity(NamedTuple):
    """Which bytes an entry holds, of which version of an object.

    Whole objects, and what is known of an object, are found whatever their version.

    >>> Identity("s3://bucket", "c/0").name == Identity("s3://bucket", "c/0", version="v2").name
    True
    >>> Identity("s3://bucket", "c/0", 8, 16).name == Identity("s3://bucket", "c/0", 8, 17).name
    False
    """

    url: str
    key: str
    start: int | str = 0
    stop: int | None = None
    version: str = ""

    @property
    def name(self) -> str:
        """The name of the entry: 32 hexadecimal digits."""
        return hashlib.blake2b(self.sought, digest_size=16, person=b"globidx-cache-2").hexdigest()

    @property
    def sought(self) -> bytes:
        """What it is found by: how it is spelled, but for a version that does not matter."""
        return self._spelled(self.version if self.is_of_version else "")

    @property
    def spelled(self) -> bytes:
        """The identity as bytes; no part of it has a zero byte."""
        return self._spelled(self.version)

    def _spelled(self, version: str) -> bytes:
        stop = "" if self.stop is None else self.stop
        text = f"{self.url}\0{self.key}\0{self.start}\0{stop}\0{version}"
        return text.encode("utf-8", "surrogateescape")

    @classmethod
    def of(cls, spelled: bytes) -> Self:
        """The identity that was spelled so; DamagedError where it is none."""
        try:
            url, key, start, stop, version = spelled.decode("utf-8", "surrogateescape").split("\0")
            first = start if start == ABOUT else int(start)
            return cls(url, key, first, int(stop) if stop else None, version)
        except ValueError as error:
            raise DamagedError(f"its identity cannot be read: {error}") from None

    @property
    def is_of_version(self) -> bool:
        """Whether entries of several versions of an object lie beside one another."""
        return self.start != ABOUT and (self.start, self.stop) != (0, None)


class Kept(NamedTuple):
    """An entry as it was read; ``asked`` is when the server last told its version, in ns."""

    identity: Identity
    found: Found
    asked: int


def encode(identity: Identity, found: Found, asked: int) -> tuple[bytes, bytes]:
    """The file of an entry, as all before its data, and these."""
    spelled = identity.spelled
    numbers = len(spelled), found.size, len(found.data)
    behind = spelled + _checksums(found.data)
    # all but the magic, the checksum itself and the time
    checked = _HEAD.pack(_MAGIC, 0, *numbers, asked)[_CHECKED_FROM:_ASKED_AT] + behind
    return _HEAD.pack(_MAGIC, crc32c().value(checked), *numbers, asked) + behind, found.data


def read(
    path: str | Path,
    expected: Identity | None = None,
    part: tuple[int, int] | None = None,
    *,
    now: int | None = None,
) -> Kept:
    """Read an entry and check it.

    Parameters
    ----------
    path
        Its file.
    expected : Identity, optional
        Whose entry it must be, of whatever version where that does not matter.
    part : (int, int), optional
        Start and stop of what is read of its data, instead of all; the rest is not checked.
    now : int, optional
        The time in ns, which is noted as that of its use, unless one of the same minute is.

    Raises
    ------
    DamagedError
        It is not what was written, or another one's.
    OSError
        It cannot be read.
    """
    descriptor = os.open(path, _READING)
    try:
        status = os.fstat(descriptor)
        spelled, checksums, whole, nbytes, asked = _head(descriptor, status.st_size)
        start, stop = (0, nbytes) if part is None else (min(at, nbytes) for at in part)
        first, end = start // PAGE, -(-stop // PAGE)
        begin, size = first * PAGE, min(end * PAGE, nbytes) - first * PAGE
        # apart from the head, so that it need not be copied out of one buffer
        data = os.pread(descriptor, size, status.st_size - nbytes + begin)
        if now is not None and abs(now - status.st_mtime_ns) > _MINUTE:
            _note_use(descriptor, now)
    finally:
        os.close(descriptor)
    if _checksums(data) != checksums[4 * first : 4 * end]:
        raise DamagedError("its checksum is another one")
    identity = Identity.of(spelled) if expected is None else _confirmed(expected, spelled)
    if part is not None:
        data = data[start - begin : stop - begin]
    return Kept(identity, Found(data, whole, identity.version), asked)


def identity_of(path: str | Path) -> Identity:
    """The identity of an entry, whose data are not looked at; errors as of ``read``."""
    descriptor = os.open(path, _READING)
    try:
        return Identity.of(_head(descriptor, os.fstat(descriptor).st_size)[0])
    finally:
        os.close(descriptor)


def asked_of(path: str | Path) -> int:
    """When the server was last asked for an entry, of which nothing is checked; errors as of ``read``."""
    descriptor = os.open(path, _READING)
    try:
        noted = os.pread(descriptor, _ASKED.size, _ASKED_AT)
    finally:
        os.close(descriptor)
    if len(noted) < _ASKED.size:
        raise DamagedError("it ends in its head")
    return int(_ASKED.unpack(noted)[0])


def set_asked(path: str | Path, asked: int) -> None:
    """Note that the server was asked for an entry, and has the same version still."""
    descriptor = os.open(path, os.O_WRONLY | _SAFELY)
    try:
        os.pwrite(descriptor, _ASKED.pack(asked), _ASKED_AT)
    finally:
        os.close(descriptor)


def _head(descriptor: int, file_size: int) -> tuple[bytes, bytes, int, int, int]:
    """What stands before the data of an entry, checked.

    Returns the identity as it is spelled, the checksums of the data, the size of the object, how
    many bytes of data there are, and when it was asked for.
    """
    beginning = os.pread(descriptor, _AT_ONCE, 0)
    if len(beginning) < _HEAD.size:
        raise DamagedError(f"it has {file_size} bytes, fewer than its head")
    magic, checksum, length, size, nbytes, asked = _HEAD.unpack_from(beginning)
    if magic != _MAGIC:
        raise DamagedError("it does not begin as an entry does")
    middle = _HEAD.size + length
    begin = middle + 4 * -(-nbytes // PAGE)
    # before memory is allocated for what a damaged head claims
    if nbytes < 0 or begin + nbytes != file_size:
        raise DamagedError(f"it has {file_size} bytes, where {begin + nbytes} were written")
    if begin > len(beginning):
        beginning = os.pread(descriptor, begin, 0)
    if (
        crc32c().value(beginning[_CHECKED_FROM:_ASKED_AT] + beginning[_HEAD.size : begin])
        != checksum
    ):
        raise DamagedError("the checksum of its head is another one")
    return beginning[_HEAD.size : middle], beginning[middle:begin], size, nbytes, asked


def _checksums(data: bytes) -> bytes:
    """The checksums of the pages of data that begin with one."""
    if len(data) <= PAGE:
        return _CHECKSUM.pack(crc32c().value(data)) if data else b""
    # views: to copy a page takes as long as its checksum does
    pages = np.frombuffer(data, np.uint8)
    starts = range(0, len(data), PAGE)
    return b"".join(_CHECKSUM.pack(crc32c().value(pages[at : at + PAGE])) for at in starts)


def _confirmed(expected: Identity, spelled: bytes) -> Identity:
    """The identity that is spelled so; DamagedError if it is not the expected one."""
    sought = expected.sought
    # to parse it would take longer, and be less strict
    if spelled == sought:
        return expected
    if expected.is_of_version or not spelled.startswith(sought):
        raise DamagedError("it is the entry of another piece")
    url, key, start, stop, _ = expected
    version = spelled[len(sought) :].decode("utf-8", "surrogateescape")
    return Identity(url, key, start, stop, version)


def _note_use(descriptor: int, now: int) -> None:
    # another user's
    with suppress(OSError):
        os.utime(descriptor, ns=(now, now))
