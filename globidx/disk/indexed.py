"""One look at the files: a frozen value that everything read at one time is read from."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from globidx.core.index import GlobalIndex, Location
from globidx.core.table import Entry, Table
from globidx.disk.indexcache import holds, reopened
from globidx.disk.paths import Paths


@dataclass(frozen=True, eq=False)
class Indexed:
    """What the files held when they were looked at.

    A ``refresh`` makes another one; readers in the middle of a batch keep theirs. Where the cache file holds the very
    table (``digest`` is that file's), the table is mapped from it, and a pickle is the file's
    name: a worker maps it, too.
    """

    root: str
    table: Table
    skipped: tuple[tuple[str, str], ...]
    cache_path: Path
    generation: int
    digest: str | None = None

    def __reduce__(self) -> tuple[Callable[..., Indexed], tuple[Any, ...]]:
        if self.digest is not None and holds(self.cache_path, self.digest):
            return _mapped, (self.root, self.skipped, self.cache_path, self.generation, self.digest)
        return Indexed, (self.root, self.table, self.skipped, self.cache_path, self.generation)

    @cached_property
    def index(self) -> GlobalIndex:
        """The arithmetic."""
        return GlobalIndex.sharing(self.table.lengths)

    @cached_property
    def fingerprint(self) -> str:
        """Content identity of all files."""
        return self.table.fingerprint()

    @property
    def paths(self) -> Paths:
        """Absolute paths, made when they are asked for."""
        return Paths(self.root, self.table.names)

    def locate(self, sample_id: int) -> Location:
        """Path and item of a sample."""
        file, item = self.index.locate(sample_id)
        return Location(self.paths[file], item)

    def entry(self, number: int) -> Entry:
        """What is known of one file."""
        return self.table.entry(number)

    def chunk_length(self, number: int, array: int) -> int:
        """How many items a chunk of one file's ``array``-th array holds; 0 where it is not chunked."""
        return int(self.table.chunk_lengths[number, array])

    def number_of(self, path: str) -> int:
        """The number of the file at ``path``; ValueError where it is none of these."""
        wanted = os.path.relpath(os.path.abspath(path), self.root)
        try:
            return self.table.names.index(wanted)
        except ValueError:
            raise ValueError(f"{path} is not one of the {len(self.table)} files of this index") from None


def _mapped(root: str, skipped: tuple[tuple[str, str], ...], path: Path, generation: int, digest: str) -> Indexed:
    try:
        table = reopened(os.fspath(path), digest)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the index cache {path} cannot be mapped in this process: {error}; another process has built the index of "
            "these files anew since, so build the GlobalIndexManager again"
        ) from None
    return Indexed(root, table, skipped, path, generation, digest)
