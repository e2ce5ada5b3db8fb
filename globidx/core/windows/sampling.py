"""Sampling: which samples are taken of the files of a table, and what their ids mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.index.chunking import Chunking, common_block
from globidx.core.index.index import GlobalIndex
from globidx.core.index.table import Table, whole_items
from globidx.core.windows.anchors import Numbers, Offsets, Window
from globidx.core.windows.sequence_table import Lazy, SequenceTable
from globidx.core.windows.windowed import WindowedIndex


@dataclass(frozen=True, eq=False)
class Sampling:
    """A window over sequences, as values that another process can hold.

    Attributes
    ----------
    window : Window
        Which rows make up a sample.
    order : ndarray of int64, optional
        The sequence of files, if not that of the table.
    chains : sequence of str, optional
        The chain that each file of the table belongs to, if files continue one another.
    kept : ndarray of int64, optional
        The sequences that are used; all by default.
    missing : ndarray of int64, optional
        Rows that are not there besides those that files tell of, counted over all files.
    """

    window: Window
    order: Numbers | None = None
    chains: Sequence[str] | None = None
    kept: Numbers | None = None
    missing: Numbers | None = None

    def found(self, table: Table) -> SequenceTable:
        """All sequences of the files, used or not."""
        return SequenceTable.of(table, self.order, self.chains)

    def of(self, table: Table) -> Samples:
        """The samples of the files of ``table``."""
        found = self.found(table)
        missing = found.missing_rows()
        if self.missing is not None:
            missing = np.union1d(missing, self.missing)
        sequences = found if self.kept is None else found.take(self.kept)
        index = WindowedIndex.of(
            found.units.index,
            sequences.sequences,
            self.window,
            missing=missing if len(missing) else None,
        )
        return Samples(sequences, index, len(found), len(missing))


class Where(NamedTuple):
    """Where the rows of a sample are.

    Parameters
    ----------
    sequence : int
        The number of its sequence.
    anchor : int
        The row of the sequence that the sample is named after; negative where padding allows it.
    path : str
        The file of the anchor's row, or of the row next to it.
    rows : numpy.ndarray or dict of them
        The rows that the sample takes, by field where the window has offsets by field: int64,
        counted in the arrays of ``path``. Rows beyond their ends are those of the chain's
        neighbouring files.

    Examples
    --------
    >>> Where(0, 3, "run/a.zarr", np.array([2, 3])).anchor
    3
    """

    sequence: int
    anchor: int
    path: str
    rows: NDArray[np.int64] | dict[str, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class SequenceList:
    """The sequences of an index, as columns; names and paths are made when they are read.

    Its length is their number.

    Parameters
    ----------
    names : sequence of str
        The name of each: of its chain, of its group or number in the file, or of its file.
    lengths : numpy.ndarray
        How many rows each has, int64.
    paths : sequence of str
        The file in which each begins.

    Examples
    --------
    >>> found = SequenceList(["demo_0", "demo_1"], np.array([7, 4]), ["a.hdf5", "a.hdf5"])
    >>> len(found), found.names[1], found.lengths
    (2, 'demo_1', array([7, 4]))
    """

    names: Sequence[str]
    lengths: NDArray[np.int64]
    paths: Sequence[str]

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True, eq=False)
class Samples:
    """The samples of the files of a table: sequences with names, and an index over their anchors.

    ``num_found`` is how many sequences there are with those that are not used, ``num_missing`` how
    many rows are not there.
    """

    sequences: SequenceTable
    index: WindowedIndex
    num_found: int
    num_missing: int

    @property
    def window(self) -> Window:
        """Which rows make up a sample."""
        return self.index.anchors.window

    def refuse_none(self) -> None:
        """ValueError where there are rows, and no sample of them: it would be trained on nothing, and say nothing."""
        lengths = self.index.sequences.lengths
        if len(self.index) or not len(self.index.files) or not self.num_found:
            return
        if not len(lengths):
            raise ValueError(
                f"only= leaves none of {self.num_found} sequences; name some, or leave it out"
            )
        window, longest = self.window, int(lengths.max())
        lacks = f" and {self.num_missing} rows are missing" if self.num_missing else ""
        raise ValueError(
            f"there is no sample: a window takes {window.span} rows, {window.lo} to {window.hi} from its anchor, and "
            f"the longest of {len(lengths)} sequences has {longest}{lacks}; shorten the window, or pad it"
        )

    @cached_property
    def by_sequence(self) -> GlobalIndex:
        """Ids as sequences and which of their samples."""
        return GlobalIndex.sharing(self.index.anchors.counts)

    @property
    def used_units(self) -> NDArray[np.bool_]:
        """Which of the units hold rows of the sequences that are used."""
        lengths = self.index.sequences.lengths
        present = np.flatnonzero(lengths)
        used = np.zeros(self.index.files.num_files, bool)
        used[self.sequences.stretches(present, lengths[present])[0]] = True
        return used

    def listed(self, paths: Sequence[str]) -> SequenceList:
        """The sequences as columns, ``paths`` those of the files."""
        files = self.sequences.files
        of_sequence = Lazy(len(files), lambda sequence: paths[int(files[sequence])])
        return SequenceList(self.sequences.names, self.index.sequences.lengths, of_sequence)

    def anchor_rows(self, sample_ids: Any) -> tuple[Numbers, Numbers]:
        """File and row of each sample's anchor, or of the row that is next to it."""
        if self.window.is_whole:
            numbers, _ = self.index.anchors.locate_many(sample_ids)
            units, rows = self.index.files.locate_many(self.index.sequences.starts[numbers])
        else:
            found = self.index.rows(sample_ids, 0)
            units, rows = found.files[:, 0], found.rows[:, 0]
        return self.sequences.units.files_of(units), rows

    def where(self, sample_id: int, paths: Sequence[str]) -> Where:
        """Where a sample's rows are, ``paths`` those of the files."""
        sequence, anchor = self.index.anchors.locate(sample_id)
        files, rows = self.anchor_rows([sample_id])
        length = self.index.sequences.lengths[[sequence]]
        # one step leads from a row of the sequence to that of the file
        shift = int(rows[0]) - int(np.clip(anchor, 0, length[0] - 1))
        window = self.window
        taken: Any
        if window.is_whole:
            taken = shift + np.arange(length[0])
        elif isinstance(window.offsets, Mapping):
            taken = {
                name: self._taken(window.of(name), anchor, length, shift) for name in window.offsets
            }
        else:
            taken = self._taken(window.of(""), anchor, length, shift)
        return Where(sequence, anchor, paths[int(files[0])], taken)

    def _taken(self, offsets: Offsets, anchor: int, length: Numbers, shift: int) -> Numbers:
        rows, _ = self.window.rows(offsets, np.array([anchor]), length)
        taken: Numbers = shift + rows[0]
        return taken

    @cached_property
    def chunking(self) -> Chunking:
        """How samples lie in chunks."""
        return self.index.chunking(self._chunk_lengths())

    def _chunk_lengths(self) -> Numbers:
        """Rows in a chunk of each sequence: of its arrays, one length that suits all of them."""
        if not len(self.sequences):
            return np.empty(0, np.int64)
        arrays = self.sequences.table.arrays
        sizes = [info.row_bytes * _count(self.window, info.name, info.rows) for info in arrays]
        lengths = self.sequences.units.chunk_lengths[self.index.first_files]
        lengths = whole_items(lengths, arrays)
        # once for each combination: sequences of an index are mostly chunked alike
        rows, which = np.unique(lengths, axis=0, return_inverse=True)
        blocks = np.array([common_block(row, sizes) for row in rows.tolist()], np.int64)
        return blocks[which.ravel()]

    def fingerprint(self, num_samples: int | None = None) -> str:
        """A digest of what the first samples mean, by default all."""
        count = len(self.index) if num_samples is None else num_samples
        validate.integer(count, "num_samples", high=len(self.index))
        schema = self.sequences.table.described()
        return self.index.fingerprint(schema, self.sequences.origins, count)


def _count(window: Window, name: str, rows: int) -> int:
    """How many rows of a field a sample takes, roughly: what a decoded byte of it is worth."""
    if window.is_whole:
        return rows
    offsets = window.of(name)
    return rows if isinstance(offsets, int) else rows * len(offsets)
