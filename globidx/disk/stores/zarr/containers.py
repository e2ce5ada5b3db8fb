"""What holds the keys of a zarr store: a folder, whose files they are, or one zip file, here or by URL.

Everything above (metadata, chunks, shards, codecs) asks a container for bytes, and is the same for
all of them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Hashable, Sequence
from typing import Protocol, runtime_checkable

from globidx.disk.files.paths import subfolders
from globidx.disk.remote.objects import Objects, Piece

#: Metadata of this many bytes and more are for zarr to read.
MOST_METADATA = 2**20
# a larger buffer would cost more than the read
_MOST_OFTEN = 2**13
# a FIFO must not be waited for
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)


def key_of(path: str, name: str) -> str:
    """The key of a name in the node at ``path``; either may be "".

    >>> key_of("", "zarr.json"), key_of("a/b", ".zarray"), key_of("a", "")
    ('zarr.json', 'a/b/.zarray', 'a')
    """
    if not path:
        return name
    return f"{path}/{name}" if name else path


class Opened(Protocol):
    """The bytes of one key, open until ``close``. Threads and forked processes share no position.

    ``packed`` is the size of what they are inflated from, 0 if they are stored as they are.
    """

    size: int
    packed: int

    @property
    def version(self) -> Hashable:
        """What differs where the bytes were written anew."""

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer where they end before.

        ValueError where they are damaged.
        """

    def close(self) -> None:
        """Release them."""


class Container(Protocol):
    """The keys of a zarr store, by names like ``"images/c/0/0"``.

    ``kind`` begins the kind of its files in an index.
    """

    kind: str
    path: str

    def load(self, key: str) -> bytes | None:
        """Metadata, at most ``MOST_METADATA`` bytes; None where there are none to be had."""

    def read(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """All bytes of a key, and how many there are; none are read if these are more than ``limit``.

        None where the key is absent, or has no bytes; ValueError where they are damaged.
        """

    def open(self, key: str) -> Opened | None:
        """The bytes of a key, to be read in parts; None where it is absent, or has no bytes."""

    def has(self, key: str) -> bool:
        """Whether ``open`` has bytes."""

    def groups(self, path: str) -> list[str]:
        """The names of the folders in the one at ``path``; none where there is no folder."""


@runtime_checkable
class FarContainer(Container, Protocol):
    """A container of bytes behind a URL, which can say what it will ask ``objects`` for."""

    objects: Objects

    def prime(self, keys: Sequence[str]) -> None:
        """Load metadata at the same time."""

    def knows(self, key: str) -> bool:
        """Whether another ``open`` of a key asks nobody."""

    def piece(self, key: str, start: int = 0, stop: int | None = None) -> Piece | None:
        """What a server is asked for to read bytes of a key, all of them by default.

        None where that is nothing, or not known yet.
        """

    def why_whole(self, key: str, /) -> str:
        """Why a key is fetched whole, whatever is read of it; "" where it is not."""


class Folder:
    """A store whose keys are files below the folder ``path``. It keeps none of them open."""

    kind = "zarr"

    def __init__(self, path: str) -> None:
        self.path = path

    def load(self, key: str) -> bytes | None:
        """Metadata; None where there is no such file."""
        try:
            descriptor = os.open(f"{self.path}/{key}", _FLAGS)
        except OSError:
            return None
        try:
            data = os.read(descriptor, _MOST_OFTEN)
            # a full buffer: there may be more
            if len(data) == _MOST_OFTEN:
                data += os.read(descriptor, MOST_METADATA)
        except OSError:
            return None
        finally:
            os.close(descriptor)
        return data

    def read(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """All bytes of a file, and how many there are."""
        # Opened for each read, which takes 5 us of some 40 for a chunk: descriptors that stay open
        # would be a second thing to bound.
        try:
            descriptor = os.open(f"{self.path}/{key}", _FLAGS)
        except _ABSENT:
            return None
        try:
            status = os.fstat(descriptor)
            size = status.st_size
            if not stat.S_ISREG(status.st_mode) or not size:
                return None
            if size > limit:
                return b"", size
            data = os.pread(descriptor, size, 0)
            if len(data) < size:
                data = read_on(descriptor, data, size, 0)
            return data, size
        finally:
            os.close(descriptor)

    def open(self, key: str) -> OpenedFile | None:
        """The file of a key; None where there is no regular file with bytes in it."""
        try:
            descriptor = os.open(f"{self.path}/{key}", _FLAGS)
        except _ABSENT:
            return None
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            os.close(descriptor)
            return None
        return OpenedFile(descriptor, status)

    def has(self, key: str) -> bool:
        """Whether there is a regular file with bytes in it."""
        try:
            status = os.stat(f"{self.path}/{key}")
        except (FileNotFoundError, NotADirectoryError):
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size > 0

    def groups(self, path: str) -> list[str]:
        """The names of the folders in the one at ``path``."""
        return subfolders(os.path.join(self.path, path))


class OpenedFile:
    """A file of a folder."""

    __slots__ = ("_descriptor", "_status", "size")

    packed = 0

    def __init__(self, descriptor: int, status: os.stat_result) -> None:
        self._descriptor, self._status, self.size = descriptor, status, status.st_size

    @property
    def version(self) -> Hashable:
        """Inode, size and time of the file."""
        return self._status.st_ino, self._status.st_size, self._status.st_mtime_ns

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on."""
        data = os.pread(self._descriptor, size, offset)
        return data if len(data) == size else read_on(self._descriptor, data, size, offset)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def read_on(descriptor: int, data: bytes, size: int, offset: int) -> bytes:
    """``data`` and what follows it up to ``size`` bytes: a signal, or more than 2 GiB, cut a read."""
    while 0 < len(data) < size:
        more = os.pread(descriptor, size - len(data), offset + len(data))
        if not more:
            break
        data += more
    return data
