"""zarr stores in a zip file on a disk: a member is a range of it, or inflated from one.

Members are read by ``pread``, each by a descriptor of its own, so threads and forked workers share
nothing that moves.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Hashable, Sequence

from globidx.disk.files.blocks import BlockCache
from globidx.disk.index.stamps import SETTLED_NS
from globidx.disk.stores.zarr.containers import OpenedFile
from globidx.disk.stores.zips.directory import Directory, kept, parsed
from globidx.disk.stores.zips.keys import ZipKeys
from globidx.disk.stores.zips.member import OpenedMember

_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class Zip(ZipKeys):
    """The store in the zip file at ``path``: that at ``root``, at its root, or in the one folder there.

    Raises
    ------
    OtherFormatError
        If it holds no store, or several.
    ValueError
        If the file is damaged.
    """

    def __init__(
        self, path: str, inflated: BlockCache | None = None, root: str | None = None
    ) -> None:
        descriptor, status = _open(path)
        try:
            directory = _directory_of(path, descriptor, status)
        finally:
            os.close(descriptor)
        super().__init__(path, directory, root, inflated)

    def prime(self, keys: Sequence[str]) -> None:
        """Nothing: metadata are read when they are wanted."""

    def read(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """All bytes of a member, its checksum verified, and how many there are."""
        opened = self.open(key)
        if opened is None:
            return None
        try:
            size = opened.size
            return (opened.read(size, 0) if size <= limit else b""), size
        finally:
            opened.close()

    def open(self, key: str) -> OpenedMember | None:
        """The member of a key; None where there is none with bytes in it."""
        found = self._find(key)
        if found is None:
            return None
        row, member = found
        descriptor, status = _open(self.path)
        try:
            version = self._directory.version
            if _version(status) != version:
                raise ValueError("the zip file was written to while it was open; open it anew")
            start = member.start
            if start < 0:
                start = member.begin(os.pread(descriptor, member.head, member.header))
                self._directory.note(row, start)
        except BaseException:
            os.close(descriptor)
            raise
        raw = OpenedFile(descriptor, status)
        return OpenedMember(raw, member, start, version, self._inflated)


def require_store(path: str) -> None:
    """ValueError where a zip file is damaged; OtherFormatError where it holds no store, or several."""
    Zip(path)


def _open(path: str) -> tuple[int, os.stat_result]:
    descriptor = os.open(path, _FLAGS)
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise ValueError("it is no regular file; it is not opened")
    return descriptor, status


def _version(status: os.stat_result) -> Hashable:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _directory_of(path: str, descriptor: int, status: os.stat_result) -> Directory:
    """The directory of an open zip file, kept for the next time it is opened."""
    version = _version(status)
    directory = kept.get((path, version))
    if directory is None:
        with open(os.dup(descriptor), "rb") as file:
            directory = parsed(file, version)
        # a younger file may change again without its times moving
        if max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - SETTLED_NS:
            kept.put((path, version), directory)
    return directory
