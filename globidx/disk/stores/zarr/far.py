"""The keys of a zarr store behind a URL, for what reads stores without zarr."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from globidx.disk.remote.objects import Found, Objects, Piece, refuse_another
from globidx.disk.stores.zarr.containers import MOST_METADATA

#: Bytes at the end of a shard that come with its size: the index of a thousand chunks.
TAIL = 2**14
#: Shards whose size and version are remembered.
_MOST_SHARDS = 2**16


class Far:
    """A store whose keys are objects below ``prefix``. It keeps the metadata that it has read.

    A key that cannot be asked for is an error, here as everywhere; only one that is not there is
    None.
    """

    kind = "zarr"

    def __init__(self, url: str, objects: Objects, prefix: str) -> None:
        self.path = url
        self.objects = objects
        self._prefix = f"{prefix}/" if prefix else ""
        self._loaded: dict[str, bytes | None] = {}
        self._shards: dict[str, Found] = {}

    def prime(self, keys: Sequence[str]) -> None:
        """Load metadata at the same time."""
        keys = [key for key in dict.fromkeys(keys) if key not in self._loaded]
        found = self.objects.get_many([self.piece(key) for key in keys])
        self._loaded |= dict(zip(keys, map(_data_of, found), strict=True))

    def load(self, key: str) -> bytes | None:
        """Metadata; None where there are none."""
        if key not in self._loaded:
            self._loaded[key] = _data_of(self.objects.get(self.piece(key)))
        return self._loaded[key]

    def read(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """All bytes of an object, and how many there are."""
        found = self.objects.get(self.piece(key))
        if found is None or not found.size:
            return None
        return (found.data if found.size <= limit else b""), found.size

    def open(self, key: str) -> OpenedObject | None:
        """An object of which parts are read; None where there is none with bytes in it."""
        piece = self.piece(key, -TAIL)
        found = self._shards.get(key)
        if found is None:
            found = self.objects.get(piece)
            if not found or not found.size:
                return None
            if len(self._shards) >= _MOST_SHARDS:
                self._shards.clear()
            # whoever reads the index now keeps it
            self._shards[key] = found._replace(data=b"")
        return OpenedObject(self.objects, piece.key, found)

    def knows(self, key: str) -> bool:
        """Whether a key was opened before, so that another ``open`` asks nobody."""
        return key in self._shards

    def has(self, key: str) -> bool:
        """Whether there is an object with bytes in it."""
        found = self.objects.get(self.piece(key))
        return found is not None and found.size > 0

    def groups(self, path: str) -> list[str]:
        """The names of the folders in the one at ``path``."""
        base = self._prefix + (f"{path}/" if path else "")
        below = (name[len(base) :] for name in self.objects.names(base))
        return list(dict.fromkeys(name.partition("/")[0] for name in below if "/" in name))

    def piece(self, key: str, start: int = 0, stop: int | None = None) -> Piece:
        """Bytes of a key, as its server is asked for them."""
        return Piece(self._prefix + key, start, stop)

    def why_whole(self, _key: str, /) -> str:
        """Nothing: all objects can be read in parts."""
        return ""


class OpenedObject:
    """An object whose size and version came with a part of it, its end by default; see ``Opened``."""

    __slots__ = ("_first", "_found", "_key", "_objects", "size", "version")

    packed = 0

    def __init__(self, objects: Objects, key: str, found: Found, first: int | None = None) -> None:
        self._objects, self._key, self._found = objects, key, found
        self._first = found.size - len(found.data) if first is None else first
        self.size = found.size
        self.version: Hashable = found.size, found.version

    def read(self, size: int, offset: int) -> bytes:
        """``size`` bytes from ``offset`` on; fewer where they end before."""
        if not size:
            # of no bytes a server cannot be asked
            return b""
        stop, first = min(offset + size, self.size), self._first
        if first <= offset and stop <= first + len(self._found.data):
            return self._found.data[offset - first : stop - first]
        found = self._objects.get(Piece(self._key, offset, stop))
        if found is None:
            return b""
        # what is kept on a disk may be older than what the server has
        name = f"{self._objects.url}/{self._key}"
        refuse_another(name, (self._found.size, self._found.version), (found.size, found.version))
        return found.data

    def close(self) -> None:
        """Nothing is open."""


def _data_of(found: Found | None) -> bytes | None:
    return None if found is None else found.data[:MOST_METADATA]
