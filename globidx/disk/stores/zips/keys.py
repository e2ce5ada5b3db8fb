"""What of a store in a zip file follows from its directory, wherever the zip file lies."""

from __future__ import annotations

from abc import ABC, abstractmethod

from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.zarr.containers import MOST_METADATA, key_of
from globidx.disk.stores.zips.directory import Directory
from globidx.disk.stores.zips.member import Member


class ZipKeys(ABC):
    """The keys of the store at ``root``, or by default of the one there is; see ``Container``.

    ``inflated`` keeps members that are read in parts, which are shards that were deflated.

    OtherFormatError where there is no such store, or are several.
    """

    kind = "zip"

    def __init__(
        self, path: str, directory: Directory, root: str | None, inflated: BlockCache | None
    ) -> None:
        self.path = path
        self.root = directory.root if root is None else root
        self._prefix = f"{self.root}/" if self.root else ""
        self._directory, self._inflated = directory, inflated

    def load(self, key: str) -> bytes | None:
        """Metadata; None where there is no such member, or a large one."""
        found = self.read(key, MOST_METADATA)
        return (found[0] or None) if found else None

    @abstractmethod
    def read(self, key: str, limit: int) -> tuple[bytes, int] | None:
        """All bytes of a member, its checksum verified, and how many there are."""

    def has(self, key: str) -> bool:
        """Whether there is such a member with bytes in it."""
        row = self._directory.row(self._prefix + key)
        return row is not None and bool(self._directory.members["size"][row])

    def groups(self, path: str) -> list[str]:
        """The names of the folders in the one at ``path``, of those that hold metadata anywhere."""
        base = key_of(self.root, path)
        inside = f"{base}/" if base else ""
        below = (node[len(inside) :] for node in self._directory.nodes if node.startswith(inside))
        return list(dict.fromkeys(node.partition("/")[0] for node in below if node))

    def _find(self, key: str) -> tuple[int, Member] | None:
        """A member with bytes in it, and its row; None where there is none."""
        name = self._prefix + key
        row = self._directory.row(name)
        if row is None:
            return None
        member = self._directory.member(row, name)
        return (row, member) if member.size else None
