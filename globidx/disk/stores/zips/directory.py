"""The central directory of a zip file, parsed once and kept in the process, as arrays.

https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT, sections 4.3.7 (local headers) and
4.4.4 to 4.4.5 (flags and methods).
"""

from __future__ import annotations

import struct
import threading
import zipfile
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.reading.lru import ByteLru
from globidx.disk.files import forks
from globidx.disk.stores.base import ZARR_MARKERS, OtherFormatError
from globidx.disk.stores.zips.member import Member, damaged

#: Bytes of directories that a process keeps of files it has closed: some 750,000 members.
_KEPT_BYTES = 32 * 2**20
_MEMBER = np.dtype(
    [
        *((number, "i8") for number in ("header", "limit", "start", "packed", "size")),
        ("crc", "u4"),
        ("method", "u2"),
        ("flags", "u2"),
    ]
)
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


@dataclass(frozen=True, eq=False)
class Directory:
    """The members of a zip file: a row for each, ascending by the ``hashes`` of their names.

    ``nodes`` are the folders with metadata of zarr in them, and those on the way to these;
    ``roots`` those at the root or in one folder there; ``version`` says which file this is of.
    """

    hashes: NDArray[np.int64]
    members: NDArray[Any]
    nodes: tuple[str, ...]
    roots: tuple[str, ...]
    version: Hashable

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        return self.members.nbytes + self.hashes.nbytes + sum(64 + len(one) for one in self.nodes)

    def row(self, name: str) -> int | None:
        """The row of a member; None where there is none.

        Names are as hashes here. Whoever reads a member compares the name in its own header.
        """
        key = hash(name)
        row = int(self.hashes.searchsorted(key))
        return row if row < len(self.hashes) and self.hashes[row] == key else None

    def member(self, row: int, name: str) -> Member:
        """A member; ValueError where it cannot be one, or cannot be read here."""
        member = Member(name, *self.members[row].item())
        if member.start < 0:
            # once, before it is known where it begins
            member.require_sound()
        return member

    def note(self, row: int, start: int) -> None:
        """Keep where the bytes of a member begin: the same for all threads, whoever is first."""
        self.members["start"][row] = start

    @property
    def root(self) -> str:
        """The folder of the one store at the root, or in a folder there.

        OtherFormatError where there is none, or are several.
        """
        if "" in self.roots:
            return ""
        if len(self.roots) > 1:
            shown = ", ".join(f"{root}/" for root in self.roots[:8])
            raise OtherFormatError(
                f"a zip file with {len(self.roots)} zarr stores in it ({shown}); name one as zip://FOLDER::PATH"
            )
        if not self.roots:
            raise OtherFormatError(
                "a zip file without a zarr store at its root, or in a folder there; name one that lies deeper as "
                "zip://FOLDER::PATH"
            )
        return self.roots[0]


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
            self._lru.put(key, directory, directory.nbytes)

    def _inherit(self) -> None:
        self._lock = threading.Lock()
        self._lru.recount()


#: By the place of the file and its version.
kept = _Kept()


def parsed(file: Any, version: Hashable) -> Directory:
    """The directory of a zip file that can be read from anywhere; ValueError where it is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            listed, end = archive.infolist(), archive.start_dir
        # of members of one name the last one counts, as zarr writes them
        infos = {info.filename: info for info in listed}
        limits = dict(zip(map(id, listed), _limits(listed, end), strict=True))
        rows = [_row(info, limits[id(info)]) for info in infos.values()]
        members = np.array(rows, _MEMBER)
        hashes = np.fromiter(map(hash, infos), np.int64, len(infos))
    except _BROKEN as error:
        raise damaged(f"{error}") from error
    order = np.argsort(hashes)
    nodes = sorted(_nodes(infos))
    return Directory(
        hashes[order], members[order], tuple(nodes), tuple(sorted(_roots(infos))), version
    )


def _limits(infos: Sequence[zipfile.ZipInfo], end: int) -> list[int]:
    """Where what follows each member begins: the next one, or the directory at ``end``.

    Members that reach further overlap. No honest writer makes such, and those who do want more to
    be inflated than was sent.
    """
    headers = np.array([info.header_offset for info in infos], np.int64)
    ends = np.append(np.unique(headers), end)
    found: list[int] = np.minimum(ends[ends[:-1].searchsorted(headers, "right")], end).tolist()
    return found


def _row(info: zipfile.ZipInfo, limit: int) -> tuple[int, ...]:
    return (
        info.header_offset,
        limit,
        -1,
        info.compress_size,
        info.file_size,
        info.CRC,
        info.compress_type,
        info.flag_bits,
    )


def _roots(names: Iterable[str]) -> set[str]:
    """The folders of the stores at the root, or in one folder there."""
    return {
        name.rpartition("/")[0]
        for name in names
        if name.count("/") <= 1 and name.rpartition("/")[2] in ZARR_MARKERS
    }


def _nodes(names: Iterable[str]) -> set[str]:
    """The folders that hold metadata, and those on the way to them."""
    nodes: set[str] = set()
    for name in names:
        folder, _, last = name.rpartition("/")
        if last in ZARR_MARKERS:
            while folder and folder not in nodes:
                nodes.add(folder)
                folder = folder.rpartition("/")[0]
    return nodes
