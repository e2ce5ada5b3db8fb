"""zarr stores in a zip file behind a URL: a member is a range of one object, or inflated from it.

The directory takes two requests: the end of the object, and what is in front of that. Then a chunk
is one, for its header and what follows it, so that nothing must be looked up before it.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence

from globidx.disk.files.blocks import BlockCache
from globidx.disk.local_cache.pages import Pages, opened
from globidx.disk.remote.ahead import themselves
from globidx.disk.remote.objects import Found, Objects, Piece, refuse_another
from globidx.disk.stores.zarr.containers import MOST_METADATA
from globidx.disk.stores.zarr.far import TAIL, OpenedObject
from globidx.disk.stores.zips.directory import Directory, kept, parsed
from globidx.disk.stores.zips.keys import ZipKeys
from globidx.disk.stores.zips.member import Member, OpenedMember, damaged
from globidx.errors import ReadError

#: Bytes at the end of a zip file that come first: its last record, with the longest comment, and
#: that of zip64.
_END = 2**16 + 2**10
#: A directory is not fetched that claims to be larger; it would have some three million members.
_MOST_DIRECTORY = 2**28
#: Bytes behind the name in the header of a shard that come with it; most writers have fewer.
_EXTRA = 2**8


class FarZip(ZipKeys):
    """The store in the zip file ``key`` of ``objects``; ``url`` is how it was named.

    It keeps the metadata that it has read, and in ``pages`` those that it has fetched. What is read is
    of the version that the directory is of.

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    OtherFormatError
        If it holds no store, or several.
    ValueError
        If the directory is damaged.
    """

    def __init__(
        self,
        url: str,
        objects: Objects,
        key: str,
        root: str | None = None,
        inflated: BlockCache | None = None,
        pages: Pages | None = None,
    ) -> None:
        self.objects, self._key = objects, key
        self._metadata, end = opened(themselves(objects), Piece(key, -_END), pages)
        if end is None:
            raise FileNotFoundError(f"there is nothing at {objects.url}/{key}")
        self._about = end._replace(data=b"")
        # of one without a version, nothing proves that another opening has the same
        version = (end.size, end.version) if end.version else object()
        self._identity: Hashable = (objects.url, key, version)
        self._loaded: dict[str, bytes | None] = {}
        super().__init__(url, self._directory_of(end), root, inflated)

    @property
    def version(self) -> str:
        """The version that the file was of when it was opened; nothing if none was told."""
        return self._about.version

    def prime(self, keys: Sequence[str]) -> None:
        """Load metadata at the same time."""
        found = {key: self._find(key) for key in keys if key not in self._loaded}
        self._loaded |= {key: None for key, one in found.items() if one is None}
        wanted = {key: one for key, one in found.items() if one and one[1].size <= MOST_METADATA}
        pieces = [self._all_of(member) for _, member in wanted.values()]
        came = self._metadata.get_many(pieces)
        for (key, (row, member)), found_now in zip(wanted.items(), came, strict=True):
            self._loaded[key] = self._unpacked(row, member, self._checked(found_now))

    def load(self, key: str) -> bytes | None:
        """Metadata; None where there is no such member, or a large one."""
        if key not in self._loaded:
            self.prime([key])
        return self._loaded.get(key)

    def read(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """All bytes of a member, its checksum verified, and how many there are."""
        found = self._find(key)
        if found is None:
            return None
        row, member = found
        if member.size > limit:
            return b"", member.size
        data = self._checked(self.objects.get(self._all_of(member)))
        return self._unpacked(row, member, data), member.size

    def open(self, key: str) -> OpenedMember | None:
        """The member of a key, which is read in parts; None where there is none with bytes in it."""
        found = self._find(key)
        if found is None:
            return None
        row, member = found
        start, data, first = member.start, b"", 0
        if start < 0:
            start, data, first = self._begun(row, member)
        about = self._about._replace(data=data)
        raw = OpenedObject(self.objects, self._key, about, first)
        if member.is_deflated:
            raw = _Deflated(self.objects, self._key, about, self._all_of(member))
        return OpenedMember(raw, member, start, self._identity, self._inflated)

    def knows(self, key: str) -> bool:
        """Whether another ``open`` of a key asks nobody."""
        found = self._find(key)
        return found is None or found[1].start >= 0

    def piece(self, key: str, start: int = 0, stop: int | None = None) -> Piece | None:
        """What its server is asked for to read bytes of a key; None where that is nothing, or not known."""
        found = self._find(key)
        if found is None:
            return None
        _, member = found
        if stop is None:
            return self._all_of(member)
        if member.is_deflated or member.start < 0:
            return None
        return Piece(self._key, member.start + start, member.start + stop)

    def _begun(self, row: int, member: Member) -> tuple[int, bytes, int]:
        """Where the bytes of a member begin; and its last bytes, and where these are.

        All of one that was deflated, of which no part can be had.
        """
        stop = member.end(_EXTRA)
        if member.is_deflated:
            last = self._all_of(member)
            pieces = [last]
        else:
            head = Piece(self._key, member.header, min(stop, member.header + member.head + _EXTRA))
            last = Piece(self._key, max(member.header, stop - TAIL), stop)
            pieces = [head, last]
        came = self._get(pieces)
        start = member.begin(came[0])
        self._directory.note(row, start)
        return start, came[-1], last.start

    def _all_of(self, member: Member) -> Piece:
        """A member with its header, which is always the same piece, so that it is kept and expected as such."""
        return Piece(self._key, member.header, member.end())

    def _unpacked(self, row: int, member: Member, data: bytes) -> bytes:
        """All that a member holds, by its bytes in the zip file from its header on."""
        start = member.begin(data)
        self._directory.note(row, start)
        first = start - member.header
        return member.unpacked(data[first : first + member.packed])

    def why_whole(self, key: str, /) -> str:
        """Why a member is fetched whole, whatever is read of it; "" where it is not."""
        found = self._find(key)
        return "deflated" if found is not None and found[1].is_deflated else ""

    def fetch(self, start: int, stop: int) -> bytes:
        """Bytes of the directory."""
        return self._checked(self._metadata.get(Piece(self._key, start, stop)))

    def _get(self, pieces: Sequence[Piece]) -> list[bytes]:
        return [self._checked(found) for found in self.objects.get_many(pieces)]

    def _checked(self, found: Found | None) -> bytes:
        """What came, if it is of the version that the directory is of."""
        name = f"{self.objects.url}/{self._key}"
        if found is None:
            raise ReadError(f"{name} was there when it was opened, and is no longer")
        # what is kept on a disk may be older than what the server has
        before, now = (self._about.size, self._about.version), (found.size, found.version)
        refuse_another(name, before, now)
        return found.data

    def _directory_of(self, end: Found) -> Directory:
        """The directory, of which this is the end, kept for the next time the object is opened."""
        version = end.size, end.version
        place = self.objects.url, self._key
        directory = kept.get((place, version)) if end.version else None
        if directory is None:
            directory = parsed(_Ending(self, end), version)
            if end.version:
                kept.put((place, version), directory)
        return directory


class _Deflated(OpenedObject):
    """A member that was deflated, which is always asked for as the same piece, so that it is kept as such."""

    __slots__ = ("_piece",)

    def __init__(self, objects: Objects, key: str, found: Found, piece: Piece) -> None:
        super().__init__(objects, key, found, piece.start)
        self._piece = piece

    def read(self, size: int, offset: int) -> bytes:
        if not self._found.data:
            start, stop = self._piece.within(self.size)
            self._found = self._found._replace(data=super().read(stop - start, start))
        return super().read(size, offset)


class _Ending:
    """The end of a zip file, for ``zipfile``, which finds the directory in it.

    What is in front of it is fetched when it is read, once.
    """

    def __init__(self, zipped: FarZip, end: Found) -> None:
        self._zipped, self._size, self._data = zipped, end.size, end.data
        self._at = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise OSError(f"there is no byte {at}")
        self._at = at
        return at

    def read(self, size: int = -1) -> bytes:
        start, first = self._at, self._size - len(self._data)
        if start < first:
            if self._size - start > _MOST_DIRECTORY:
                raise damaged(f"its directory would take {self._size - start} bytes")
            self._data = self._zipped.fetch(start, first) + self._data
            first = start
        stop = self._size if size < 0 else min(start + size, self._size)
        self._at = max(start, stop)
        return self._data[start - first : stop - first]
