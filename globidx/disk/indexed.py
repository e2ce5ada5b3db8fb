"""One look at the files: a frozen value that everything read at one time is read from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

from globidx.core.index import GlobalIndex, Location
from globidx.core.table import Entry, Names, Table


@dataclass(frozen=True, eq=False)
class Indexed:
    """What the files held when they were looked at.

    A ``refresh`` makes another one; readers in the middle of a batch keep theirs.
    """

    root: str
    table: Table
    skipped: tuple[tuple[str, str], ...]
    cache_path: Path
    generation: int

    def __reduce__(self) -> tuple[type[Indexed], tuple[Any, ...]]:
        return Indexed, (self.root, self.table, self.skipped, self.cache_path, self.generation)

    @cached_property
    def index(self) -> GlobalIndex:
        """The arithmetic."""
        return GlobalIndex(self.table.lengths)

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


class Paths(Sequence[str]):
    """Absolute paths, spelled out one by one when they are asked for."""

    def __init__(self, root: str, names: Names) -> None:
        self._root, self._names = root, names

    def __len__(self) -> int:
        return len(self._names)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> list[str]: ...
    def __getitem__(self, place: int | slice) -> str | list[str]:
        if isinstance(place, slice):
            return [os.path.join(self._root, name) for name in self._names[place]]
        return os.path.join(self._root, self._names[place])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(list(self)) if len(self) <= 8 else f"[{self[0]!r}, ..., {self[-1]!r}] ({len(self)} paths)"
