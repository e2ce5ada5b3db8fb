"""One entry of the cache on local disk: bytes of an object, and what tells that they are whole.

A file of a head of fixed size, the identity, and the bytes. The checksum is CRC-32C, as in
zarr's shards: a tenth of the time that the fastest digest of hashlib takes, and as good against
damage; it is none against forgery.
"""

from __future__ import annotations

import hashlib
import os
import struct
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Self

from globidx.disk.files import forks
from globidx.disk.remote.objects import Found

_MAGIC = b"gxcache1"
#: Magic, checksum, bytes of the identity, size of the object, bytes of data; when it was asked for.
_HEAD = struct.Struct("<8sIIqqq")
#: Where the last of these lies, which changes without the rest and is not under the checksum.
_ASKED_AT, _ASKED = _HEAD.size - 8, struct.Struct("<q")
#: A pipe that somebody put there is not waited for.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_READING = os.O_RDONLY | _SAFELY
#: Read at once, in the hope that the identity ends in it.
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
        return _name(self if self.is_of_version else self._replace(version=""))

    @property
    def spelled(self) -> bytes:
        """The identity as bytes; no part of it has a zero byte."""
        stop = "" if self.stop is None else self.stop
        text = f"{self.url}\0{self.key}\0{self.start}\0{stop}\0{self.version}"
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
    """The file of an entry, as its head and its data."""
    spelled = identity.spelled
    numbers = len(spelled), found.size, len(found.data)
    checksum = _checksum(numbers, spelled, found.data)
    return _HEAD.pack(_MAGIC, checksum, *numbers, asked) + spelled, found.data


def read(path: str | Path) -> Kept:
    """Read an entry and check it.

    DamagedError where it is not what was written, OSError where it cannot be read.
    """
    descriptor = os.open(path, _READING)
    try:
        head, spelled = _beginning(descriptor)
        # apart from the head, so that it need not be copied out of one buffer
        data = os.pread(descriptor, head.nbytes, head.begin)
    finally:
        os.close(descriptor)
    head.check(spelled, data)
    identity = Identity.of(spelled)
    return Kept(identity, Found(data, head.size, identity.version), head.asked)


def identity_of(path: str | Path) -> Identity:
    """The identity of an entry, whose data are not looked at; errors as of ``read``."""
    descriptor = os.open(path, _READING)
    try:
        return Identity.of(_beginning(descriptor)[1])
    finally:
        os.close(descriptor)


def set_asked(path: str | Path, asked: int) -> None:
    """Note that the server was asked for an entry, and has the same version still."""
    descriptor = os.open(path, os.O_WRONLY | _SAFELY)
    try:
        os.pwrite(descriptor, _ASKED.pack(asked), _ASKED_AT)
    finally:
        os.close(descriptor)


@lru_cache(4096)
def _name(identity: Identity) -> str:
    # asked for twice in a row: whether it is there, and what it holds
    digest = hashlib.blake2b(identity.spelled, digest_size=16, person=b"globidx-cache")
    return digest.hexdigest()


def _beginning(descriptor: int) -> tuple[_Head, bytes]:
    """The head of an entry's file, and its identity as it is spelled."""
    beginning = os.pread(descriptor, _AT_ONCE, 0)
    head = _Head.of(beginning, os.fstat(descriptor).st_size)
    if head.begin > len(beginning):
        beginning = os.pread(descriptor, head.begin, 0)
    return head, beginning[_HEAD.size : head.begin]


class _Head(NamedTuple):
    """The numbers at the beginning of an entry's file."""

    checksum: int
    spelled: int
    size: int
    nbytes: int
    asked: int

    @classmethod
    def of(cls, beginning: bytes, file_size: int) -> Self:
        if len(beginning) < _HEAD.size:
            raise DamagedError(f"it has {file_size} bytes, fewer than its head")
        magic, *numbers = _HEAD.unpack_from(beginning)
        if magic != _MAGIC:
            raise DamagedError("it does not begin as an entry does")
        head = cls(*numbers)
        # before memory is allocated for what a damaged head claims
        if head.nbytes < 0 or head.begin + head.nbytes != file_size:
            raise DamagedError(
                f"it has {file_size} bytes, where {head.begin + head.nbytes} were written"
            )
        return head

    @property
    def begin(self) -> int:
        """Where the data begin."""
        return _HEAD.size + self.spelled

    def check(self, spelled: bytes, data: bytes) -> None:
        if _checksum((self.spelled, self.size, self.nbytes), spelled, data) != self.checksum:
            raise DamagedError("its checksum is another one")


def _checksum(numbers: tuple[int, int, int], spelled: bytes, data: bytes) -> int:
    front = struct.pack("<Iqq", *numbers) + spelled
    checksum: int = _crc32c().extend(_crc32c().value(front), data)
    return checksum


@cache
def _crc32c() -> Any:
    # where there is a cache: it would give a free-threaded Python its GIL back
    return forks.import_module("google_crc32c")
