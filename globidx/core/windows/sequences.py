"""Sequences: runs of rows that follow one another, as columns over the rows of a store.

The rows of a store are numbered through, file after file, as ``GlobalIndex`` numbers items. A sequence is a run of
them: a row, a file, an episode inside a file, or a chain of files. So a sequence costs two integers, and what lies
above it (windows, orders, progress) need not know which of these it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate

Numbers = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sequences:
    """Runs of rows of a store, in the sequence in which they are numbered.

    Attributes
    ----------
    starts : int64 array
        First row of each sequence, counted over all files.
    lengths : int64 array
        How many rows each has; zero is allowed.

    Examples
    --------
    >>> episodes = Sequences.of_ends([3, 3, 7])
    >>> episodes.starts.tolist(), episodes.lengths.tolist()
    ([0, 3, 3], [3, 0, 4])
    """

    starts: Numbers
    lengths: Numbers

    @classmethod
    def of_lengths(cls, lengths: Any) -> Sequences:
        """Sequences that follow one another without gaps: files, or trajectories of an array.

        Raises
        ------
        ValueError
            If a length is negative.
        """
        counts = _column(lengths, "length")
        _refuse(counts < 0, counts, "length {} is negative")
        return cls(np.cumsum(counts) - counts, counts)

    @classmethod
    def of_ends(cls, ends: Any, rows: int | None = None) -> Sequences:
        """Sequences from the row behind each of them.

        ``meta/episode_ends`` of a replay buffer holds it so.

        Parameters
        ----------
        ends
            Cumulative row counts, ascending.
        rows
            How many rows there are: the last end may not lie beyond.

        Raises
        ------
        ValueError
            If ends descend, are negative, or lie beyond the rows.

        Examples
        --------
        >>> Sequences.of_ends([3, 2])
        Traceback (most recent call last):
        ValueError: end 1 is 2, but the end before it is 3; the ends of sequences must ascend
        """
        stops = _column(ends, "end")
        lengths = np.diff(stops, prepend=0)
        if len(wrong := np.flatnonzero(lengths < 0)):
            index = int(wrong[0])
            before = stops[index - 1] if index else 0
            raise ValueError(
                f"end {index} is {stops[index]}, but the end before it is {before}; the ends of sequences must ascend"
            )
        if rows is not None and len(stops) and stops[-1] > rows:
            raise ValueError(
                f"the last sequence ends at row {stops[-1]}, but there are {rows} rows"
            )
        return cls(stops - lengths, lengths)

    @classmethod
    def of_runs(cls, starts: Any, lengths: Any, rows: int | None = None) -> Sequences:
        """Sequences from the first row and the length of each.

        They may lie in any sequence, and leave rows out.

        Raises
        ------
        ValueError
            If there are not as many starts as lengths, if one is negative, or if a sequence ends beyond the rows.
        """
        firsts, counts = _column(starts, "start"), _column(lengths, "length")
        if len(firsts) != len(counts):
            raise ValueError(
                f"{len(firsts)} starts and {len(counts)} lengths: there must be one of each a sequence"
            )
        _refuse(firsts < 0, firsts, "start {} is negative")
        _refuse(counts < 0, counts, "length {} is negative")
        if rows is not None:
            beyond = firsts > rows - counts
            _refuse(
                beyond,
                firsts,
                f"the sequence that starts at row {{}} ends beyond the {rows} rows there are",
            )
        return cls(firsts, counts)

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, indices: Numbers) -> Sequences:
        """Those sequences at ``indices``, in that order."""
        return Sequences(self.starts[indices], self.lengths[indices])

    def rows(self, sequences: Numbers, rows: Numbers) -> Numbers:
        """Rows of the store from rows of sequences; the caller has kept them inside."""
        return self.starts[sequences] + rows


def chain_files(lengths: Numbers, chains: Sequence[Hashable]) -> tuple[Numbers, Sequences]:
    """Files that continue one another, one chain for each distinct value of ``chains``.

    Parameters
    ----------
    lengths
        Rows of each file.
    chains
        Which chain each file belongs to.

    Returns
    -------
    order : int64 array
        The sequence of files in which each chain is one run of rows: chains by their first file, and the files of a
        chain as they were given.
    sequences : Sequences
        A sequence for each chain, over files in this order.

    Examples
    --------
    >>> order, sequences = chain_files(np.array([2, 5, 3]), ["north", "south", "north"])
    >>> order.tolist(), sequences.lengths.tolist()
    ([0, 2, 1], [5, 5])
    """
    numbers: dict[Hashable, int] = {}
    owners = np.array([numbers.setdefault(chain, len(numbers)) for chain in chains], np.int64)
    totals = np.zeros(len(numbers), np.int64)
    np.add.at(totals, owners, lengths)
    return np.argsort(owners, kind="stable"), Sequences.of_lengths(totals)


def sides(
    names: Iterable[str | bytes], fraction: float, seed: int = 0, *, depth: int = 0
) -> NDArray[np.bool_]:
    """Which side of a split each sequence is on, by a hash of its name.

    True with probability ``fraction``.

    A sequence stays on its side when others are added, taken away or reordered.

    Parameters
    ----------
    names
        Names of sequences.
    fraction
        Expected share of the first side, in ``[0, 1]``.
    seed
        Another seed is another split.
    depth
        How many splits came before: with the same seed a side of a split is split independently of it.

    Returns
    -------
    bool array, one for each name

    Examples
    --------
    >>> sides(["demo_0", "demo_1"], 0.5).tolist() == sides(["demo_0", "demo_1", "demo_2"], 0.5)[:2].tolist()
    True
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be in [0, 1], got {fraction}")
    key = validate.integer(seed, "seed").to_bytes(8, "little")
    encoded = (
        name if isinstance(name, bytes) else name.encode("utf-8", "surrogateescape")
        for name in names
    )
    salt = depth.to_bytes(8, "little")
    hashes = [hashlib.blake2b(name, digest_size=8, key=key, salt=salt).digest() for name in encoded]
    # 53 bits are what a float holds: 1.0 takes all of them, and 0.0 none
    values = np.frombuffer(b"".join(hashes), "<u8") >> np.uint64(11)
    return values < np.uint64(int(fraction * 2**53))


def _column(values: Any, name: str) -> Numbers:
    array = np.asarray(values)
    if array.ndim != 1 or (array.dtype.kind not in "iu" and len(array)):
        raise ValueError(
            f"{name}s must be a one-dimensional array of integers, got {array.dtype} of shape {array.shape}"
        )
    if len(array) and int(array.max()) > validate.INT64_MAX // 2:
        raise ValueError(f"{name} {int(array.max())} is beyond any file")
    return array.astype(np.int64)


def _refuse(wrong: NDArray[np.bool_], values: Numbers, sentence: str) -> None:
    if wrong.any():
        index = int(np.argmax(wrong))
        raise ValueError(f"{sentence.format(values[index])} (sequence {index})")
