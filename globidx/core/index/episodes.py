"""Episodes: sequences of rows that lie inside files, as columns.

The rows of files that are missing are columns as well.

A file may hold many sequences: one for each group that a key matches, one for each place along the
first axis of its arrays, or runs of rows that an array of the file tells. A few integers describe
each, so that a hundred thousand groups of a file are a few arrays here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.index.names import Names
from globidx.core.ragged import spread

Numbers = NDArray[np.int64]
#: The columns of ``Episodes`` with one row an episode.
COLUMNS = ("starts", "lengths", "listed", "chunk_lengths")


@dataclass(frozen=True, eq=False)
class Episodes:
    """The sequences inside files, file after file.

    Rows of a file are numbered through. Where episodes have arrays of their own (``is_apart``),
    those of one come after those of another, and ``chunk_lengths`` (episodes x arrays) says how each
    is chunked; else ``chunk_lengths`` is empty, and episodes are runs of rows of the file's arrays.

    Attributes
    ----------
    counts : ndarray of int64
        How many episodes each file has.
    starts, lengths : ndarray of int64
        First row in its file, and rows, of each episode.
    listed : ndarray of bool
        Whether the array that ``only=`` names lists it.
    chunk_lengths : ndarray of int64
        Rows in a chunk, episodes x arrays, or (0, arrays).
    names : Names
        The name of each in its file; none where the number in the file is its name.
    """

    counts: Numbers
    starts: Numbers
    lengths: Numbers
    listed: NDArray[np.bool_]
    chunk_lengths: Numbers
    names: Names

    @classmethod
    def of(
        cls,
        starts: Any,
        lengths: Any,
        *,
        listed: NDArray[np.bool_] | None = None,
        chunk_lengths: Any = None,
        names: Sequence[str] = (),
        arrays: int = 1,
    ) -> Episodes:
        """The episodes of one file with so many ``arrays``."""
        first, rows = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        apart = np.empty((0, arrays)) if chunk_lengths is None else chunk_lengths
        return cls(
            counts=np.array([len(rows)], np.int64),
            starts=first,
            lengths=rows,
            listed=np.ones(len(rows), bool) if listed is None else listed,
            chunk_lengths=np.asarray(apart, np.int64).reshape(-1, arrays),
            names=Names.of(names),
        )

    @classmethod
    def joined(cls, parts: Sequence[Episodes]) -> Episodes:
        """The episodes of files, one after the other.

        >>> one = Episodes.of([0, 3], [3, 2])
        >>> Episodes.joined([one, one]).counts.tolist()
        [2, 2]
        """
        if len(parts) == 1:
            return parts[0]
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("counts", *COLUMNS)
        }
        return cls(names=Names.joined([part.names for part in parts]), **columns)

    def take(self, files: Numbers) -> Episodes:
        """The episodes of these files, in that sequence."""
        # the episodes of a file are neighbours in each column
        rows = spread(self.offsets[files], self.counts[files])
        columns = {
            # chunk lengths are there only where episodes have arrays of their own
            name: column[rows] if len(column := getattr(self, name)) else column
            for name in COLUMNS
        }
        names = self.names.take(rows) if len(self.names) else self.names
        return replace(self, counts=self.counts[files], names=names, **columns)

    def of_file(self, file: int) -> Episodes:
        """Those of one file, by views."""
        start, stop = (int(bound) for bound in self.offsets[file : file + 2])
        columns = {name: getattr(self, name)[start:stop] for name in COLUMNS}
        names = self.names.part(start, stop) if len(self.names) else self.names
        return replace(self, counts=self.counts[file : file + 1], names=names, **columns)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def is_apart(self) -> bool:
        """Whether each has arrays of its own."""
        return bool(len(self.chunk_lengths))

    @cached_property
    def offsets(self) -> Numbers:
        """The first episode of each file, and how many there are in all."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.counts)])

    @cached_property
    def files(self) -> Numbers:
        """The file of each episode."""
        return np.repeat(np.arange(len(self.counts)), self.counts)

    def number(self, episode: int) -> int:
        """Which one of its file an episode is."""
        return int(episode - self.offsets[self.files[episode]])

    def name(self, episode: int) -> str:
        """The name of an episode in its file."""
        return self.names[episode] if len(self.names) else str(self.number(episode))

    def name_in(self, file: int, number: int) -> str:
        """The name of the ``number``-th episode of a file."""
        return self.name(int(self.offsets[file]) + number)

    def spelled(self, start: int, stop: int) -> list[bytes]:
        """The names of the episodes ``[start, stop)`` as bytes."""
        if len(self.names):
            return self.names.encoded(start, stop)
        # the number in the file is the name, and is not stored
        numbers = np.arange(start, stop) - self.offsets[self.files[start:stop]]
        return [b"%d" % number for number in numbers.tolist()]


@dataclass(frozen=True, eq=False)
class Missing:
    """Rows of files that are not there: how many each file lacks, and which.

    Those are ascending and distinct.
    """

    counts: Numbers
    rows: Numbers

    @classmethod
    def of(cls, rows: Any) -> Missing:
        """Those of one file."""
        distinct = np.unique(np.asarray(rows, np.int64))
        return cls(np.array([len(distinct)], np.int64), distinct)

    @classmethod
    def joined(cls, parts: Sequence[Missing]) -> Missing:
        """Those of files, one after the other."""
        return cls(
            np.concatenate([part.counts for part in parts]),
            np.concatenate([part.rows for part in parts]),
        )

    def take(self, files: Numbers) -> Missing:
        """Those of these files, in that sequence.

        >>> both = Missing.joined([Missing.of([4, 1]), Missing.of([7])])
        >>> both.take(np.array([1, 0])).rows
        array([7, 1, 4])
        """
        starts = np.cumsum(self.counts) - self.counts
        return Missing(self.counts[files], self.rows[spread(starts[files], self.counts[files])])
