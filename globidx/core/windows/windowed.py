"""The index of windowed samples: which rows of which files a sample id means, for each field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.chunking import Chunking
from globidx.core.index.index import GlobalIndex
from globidx.core.ragged import spread
from globidx.core.windows.anchors import Anchors, Numbers, Offsets, Window
from globidx.core.windows.sequences import Sequences


class WindowRows(NamedTuple):
    """Rows of several samples for one field, each array samples x offsets.

    ``files`` and ``rows`` (int64) say where each row lies. ``inside`` (bool) is False where padding stands for it; what
    ``files`` and ``rows`` say there is the nearest row of the sequence.
    """

    files: Numbers
    rows: Numbers
    inside: NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class WindowedIndex:
    """Windows over sequences of rows that lie in files: a frozen value, no files behind it.

    ``files`` numbers the rows of all files through, ``sequences`` are runs of these rows, and ``anchors`` number the
    samples. A sequence may reach over several files.

    Examples
    --------
    >>> files = GlobalIndex([3, 4])
    >>> chain = WindowedIndex.of(files, Sequences.of_lengths([7]), Window((0, 1)))
    >>> len(chain)
    6
    >>> chain.rows([2], (0, 1)).files.tolist(), chain.rows([2], (0, 1)).rows.tolist()
    ([[0, 1]], [[2, 0]])
    """

    files: GlobalIndex
    sequences: Sequences
    anchors: Anchors

    @classmethod
    def of(
        cls,
        files: GlobalIndex,
        sequences: Sequences,
        window: Window,
        *,
        missing: Numbers | None = None,
    ) -> WindowedIndex:
        """Samples of ``window`` over ``sequences``.

        Parameters
        ----------
        files
            Rows of each file.
        sequences
            Runs of rows over all files.
        window
            Which rows make up a sample.
        missing
            Rows over all files that are not there, ascending and distinct.

        Raises
        ------
        ValueError
            If a sequence ends beyond the rows of the files.
        """
        stops = sequences.starts + sequences.lengths
        if len(stops) and int(stops.max()) > len(files):
            index = int(np.argmax(stops))
            raise ValueError(
                f"sequence {index} ends at row {stops[index]}, but the files have {len(files)} rows"
            )
        gaps = None if missing is None else _inside(missing, sequences)
        return cls(files, sequences, Anchors(sequences.lengths, window, missing=gaps))

    def __len__(self) -> int:
        return len(self.anchors)

    def rows(self, sample_ids: Any, offsets: Offsets) -> WindowRows:
        """Where the rows lie that ``offsets`` take of samples.

        Raises
        ------
        IndexError
            If a sample id is outside ``[0, len)``.
        """
        numbers, anchors = self.anchors.locate_many(sample_ids)
        lengths = self.sequences.lengths[numbers]
        rows, inside = self.anchors.window.rows(offsets, anchors, lengths)
        files, items = self.files.locate_many(
            (self.sequences.starts[numbers][:, None] + rows).ravel()
        )
        return WindowRows(files.reshape(rows.shape), items.reshape(rows.shape), inside)

    def whole(self, sample_ids: Any) -> tuple[Numbers, Numbers, Numbers]:
        """Where all rows of whole sequences lie, and how many each sample has.

        Returns files, rows and counts.
        """
        numbers, _ = self.anchors.locate_many(sample_ids)
        counts = self.sequences.lengths[numbers]
        files, rows = self.files.locate_many(spread(self.sequences.starts[numbers], counts))
        return files, rows, counts

    def first_units(self, sample_ids: Any) -> Numbers:
        """Where the first rows of whole sequences lie."""
        numbers, _ = self.anchors.locate_many(sample_ids)
        return self.files.locate_many(self.sequences.starts[numbers])[0]

    def chunking(self, chunk_lengths: Numbers) -> Chunking:
        """How samples lie in chunks, for ``ChunkShuffle``: blocks of neighbouring anchors.

        A block of anchors over whole chunks of ``c`` rows, with windows over ``s`` rows, touches its own chunks and up
        to ``ceil((s - 2) / c) + 1`` more, wherever it begins. The shortest block is taken for which these are at most
        0.3 times its own: so an epoch decodes a chunk at most 1.3 times, where windows in a random sequence decode it
        about ``s`` times. Windows of one row that begin where chunks do need no more than the chunk itself. Sequences
        that follow one another in a file are cut as one, since a chunk may hold rows of several.

        Parameters
        ----------
        chunk_lengths
            Rows in a chunk for each sequence, int64; 0 where its rows are not chunked.

        Examples
        --------
        >>> index = WindowedIndex.of(GlobalIndex([1000]), Sequences.of_lengths([1000]), Window(range(16)))
        >>> index.chunking(np.array([16])).chunks
        array([112])
        """
        window, counts = self.anchors.window, self.anchors.counts
        if window.is_whole or not len(counts):
            return Chunking.of(counts, np.zeros((len(counts), 1), np.int64))
        files, rows = self._begin
        firsts = np.flatnonzero(np.diff(files, prepend=-1))
        lengths = chunk_lengths[firsts]
        size = np.maximum(lengths, 1)
        several = np.diff(firsts, append=len(counts)) > 1
        # where one sequence begins with its chunks and ends with its file, blocks do, too
        ends = rows[firsts] + self.sequences.lengths[firsts]
        even = several | (rows[firsts] % size != 0) | (ends > self.files.lengths[files[firsts]])
        more = -(-(window.span - 2) // size) + 1
        block = np.where((window.span == 1) & ~even, lengths, -(-10 * more // 3) * lengths)
        return Chunking.of(
            np.add.reduceat(counts, firsts),
            np.maximum(block // window.stride, lengths > 0)[:, None],
            even=even,
        )

    @property
    def _begin(self) -> tuple[Numbers, Numbers]:
        """The file and row in which each sequence begins; an empty one may begin behind all."""
        starts = np.minimum(self.sequences.starts, max(0, len(self.files) - 1))
        if not len(self.files):
            return np.zeros_like(starts), starts
        return self.files.locate_many(starts)

    @property
    def first_files(self) -> Numbers:
        """The file in which each sequence begins."""
        return self._begin[0]

    def reach(self, num_samples: int) -> tuple[Numbers, Numbers, Numbers]:
        """The sequences that the first samples are of, and how much of each must stay.

        That is how many samples are of it, and how many of its rows must stay. Rows beyond those
        may be added and no window changes, but in its padding.

        Examples
        --------
        >>> index = WindowedIndex.of(GlobalIndex([9]), Sequences.of_ends([4, 5, 9]), Window((0, 1)))
        >>> [column.tolist() for column in index.reach(4)]
        [[0, 2], [3, 1], [4, 2]]
        """
        ends = np.cumsum(self.anchors.counts)
        used = int(np.searchsorted(ends, num_samples, side="left")) + 1 if num_samples else 0
        counts = np.diff(np.minimum(ends[:used], num_samples), prepend=0)
        # a sequence without samples changes nothing
        present = np.flatnonzero(counts)
        counts = counts[present]
        _, last = self.anchors.locate_many(np.cumsum(counts) - 1)
        window = self.anchors.window
        if not window.is_whole:
            last = last + window.hi - (window.after or 0)
        return present, counts, np.maximum(last, 0) + 1

    def fingerprint(
        self, schema: object, origins: Callable[[Numbers, Numbers], list[bytes]], num_samples: int
    ) -> str:
        """A digest of what the first samples mean.

        It does not change when others are added behind them.

        Parameters
        ----------
        schema
            What fields hold, as JSON values.
        origins
            Tells, of sequences and how many of their rows, where these lie.
        num_samples
            How many samples.
        """
        present, counts, rows = self.reach(num_samples)
        spelled = origins(present, rows)
        gaps = self.anchors.gaps_before(num_samples)
        digest = hashlib.blake2b(b"globidx.windows.1", digest_size=16)
        for part in (
            json.dumps([schema, self.anchors.window.describe()]).encode(),
            counts.astype("<i8").tobytes(),
            np.array([len(name) for name in spelled], "<i8").tobytes(),
            b"".join(spelled),
            gaps.starts.astype("<i8").tobytes(),
            gaps.ends.astype("<i8").tobytes(),
        ):
            # the size goes first, so that no two lists of parts are the same bytes
            digest.update(b"%d:" % len(part))
            digest.update(part)
        return digest.hexdigest()

    def take(self, indices: Numbers, *, missing: Numbers | None = None) -> WindowedIndex:
        """The index of the sequences at ``indices``, in that order: one side of a split, say."""
        return self.of(
            self.files, self.sequences.take(indices), self.anchors.window, missing=missing
        )


def _inside(missing: Numbers, sequences: Sequences) -> tuple[Numbers, Numbers]:
    """Which sequences hold each of the ``missing`` rows, and at which of their rows.

    Sequences may overlap.
    """
    first = np.searchsorted(missing, sequences.starts)
    counts = np.searchsorted(missing, sequences.starts + sequences.lengths) - first
    owners = np.repeat(np.arange(len(sequences)), counts)
    return owners, missing[spread(first, counts)] - sequences.starts[owners]
