"""The sequence table: the sequences that the files of an index hold.

They are runs of rows, which it numbers.

A *unit* is what rows are read from: a file, or an episode that has arrays of its own. Rows of all
units are numbered through, and sequences are runs of these rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.index.index import GlobalIndex
from globidx.core.index.names import Strings, common_folder
from globidx.core.index.table import Table
from globidx.core.ragged import spread
from globidx.core.windows.sequences import Numbers, Sequences, chain_files


@dataclass(frozen=True, eq=False)
class Units:
    """What rows are read from: a file each, or an episode of a file.

    Attributes
    ----------
    index : GlobalIndex
        Numbers the rows of all units through.
    chunk_lengths : ndarray of int64
        Rows in a chunk, units x arrays; 0 where an array is not chunked.
    files : ndarray of int64, optional
        The file of each unit; None where units are files in their sequence.
    numbers : ndarray of int64, optional
        Which episode of its file each unit is; None where it is all of the file.
    """

    index: GlobalIndex
    chunk_lengths: Numbers
    files: Numbers | None = None
    numbers: Numbers | None = None

    @classmethod
    def of_files(cls, table: Table, order: Numbers | None = None) -> Units:
        """The files of a table as units, in this sequence; that of the table by default."""
        if order is None:
            return cls(GlobalIndex.sharing(table.lengths), table.chunk_lengths)
        return cls(GlobalIndex.sharing(table.lengths[order]), table.chunk_lengths[order], order)

    def place(self, unit: int) -> tuple[int, int]:
        """File of a unit, and which episode of it; 0 where it is all of the file."""
        file = unit if self.files is None else int(self.files[unit])
        return file, 0 if self.numbers is None else int(self.numbers[unit])

    def files_of(self, units: Numbers) -> Numbers:
        """The file of each of these units."""
        return units if self.files is None else self.files[units]


@dataclass(frozen=True, eq=False)
class SequenceTable:
    """The sequences of the files of a table.

    Attributes
    ----------
    table : Table
        The files.
    units : Units
        What their rows are read from.
    sequences : Sequences
        Runs of rows of the units.
    labels : ndarray of int64
        What each sequence is: a file of the table, an episode of it, or a chain.
    chains : tuple of str, optional
        The names of chains, if sequences are chains.
    first_rows : ndarray of int64
        The first row of each file, as the units number them.
    """

    table: Table
    units: Units
    sequences: Sequences
    labels: Numbers
    chains: tuple[str, ...] | None
    first_rows: Numbers

    @classmethod
    def of(
        cls, table: Table, order: Numbers | None = None, chains: Sequence[str] | None = None
    ) -> SequenceTable:
        """The sequences of all files.

        Parameters
        ----------
        table
            The files, with the episodes in them.
        order
            The sequence of the files; that of the table by default.
        chains
            The chain that each file of the table belongs to, if files continue one another.
        """
        files = np.arange(len(table)) if order is None else order
        if chains is not None:
            owners = [chains[file] for file in files.tolist()]
            within, sequences = chain_files(table.lengths[files], owners)
            units = Units.of_files(table, files[within])
            names = tuple(dict.fromkeys(owners))
            labels = np.arange(len(names))
            return cls(table, units, sequences, labels, names, _first_rows(table, files[within]))
        firsts = _first_rows(table, files)
        if table.episodes is None:
            units = Units.of_files(table, files)
            sequences = Sequences.of_lengths(units.index.lengths)
            return cls(table, units, sequences, files, None, firsts)
        episodes = table.episodes
        some = episodes.take(files) if order is not None else episodes
        owners_of = files[some.files]
        numbers = np.arange(len(some)) - some.offsets[some.files]
        labels = episodes.offsets[owners_of] + numbers
        if some.is_apart:
            index = GlobalIndex.sharing(some.lengths)
            units = Units(index, some.chunk_lengths, owners_of, numbers)
            sequences = Sequences.of_lengths(some.lengths)
        else:
            units = Units.of_files(table, files)
            sequences = Sequences(firsts[owners_of] + some.starts, some.lengths)
        return cls(table, units, sequences, labels, None, firsts)

    def __len__(self) -> int:
        return len(self.sequences)

    def take(self, indices: Numbers) -> SequenceTable:
        """Those sequences at ``indices``, in that order; the units stay."""
        return replace(self, sequences=self.sequences.take(indices), labels=self.labels[indices])

    @cached_property
    def files(self) -> Numbers:
        """The file in which each sequence begins, as the table numbers them."""
        if self.chains is None:
            episodes = self.table.episodes
            return self.labels if episodes is None else episodes.files[self.labels]
        offsets = self.units.index.offsets
        # an empty file begins where the next one does
        unit = np.searchsorted(offsets[:-1], self.sequences.starts, side="right") - 1
        return self.units.files_of(np.maximum(unit, 0))

    @property
    def listed(self) -> NDArray[np.bool_]:
        """Which of the sequences the files themselves list."""
        episodes = self.table.episodes
        return np.ones(len(self), bool) if episodes is None else episodes.listed[self.labels]

    def name(self, sequence: int) -> str:
        """The name of a sequence: of its chain, of the episode in its file, or of its file."""
        label = int(self.labels[sequence])
        if self.chains is not None:
            return self.chains[label]
        episodes = self.table.episodes
        return self.table.names[label] if episodes is None else episodes.name(label)

    @property
    def names(self) -> Lazy:
        """All names, each made when it is read."""
        return Lazy(len(self), self.name)

    def spelled(self, count: int | None = None) -> list[bytes]:
        """The full names of the first ``count`` sequences.

        They have that of their file, so that no two are the same.
        """
        labels = self.labels[:count]
        if self.chains is not None:
            return [self.chains[label].encode("utf-8", "surrogateescape") for label in labels]
        files = self.table.names.encoded(0, len(self.table))
        episodes = self.table.episodes
        if episodes is None:
            return [files[label] for label in labels.tolist()]
        own = episodes.spelled(0, len(episodes))
        owners = episodes.files[labels].tolist()
        return [
            files[file] + b"\0" + own[label]
            for file, label in zip(owners, labels.tolist(), strict=True)
        ]

    def stretches(self, sequences: Numbers, rows: Numbers) -> tuple[Numbers, Numbers]:
        """The units that hold the first ``rows``, at least one, of each of these sequences.

        Beside them, which of the sequences each holds rows of, as an index of ``sequences``.
        """
        index, starts = self.units.index, self.sequences.starts[sequences]
        first, _ = index.locate_many(starts)
        last, _ = index.locate_many(starts + rows - 1)
        counts = last - first + 1
        return spread(first, counts), np.repeat(np.arange(len(first)), counts)

    def origins(self, sequences: Numbers, rows: Numbers) -> list[bytes]:
        """Where the first ``rows`` of each of these sequences lie: each stretch by its file, its name in it and where.

        Names of files are counted from the deepest folder that holds these files.
        """
        index, starts = self.units.index, self.sequences.starts[sequences]
        units, owners = self.stretches(sequences, rows)
        # a file without rows adds nothing to a chain
        holds = index.lengths[units] > 0
        units, owners = units[holds], owners[holds]
        files = self.table.names.encoded(0, len(self.table))
        paths = [files[file] for file in self.units.files_of(units).tolist()]
        ends = [os.fsdecode(path) for path in (min(paths), max(paths))] if paths else []
        cut = len(os.fsencode(ends[0][: common_folder(ends)])) if ends else 0
        episodes, labels = self.table.episodes, self.labels[sequences[owners]].tolist()
        own = None if episodes is None else episodes.spelled(0, len(episodes))
        shifts = (index.offsets[units] - starts[owners]).tolist()
        return [
            b"%b\0%b\0%d" % (path[cut:], b"" if own is None else own[label], shift)
            for path, label, shift in zip(paths, labels, shifts, strict=True)
        ]

    def missing_rows(self) -> Numbers:
        """The rows that the files say are missing, as the units number them.

        They are ascending and distinct.
        """
        missing = self.table.missing
        if missing is None:
            return np.empty(0, np.int64)
        rows = np.repeat(self.first_rows, missing.counts) + missing.rows
        # files may follow one another in another order than in the table
        rows.sort()
        return rows


class Lazy(Strings):
    """Strings that a function makes."""

    def __init__(self, count: int, make: Callable[[int], str]) -> None:
        self._count, self._make = count, make

    def __len__(self) -> int:
        return self._count

    def _at(self, row: int) -> str:
        return self._make(row)

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"[{shown}{', ...' if len(self) > 3 else ''}]"


def _first_rows(table: Table, order: Numbers) -> Numbers:
    """The first row of each file of the table, where files follow one another in this ``order``."""
    counts = table.lengths[order]
    firsts = np.empty(len(order), np.int64)
    firsts[order] = np.cumsum(counts) - counts
    return firsts
