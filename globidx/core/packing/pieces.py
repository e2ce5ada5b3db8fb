"""Pieces of documents: what goes into packs, and what is cut or left out before."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.ragged import spread

Numbers = NDArray[np.integer]
TooLong = Literal["error", "split", "drop"]
TOO_LONG: tuple[TooLong, ...] = ("error", "split", "drop")


class Pieces(NamedTuple):
    """Tokens ``[starts[i], stops[i])`` of ``documents[i]``."""

    documents: Numbers
    starts: Numbers
    stops: Numbers

    @property
    def lengths(self) -> Numbers:
        """How many tokens each has."""
        return self.stops - self.starts

    def take(self, rows: Numbers | slice) -> Pieces:
        """Some of them, in the sequence of ``rows``."""
        return Pieces(*(column[rows] for column in self))


def within(
    lengths: Numbers, documents: Numbers, budget: int, too_long: TooLong
) -> tuple[Pieces, Numbers]:
    """Documents as pieces of 1 to ``budget`` tokens, and the documents that are left out as too long.

    Documents without tokens make no piece.

    >>> within(np.array([3, 9, 0]), np.array([2, 1, 0]), 4, "split")[0].stops
    array([4, 8, 9, 3])
    """
    sizes = lengths[documents]
    is_long = sizes > budget
    out = documents[:0]
    if is_long.any():
        if too_long == "error":
            raise _too_long(lengths, budget)
        if too_long == "split":
            return _split(sizes, documents, budget), out
        out = documents[is_long]
    kept = (sizes > 0) & ~is_long
    if not kept.all():
        documents, sizes = documents[kept], sizes[kept]
    return Pieces(documents, np.zeros_like(sizes), sizes), out


def concatenated(lengths: Numbers, documents: Numbers, budget: int) -> tuple[Pieces, Numbers]:
    """All tokens one behind the other, cut after each ``budget`` of them; and the bin of each piece.

    >>> pieces, bins = concatenated(np.array([3, 4]), np.array([0, 1]), 5)
    >>> pieces.starts, pieces.stops, bins
    (array([0, 0, 2]), array([3, 2, 4]), array([0, 0, 1]))
    """
    sizes = lengths[documents].astype(np.int64)
    ends = np.cumsum(sizes)
    total = int(ends[-1]) if len(ends) else 0
    # where a document or a pack begins; of empty documents, others begin in the same place
    both = np.concatenate([(ends - sizes)[sizes > 0], np.arange(0, total, budget)])
    # two sorted runs, which a stable sort merges
    both.sort(kind="stable")
    begins = both[np.diff(both, prepend=-1) > 0]
    rows = np.searchsorted(ends, begins, side="right")
    starts = begins - (ends - sizes)[rows]
    stops = starts + np.diff(begins, append=total)
    return Pieces(documents[rows], starts, stops), begins // budget


def _split(sizes: Numbers, documents: Numbers, budget: int) -> Pieces:
    counts = (-(-sizes // budget)).astype(np.int64)
    of = np.repeat(np.arange(len(documents)), counts)
    starts = spread(np.zeros(len(counts), np.int64), counts) * budget
    return Pieces(documents[of], starts, np.minimum(starts + budget, sizes[of]))


def _too_long(lengths: Numbers, budget: int) -> ValueError:
    long = np.flatnonzero(lengths > budget)
    return ValueError(
        f"document {long[0]} has {lengths[long[0]]} tokens, more than the budget of {budget}, as have "
        f"{len(long)} of {len(lengths)} documents; pass too_long='split' to cut such documents into pieces, "
        "too_long='drop' to leave them out, or a larger budget"
    )
