"""One scan of the files as a frozen value."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.index.changes import Changes, compare
from globidx.core.index.chunking import Chunking
from globidx.core.index.index import GlobalIndex, Location
from globidx.core.index.names import Names, common_folder
from globidx.core.index.table import Entry, Table
from globidx.core.windows.sampling import Samples, Sampling
from globidx.core.windows.sequence_table import Units
from globidx.disk.files.paths import Paths, is_remote
from globidx.disk.index.cache import holds, map_cache
from globidx.disk.index.scan import printable


@dataclass(frozen=True, eq=False)
class Snapshot:
    """What the files held when they were scanned.

    A ``refresh`` makes another one; readers in the middle of a batch keep theirs. Where the cache
    file holds the very table (``digest`` is that file's), the table is mapped from it, and a pickle
    is the file's name: a worker maps it, too. ``refreshes`` counts the scans before this one, which
    was begun at ``looked_at``, in ns.
    """

    root: str
    table: Table
    skipped: tuple[tuple[str, str], ...]
    cache_path: Path
    digest: str | None = None
    sampling: Sampling | None = None
    refreshes: int = 0
    looked_at: int = 0

    @property
    def refreshed_at(self) -> int:
        """The time in ns from which on copies of data count: that of the refresh, 0 without one."""
        return self.looked_at if self.refreshes else 0

    def __reduce__(self) -> tuple[Callable[..., Snapshot], tuple[Any, ...]]:
        if self.digest is not None and holds(self.cache_path, self.digest):
            known = self.root, self.skipped, self.cache_path, self.digest
            more = self.sampling, self.refreshes, self.looked_at
            return _mapped, (*known, self.table.fingerprint(), *more)
        return Snapshot, (
            self.root,
            self.table,
            self.skipped,
            self.cache_path,
            None,
            self.sampling,
            self.refreshes,
            self.looked_at,
        )

    @cached_property
    def look(self) -> object:
        """A key of this snapshot for caches, which does not keep its table alive."""
        return object()

    @cached_property
    def samples(self) -> Samples | None:
        """The samples that a window takes of sequences; None where each item of a file is one."""
        return None if self.sampling is None else self.sampling.of(self.table)

    @cached_property
    def units(self) -> Units:
        """What items are read from."""
        if self.samples is not None:
            return self.samples.sequences.units
        return Units.of_files(self.table)

    @cached_property
    def index(self) -> GlobalIndex:
        """The arithmetic: ids over the items of files, or over the samples of sequences."""
        if self.samples is not None:
            return self.samples.by_sequence
        return GlobalIndex.sharing(self.table.lengths)

    @cached_property
    def chunking(self) -> Chunking:
        """How the samples lie in chunks."""
        return self.table.chunking() if self.samples is None else self.samples.chunking

    @cached_property
    def fingerprint(self) -> str:
        """Content identity of all samples."""
        return self.table.fingerprint() if self.samples is None else self.samples.fingerprint()

    @property
    def paths(self) -> Paths:
        """Absolute paths, made when they are asked for."""
        return Paths(self.root, self.table.names)

    def locate(self, sample_id: int) -> Location:
        """Path and item of a sample; of a windowed one, those of its anchor."""
        if self.samples is None:
            file, item = self.index.locate(sample_id)
            return Location(self.paths[file], item)
        files, rows = self.samples.anchor_rows([validate.sample_id(sample_id, len(self.index))])
        return Location(self.paths[int(files[0])], int(rows[0]))

    def locate_many(self, sample_ids: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Files and items of many samples; of windowed ones, those of their anchors."""
        if self.samples is None:
            return self.index.locate_many(sample_ids)
        return self.samples.anchor_rows(validate.int64s(sample_ids, "sample id"))

    def unit_in_words(self, unit: int) -> str:
        """The path of a unit's file, for messages; behind the unit's name where the file has several."""
        file, number = self.units.place(unit)
        path, episodes = printable(self.paths[file]), self.table.episodes
        if episodes is None or not episodes.is_apart:
            return path
        return f"{printable(episodes.name_in(file, number))} in {path}"

    def entry(self, file: int) -> Entry:
        """What is known of one file."""
        return self.table.entry(file)

    def number_of(self, path: str) -> int:
        """The number of the file at ``path``; ValueError where it is none of these."""
        absolute = path if is_remote(path) else os.path.abspath(path)
        base = os.fsdecode(self.paths.base)
        try:
            return self.table.names.index(
                absolute.removeprefix(base) if absolute.startswith(base) else ""
            )
        except ValueError:
            raise ValueError(
                f"{path} is not one of the {len(self.table)} files of this index, which its paths list"
            ) from None


def _mapped(
    root: str,
    skipped: tuple[tuple[str, str], ...],
    path: Path,
    digest: str,
    fingerprint: str,
    sampling: Sampling | None,
    refreshes: int,
    looked_at: int,
) -> Snapshot:
    try:
        table, digest = map_cache(os.fspath(path), digest, fingerprint)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"the index cache {path} cannot be mapped in this process: {error}; another process has built the index of "
            "these files anew since, so build the GlobalIndexManager again"
        ) from None
    return Snapshot(root, table, skipped, path, digest, sampling, refreshes, looked_at)


def changes_between(before: Snapshot, now: Snapshot) -> Changes:
    """What happened to the files between two looks, and whether every id still means the same sample."""
    changes = compare(*with_common_names(before, now))
    if before.samples is None or now.samples is None:
        return changes
    return replace(changes, keep_ids=_begins(before.samples, now.samples))


def _begins(old: Samples, new: Samples) -> bool:
    """Whether every id of ``old`` means the same sample in ``new``."""
    count = len(old.index)
    return count <= len(new.index) and new.fingerprint(count) == old.fingerprint()


def with_common_names(one: Snapshot, other: Snapshot) -> tuple[Table, Table]:
    """The tables of two looks, with names in both counted from one folder.

    Files that were added elsewhere move the deepest common one.
    """
    if one.root == other.root:
        return one.table, other.table
    cut = common_folder([os.path.join(look.root, "") for look in (one, other)])
    return _renamed(one, cut), _renamed(other, cut)


def _renamed(snapshot: Snapshot, cut: int) -> Table:
    """The table of a snapshot, its names counted from that index of its paths on."""
    return replace(snapshot.table, names=Names.of(path[cut:] for path in snapshot.paths))
