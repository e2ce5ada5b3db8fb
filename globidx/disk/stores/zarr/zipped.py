"""zarr stores in a zip file, read in place: a member is a range of one file, or inflated from it.

The central directory is parsed once and kept in the process, as arrays. Members are read by
``pread``, each by a descriptor of its own, so threads and forked workers share nothing that moves.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 (local headers) and
4.4.4 to 4.4.5 (flags and methods).
"""

from __future__ import annotations

import os
import stat
import struct
import threading
import time
import zipfile
from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.reading.lru import ByteLru
from globidx.disk.files import forks
from globidx.disk.files.blocks import BlockCache
from globidx.disk.index.stamps import SETTLED_NS
from globidx.disk.stores.base import ZARR_MARKERS, OtherFormatError
from globidx.disk.stores.codecs import inflate_raw, inflater
from globidx.disk.stores.zarr.containers import MOST_METADATA, read_on

#: Bytes of directories that a process keeps of files it has closed: some 850,000 members.
_KEPT_BYTES = 32 * 2**20
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
_LOCAL = b"PK\x03\x04"
_STORED, _DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
_ENCRYPTED = 1
_MEMBER = np.dtype(
    [
        *((number, "i8") for number in ("header", "start", "packed", "size")),
        ("crc", "u4"),
        ("method", "u2"),
        ("flags", "u2"),
    ]
)
#: Other methods of section 4.4.5 that are met.
_METHODS = {9: "deflate64", 12: "bzip2", 14: "LZMA", 93: "zstd", 95: "xz", 98: "PPMd"}
#: What ``zipfile`` raises over a central directory that is none.
_BROKEN = (
    zipfile.BadZipFile,
    NotImplementedError,
    struct.error,
    ValueError,
    OverflowError,
    EOFError,
    LookupError,
)


class Directory(NamedTuple):
    """The members of a zip file: a row for each, ascending by the ``hashes`` of their names.

    ``root`` is what the names of the store's keys begin with, ``nodes`` its folders with metadata,
    and ``version`` says which file this is of.
    """

    hashes: NDArray[np.int64]
    members: NDArray[Any]
    root: str
    nodes: tuple[str, ...]
    version: Hashable
    size: int

    def find(self, key: str) -> int | None:
        """The row of the member with the bytes of a key; None where there is none.

        Names are as hashes here. Whoever reads a member compares the name in its own header.
        """
        name = hash(self.root + key)
        row = int(self.hashes.searchsorted(name))
        return row if row < len(self.hashes) and self.hashes[row] == name else None


class Zip:
    """The store in the zip file at ``path``: at its root, or in the one folder there.

    ``inflated`` keeps members that are read in parts, which are shards that were deflated.

    Raises
    ------
    OtherFormatError
        If it holds no store, or several.
    ValueError
        If the file is damaged.
    """

    kind = "zip"

    def __init__(self, path: str, inflated: BlockCache | None = None) -> None:
        self.path = path
        self._inflated = inflated
        descriptor, status = _open(path)
        try:
            self._directory = _directory_of(path, descriptor, status)
        finally:
            os.close(descriptor)
        self.root = self._directory.root.rstrip("/")

    def load(self, key: str) -> bytes | None:
        """Metadata; None where there is no such member, or a large one."""
        found = self.read(key, MOST_METADATA)
        return (found[0] or None) if found else None

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
        directory = self._directory
        row = directory.find(key)
        if row is None:
            return None
        descriptor, status = _open(self.path)
        try:
            if _version(status) != directory.version:
                raise ValueError("the zip file was written to while it was open; open it anew")
            opened = OpenedMember(descriptor, directory, row, directory.root + key, self._inflated)
        except BaseException:
            os.close(descriptor)
            raise
        if not opened.size:
            opened.close()
            return None
        return opened

    def has(self, key: str) -> bool:
        """Whether there is such a member with bytes in it."""
        row = self._directory.find(key)
        return row is not None and bool(self._directory.members["size"][row])

    def groups(self, path: str) -> list[str]:
        """The names of the folders in the one at ``path``, of those that hold metadata anywhere."""
        inside = f"{path}/" if path else ""
        below = (node[len(inside) :] for node in self._directory.nodes if node.startswith(inside))
        return list(dict.fromkeys(node.partition("/")[0] for node in below if node))


def require_store(path: str) -> None:
    """ValueError where a zip file is damaged; OtherFormatError where it holds no store, or several."""
    Zip(path)


class OpenedMember:
    """A member of a zip file; ValueError where its headers are damaged, or it cannot be read."""

    __slots__ = (
        "_crc",
        "_descriptor",
        "_directory",
        "_inflated",
        "_name",
        "_start",
        "packed",
        "size",
    )

    def __init__(
        self,
        descriptor: int,
        directory: Directory,
        row: int,
        name: str,
        inflated: BlockCache | None,
    ) -> None:
        header, start, packed, size, crc, method, flags = directory.members[row].item()
        if flags & _ENCRYPTED:
            raise ValueError(f"member {name!r} of the zip file is encrypted; write it without")
        if method not in (_STORED, _DEFLATED):
            known = _METHODS.get(method, f"method {method}")
            raise ValueError(
                f"member {name!r} of the zip file is compressed by {known}; stored and deflated members can be read"
            )
        if start < 0:
            start = _start_of(descriptor, header, name)
            # the same for all threads, whoever is first
            directory.members["start"][row] = start
        if start + packed > directory.size or (method == _STORED and packed != size):
            raise ValueError(
                f"the zip file is damaged: member {name!r} claims bytes [{start}, {start + packed}) of {directory.size}"
            )
        self.size, self.packed = size, packed if method == _DEFLATED else 0
        self._descriptor, self._directory, self._name = descriptor, directory, name
        self._start, self._crc, self._inflated = start, crc, inflated

    @property
    def version(self) -> Hashable:
        """That of the zip file."""
        return self._directory.version

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; the checksum is verified of all of them only."""
        if self.packed:
            return self._inflate(size, offset)
        size = max(0, min(size, self.size - offset))
        start = self._start + offset
        data = read_on(self._descriptor, os.pread(self._descriptor, size, start), size, start)
        if size == self.size:
            self._verify(data)
        return data

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def _inflate(self, size: int, offset: int) -> bytes:
        if size == self.size:
            return self._whole()
        key = "inflated", self._directory.version, self._name
        kept = None if self._inflated is None else self._inflated.get(key)
        if kept is None:
            kept = np.frombuffer(self._whole(), np.uint8)
            if self._inflated is not None:
                self._inflated.put(key, kept)
        return kept[offset : offset + size].tobytes()

    def _whole(self) -> bytes:
        packed = os.pread(self._descriptor, self.packed, self._start)
        packed = read_on(self._descriptor, packed, self.packed, self._start)
        data = inflate_raw(packed, self.size)
        if len(data) != self.size:
            raise ValueError(
                f"the zip file is damaged: member {self._name!r} holds {len(data)} bytes, where {self.size} belong"
            )
        self._verify(data)
        return data

    def _verify(self, data: bytes) -> None:
        # 7 GB/s by zlib, several times that by zlib-ng
        checksum = inflater().crc32(data)
        if checksum != self._crc:
            raise ValueError(
                f"member {self._name!r} of the zip file has checksum {self._crc:#010x}, but its bytes have "
                f"{checksum:#010x}: they were damaged"
            )


class _Kept:
    """Directories of files that were opened before, in this process or in the one that forked it."""

    def __init__(self) -> None:
        self._lru = ByteLru[Directory](_KEPT_BYTES)
        self._lock = threading.Lock()
        forks.renew_in_child(self, _Kept._inherit)

    def get(self, key: Hashable) -> Directory | None:
        with self._lock:
            return self._lru.get(key)

    def put(self, key: Hashable, directory: Directory) -> None:
        with self._lock:
            nodes = sum(map(len, directory.nodes)) + 64 * len(directory.nodes)
            self._lru.put(
                key, directory, directory.members.nbytes + directory.hashes.nbytes + nodes
            )

    def _inherit(self) -> None:
        self._lock = threading.Lock()
        self._lru.recount()


_kept = _Kept()


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
    directory = _kept.get((path, version))
    if directory is None:
        directory = _parsed(descriptor, version, status.st_size)
        # a younger file may change again without its times moving
        if max(status.st_mtime_ns, status.st_ctime_ns) < time.time_ns() - SETTLED_NS:
            _kept.put((path, version), directory)
    return directory


def _parsed(descriptor: int, version: Hashable, size: int) -> Directory:
    try:
        with (
            open(os.dup(descriptor), "rb") as file,
            zipfile.ZipFile(file) as archive,
        ):
            # of members of one name the last one counts, as zarr writes them
            infos = {info.filename: info for info in archive.infolist()}
        members = np.array([_member(info) for info in infos.values()], _MEMBER)
        hashes = np.fromiter(map(hash, infos), np.int64, len(infos))
    except _BROKEN as error:
        raise ValueError(f"the zip file is damaged: {error}") from error
    root = _root(infos)
    order = np.argsort(hashes)
    nodes = tuple(sorted(_nodes(infos, root)))
    return Directory(hashes[order], members[order], root, nodes, version, size)


def _member(info: zipfile.ZipInfo) -> tuple[int, ...]:
    return (
        info.header_offset,
        -1,
        info.compress_size,
        info.file_size,
        info.CRC,
        info.compress_type,
        info.flag_bits,
    )


def _root(names: Iterable[str]) -> str:
    """What the names of the keys of the one store among these names begin with."""
    roots = {
        name.removesuffix(marker)
        for name in names
        for marker in ZARR_MARKERS
        if name.count("/") <= 1 and name.rpartition("/")[2] == marker
    }
    if "" in roots:
        return ""
    if len(roots) > 1:
        shown = ", ".join(sorted(roots)[:8])
        raise OtherFormatError(
            f"a zip file with {len(roots)} zarr stores in it ({shown}); name one as zip://FOLDER::PATH"
        )
    if not roots:
        raise OtherFormatError(
            "a zip file without a zarr store at its root, or in a folder there; name one that lies deeper as "
            "zip://FOLDER::PATH"
        )
    return roots.pop()


def _nodes(names: Iterable[str], root: str) -> set[str]:
    """The folders of a store that hold metadata, and those on the way to them."""
    nodes: set[str] = set()
    for name in names:
        folder, _, last = name.removeprefix(root).rpartition("/")
        if last in ZARR_MARKERS and name.startswith(root):
            while folder and folder not in nodes:
                nodes.add(folder)
                folder = folder.rpartition("/")[0]
    return nodes


def _start_of(descriptor: int, header: int, name: str) -> int:
    """Where the bytes of a member begin, by its local header, whose lengths are its own."""
    spelled = name.encode()
    local = os.pread(descriptor, 30 + len(spelled), header)
    if local[:4] != _LOCAL or len(local) < 30:
        raise ValueError(
            f"the zip file is damaged: at byte {header} there is no header of member {name!r}"
        )
    length, extra = struct.unpack_from("<HH", local, 26)
    # a name that is no ASCII may be in an encoding of its time, of which the length tells little
    if name.isascii() and (length != len(spelled) or local[30:] != spelled):
        raise ValueError(
            f"the zip file is damaged: the header at byte {header} is not that of member {name!r}"
        )
    return int(header + 30 + length + extra)
