"""Rows of a sparse matrix are those of the dense one that was cut into three arrays, or an error says what is wrong."""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.sparse import ColumnSource, Kept, Part, SparseSource
from globidx.errors import ReadError


class Stored:
    """A stored array, which counts what is read of it."""

    def __init__(self, values):
        self.values, self.read_of = values, []

    def read(self, start, stop, out):
        self.read_of.append((start, stop))
        assert 0 <= start <= stop <= len(self.values), "read outside of the array"
        out[...] = self.values[start:stop]
        return out.nbytes


def part(values, dtype, chunk=0):
    stored = np.array(values, dtype)
    return Part(Stored(stored), stored.dtype, len(stored), chunk)


def source_of(made, ends, minor, values, shape, *, chunk=0, kept=None, wide=False):
    parts = [
        part(ends, "i8" if wide else "i4"),
        part(minor, "i8" if wide else "i4", chunk),
        part(values, "f4", chunk),
    ]
    return made("X", parts, shape, kept or Kept(BlockCache(2**20)), "key")


@st.composite
def matrices(draw):
    """Shape, entries by row in any sequence of columns, several of one place too, and how they are stored."""
    rows, width = draw(st.integers(1, 6)), draw(st.integers(0, 5))
    pairs = st.tuples(st.integers(0, max(0, width - 1)), st.sampled_from([1.5, -0.0, -3.0, 1e8]))
    lists = st.lists(pairs, max_size=6 if width else 0)
    return (rows, width), [draw(lists) for _ in range(rows)], draw(st.integers(0, 5))


def dense_of(shape, matrix):
    dense = np.zeros(shape, "f4")
    for row, pairs in enumerate(matrix):
        for column, value in pairs:
            dense[row, column] += np.float32(value)
    return dense


def stored_by(made, shape, matrix, chunk, **options):
    """The source of a matrix, cut by row or by column."""
    if made is SparseSource:
        lists = matrix
    else:
        every = [(row, *pair) for row, pairs in enumerate(matrix) for pair in pairs]
        lists = [
            [(row, value) for row, at, value in every if at == column] for column in range(shape[1])
        ]
    ends = [sum(map(len, lists[:number])) for number in range(len(lists) + 1)]
    flat = [pair for pairs in lists for pair in pairs]
    minor, values = [one for one, _ in flat], [value for _, value in flat]
    return source_of(made, ends, minor, values, shape, chunk=chunk, **options)


@pytest.mark.parametrize("made", [SparseSource, ColumnSource])
@given(matrices(), st.data(), st.sampled_from([0, 2**20]), st.booleans())
def test_rows_are_those_of_the_dense_matrix(made, matrix, data, cache, wide):
    """To the bit, by row and by column, for any spans of rows, chunks, widths of indices, and cache."""
    shape, lists, chunk = matrix
    kept = Kept(BlockCache(cache))
    source = stored_by(made, shape, lists, chunk, kept=kept, wide=wide)
    source.piece = 3
    expected = dense_of(shape, lists)
    for _ in range(2):
        rows = sorted(data.draw(st.sets(st.integers(0, shape[0] - 1), min_size=1)))
        spans = [(row, row + 1, place + 1) for place, row in enumerate(rows)]
        out = np.full((len(rows) + 1, shape[1]), 99, "f4")
        source.pick(spans, out)
        assert out[1:].tobytes() == expected[rows].tobytes()
        assert (out[0] == 99).all()
        given_rows = np.empty(len(rows) + 1, object)
        source.pick(spans, given_rows)
        assert given_rows[0] is None
        for row, values in zip(given_rows[1:], expected[rows], strict=True):
            assert row.columns.dtype == np.int64 and (np.diff(row.columns) > 0).all()
            alone = np.zeros(shape[1], "f4")
            alone[row.columns] = row.values
            assert np.array_equal(alone, values)
    start = data.draw(st.integers(0, shape[0] - 1))
    stop = data.draw(st.integers(start + 1, shape[0]))
    out = np.full((stop - start, shape[1]), 99, "f4")
    source.read(start, stop, out)
    assert out.tobytes() == expected[start:stop].tobytes()


def test_no_chunk_is_read_twice_for_a_batch():
    """Rows of a batch that share chunks, and those that lie in several."""
    lists = [[(column, 1.0) for column in range(3)] for _ in range(8)]
    source = stored_by(SparseSource, (8, 3), lists, 7)
    spans = [(row, row + 1, place) for place, row in enumerate([0, 1, 2, 6])]
    assert source.pick(spans, np.empty((4, 3), "f4")) > 0
    assert source._data.source.read_of == [(0, 7), (7, 14), (14, 21)]
    assert source._indices.source.read_of == source._data.source.read_of


def test_rows_ends_are_read_once_where_there_is_room():
    """And only those of the rows where there is none."""
    lists = [[(0, 1.0)] for _ in range(50)]
    for capacity, reads in ((2**20, [(0, 51)]), (0, [(3, 5), (3, 5)])):
        source = stored_by(SparseSource, (50, 1), lists, 0, kept=Kept(BlockCache(capacity)))
        for _ in range(2):
            source.read(3, 4, np.empty((1, 1), "f4"))
        assert source._indptr.source.read_of == reads


def test_a_matrix_by_column_is_sorted_once_and_in_pieces():
    """However many threads ask for it, and though it is larger than the cache."""
    lists = [[(column, float(row)) for column in range(3)] for row in range(5)]
    source = stored_by(ColumnSource, (5, 3), lists, 0, kept=Kept(BlockCache(0)))
    source.piece = 4
    found = np.zeros((8, 3), "f4")
    threads = [
        threading.Thread(target=source.read, args=(4, 5, found[number : number + 1]))
        for number in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found == 4).all()
    assert source._data.source.read_of == [(0, 4), (4, 8), (8, 12), (12, 15)]
    assert "sorted by row once in every process" in source.how and "MiB" in source.how


def test_sorting_again_what_could_not_be_kept_is_warned_of_once(caplog):
    """Two matrices that do not fit push one another out; the warning says what to do."""
    kept = Kept(BlockCache(0))
    lists = [[(0, 1.0)] for _ in range(3)]
    sources = [stored_by(ColumnSource, (3, 1), lists, 0, kept=kept) for _ in range(2)]
    sources[1]._key = "another"
    with caplog.at_level(logging.WARNING, "globidx"):
        for _ in range(3):
            for source in sources:
                source.read(0, 1, np.empty((1, 1), "f4"))
    assert caplog.text.count("raise cache_bytes, or write the files by row") == 1
    assert len(sources[0]._data.source.read_of) == 3


def test_what_is_given_is_no_view_of_what_is_kept():
    """Samples may be written to."""
    source = stored_by(ColumnSource, (2, 2), [[(0, 1.0)], [(1, 2.0)]], 0)
    for _ in range(2):
        rows = np.empty(1, object)
        source.pick([(0, 1, 0)], rows)
        assert rows[0].values.tolist() == [1.0] and rows[0].columns.tolist() == [0]
        rows[0].values[0] = rows[0].columns[0] = 77


WRONG = [
    (([0, 2, 1], [0, 1], [1, 1]), r"indptr of 'X' does not ascend in rows \[0, 2\)"),
    (([-1, 0, 1], [0, 1], [1, 1]), "does not ascend"),
    (([0, 1, 3], [0, 1], [1, 1]), "ends at 3, behind the end of indices or data: 2"),
    (([0, 1, 2], [0, 1], [1]), "ends at 2, behind the end of indices or data: 1"),
    (([0, 1, 2], [0, 3], [1, 1]), r"indices of 'X' lie outside \[0, 3\) in rows \[0, 2\)"),
    (([0, 1, 2], [-1, 2], [1, 1]), r"lie outside \[0, 3\)"),
]
WRONG_BY_COLUMN = [
    (([0, 2, 1, 2], [0, 1], [1, 1]), "indptr of 'X' does not ascend from 0 over 3 columns"),
    (([1, 1, 1, 2], [0, 1], [1, 1]), "does not ascend from 0"),
    (([0, 1, 2], [0, 1], [1, 1]), "does not ascend from 0 over 3 columns"),
    (([0, 1, 1, 3], [0, 1], [1, 1]), "ends at 3, where there are 2 indices and 2 data"),
    (([0, 1, 1, 2], [0, 1], [1]), "ends at 2, where there are 2 indices and 1 data"),
    (([0, 1, 1, 2], [0, 2], [1, 1]), r"indices of 'X' lie outside \[0, 2\)"),
    (([0, 1, 1, 2], [-1, 1], [1, 1]), r"lie outside \[0, 2\)"),
]


@pytest.mark.parametrize(
    ("made", "arrays", "told"),
    [(SparseSource, *case) for case in WRONG] + [(ColumnSource, *case) for case in WRONG_BY_COLUMN],
)
def test_what_is_no_matrix_is_refused(made, arrays, told):
    """Neither wrapped around nor cut: the error names the array and the rule."""
    source = source_of(made, *arrays, (2, 3))
    with pytest.raises(ReadError, match=told):
        source.read(0, 2, np.empty((2, 3), "f4"))
