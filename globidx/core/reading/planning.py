"""The reading plan of a batch: each item once, in as few runs of rows as there can be."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.ragged import spread

#: Bytes of decoded chunks that are kept in a process by default.
CACHE_BYTES = 64 * 2**20


class Plan(NamedTuple):
    """The distinct items of a batch, sorted by file and item.

    Sample i of the batch is the one at ``places[i]``.
    """

    files: NDArray[np.int64]
    items: NDArray[np.int64]
    places: NDArray[np.intp]


class Run(NamedTuple):
    """Rows ``[start, stop)`` of a file's array, which are those from ``target`` on of the result.

    They lie in the chunk that begins at row ``chunk``; -1 where they are read without regard to
    chunks.
    """

    file: int
    chunk: int
    start: int
    stop: int
    target: int


def plan(files: NDArray[np.int64], items: NDArray[np.int64]) -> Plan:
    """Every (file, item) of the batch once.

    >>> plan(np.array([1, 0, 1, 1]), np.array([5, 2, 6, 5]))
    Plan(files=array([0, 1, 1]), items=array([2, 5, 6]), places=array([1, 0, 2, 1]))
    """
    order = np.lexsort((items, files))
    file, item = files[order], items[order]
    # a sample may come twice, by a padded tail or an order with replacement, and is read once
    new = np.ones(len(order), bool)
    np.logical_or(file[1:] != file[:-1], item[1:] != item[:-1], out=new[1:])
    places = np.empty(len(order), np.intp)
    places[order] = np.cumsum(new) - 1
    return Plan(file[new], item[new], places)


def runs(
    batch: Plan,
    rows: int,
    chunks: NDArray[np.int64],
    targets: NDArray[np.intp] | None = None,
) -> list[Run]:
    """What to read of an array whose items are ``rows`` rows each, sorted as the plan is.

    ``chunks`` is how many rows a chunk holds, for each item of the plan: runs end where a chunk
    does, since chunks are decoded whole and once. 0 says that neighbours are to be read in one
    piece, however many there are. Items lie in the result where ``targets`` says, by default in the
    plan's sequence; a run is of items that are neighbours there, too.

    >>> batch = plan(np.array([0, 0, 0, 2]), np.array([1, 2, 9, 4]))
    >>> for run in runs(batch, 1, np.array([2, 2, 2, 0])): print(*run)
    0 0 1 2 0
    0 2 2 3 1
    0 8 9 10 2
    2 -1 4 5 3
    >>> # items of three rows may lie in two chunks
    >>> for run in runs(batch, 3, np.array([8, 8, 8, 0])): print(*run)
    0 0 3 8 0
    0 8 8 9 5
    0 24 27 30 6
    2 -1 12 15 9
    >>> # in another sequence
    >>> for run in runs(batch, 1, np.array([0, 0, 0, 0]), np.array([2, 3, 0, 1])): print(*run)
    0 -1 1 3 2
    0 -1 9 10 0
    2 -1 4 5 1
    """
    files, items = batch.files, batch.items
    if not len(files):
        return []
    # first neighbours are joined into runs, then runs are cut where chunks end
    begins_run = np.ones(len(files), bool)
    np.logical_or(files[1:] != files[:-1], items[1:] != items[:-1] + 1, out=begins_run[1:])
    if targets is not None:
        begins_run[1:] |= targets[1:] != targets[:-1] + 1
    begins = np.flatnonzero(begins_run)
    counts = np.diff(begins, append=len(files))
    start, length = items[begins] * rows, chunks[begins]
    stop = start + counts * rows
    # A run without chunks is handled as if it lay in one, of a length that reaches its end.
    unit = np.where(length, length, np.maximum(stop, 1))
    first_chunk = start // unit
    num_chunks = np.where(length, (stop - 1) // unit - first_chunk + 1, 1)
    # the run of each piece, and the chunk that the piece lies in
    run = np.repeat(np.arange(len(begins)), num_chunks)
    chunk_start = np.where(length[run], spread(first_chunk, num_chunks) * unit[run], -1)
    is_cut = chunk_start >= 0
    piece_start = np.where(is_cut, np.maximum(start[run], chunk_start), start[run])
    piece_stop = np.where(is_cut, np.minimum(stop[run], chunk_start + unit[run]), stop[run])
    first = begins if targets is None else targets[begins]
    target = first[run] * rows + piece_start - start[run]
    columns = (files[begins][run], chunk_start, piece_start, piece_stop, target)
    # as _make does, and by no function of Python's: there is a run for each item of most batches
    make = partial(tuple.__new__, Run)
    return list(map(make, zip(*(column.tolist() for column in columns), strict=True)))
