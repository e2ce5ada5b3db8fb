"""The index of windowed samples: which rows of which files a sample id means, for each field."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.chunking import Chunking
from globidx.core.index.index import GlobalIndex
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

    def chunking(self, chunk_lengths: Numbers) -> Chunking:
        """How samples lie in chunks, for ``ChunkShuffle``: each sequence is cut into blocks of neighbouring anchors.

        A block of anchors over whole chunks of ``c`` rows, with windows over ``s`` rows, touches its own chunks and up
        to ``ceil((s - 2) / c) + 1`` more, wherever it begins. The shortest block is taken for which these are at most
        0.3 times its own: so an epoch decodes a chunk at most 1.3 times, where windows in a random sequence decode it
        about ``s`` times.

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
        lengths = np.maximum(chunk_lengths, 1)
        more = -(-(window.span - 2) // lengths) + 1
        rows = -(-10 * more // 3) * chunk_lengths
        return Chunking.of(counts, np.maximum(rows // window.stride, chunk_lengths > 0)[:, None])

    def take(self, indices: Numbers, *, missing: Numbers | None = None) -> WindowedIndex:
        """The index of the sequences at ``indices``, in that order: one side of a split, say."""
        return self.of(
            self.files, self.sequences.take(indices), self.anchors.window, missing=missing
        )


def _inside(missing: Numbers, sequences: Sequences) -> tuple[Numbers, Numbers]:
    """Which sequences hold each of the ``missing`` rows, and at which of their rows; sequences may overlap."""
    first = np.searchsorted(missing, sequences.starts)
    counts = np.searchsorted(missing, sequences.starts + sequences.lengths) - first
    owners = np.repeat(np.arange(len(sequences)), counts)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return owners, missing[first[owners] + within] - sequences.starts[owners]
