"""Sparse rows against dense matrices that are put together entry by entry."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.values.sparse import Entries, Transpose, transposed_bytes


@st.composite
def matrices(draw):
    """Rows, width, and (row, column, value) of entries in any sequence, several of one place too."""
    rows, width = draw(st.integers(0, 6)), draw(st.integers(0, 5))
    if not rows or not width:
        return rows, width, []
    entry = st.tuples(
        st.integers(0, rows - 1), st.integers(0, width - 1), st.sampled_from([-0.0, 1e8, 1.0, -3.5])
    )
    return rows, width, draw(st.lists(entry, max_size=20))


def dense(rows, width, entries):
    """Added up one by one, in float32."""
    out = np.zeros((rows, width), "f4")
    for row, column, value in entries:
        out[row, column] += np.float32(value)
    return out


def by_row(rows, entries):
    """The entries row by row, those of a row in their sequence."""
    ordered = [entry for row in range(rows) for entry in entries if entry[0] == row]
    counts = [sum(entry[0] == row for entry in entries) for row in range(rows)]
    return Entries(
        np.array(counts, np.int64),
        np.array([column for _, column, _ in ordered], np.int64),
        np.array([value for _, _, value in ordered], "f4"),
    )


@given(matrices())
def test_rows_made_dense_are_those_of_the_matrix(matrix):
    """To the bit, whatever lay in the memory: entries of one place add up in their sequence."""
    rows, width, entries = matrix
    out = np.full((rows, width), 99, "f4")
    by_row(rows, entries).fill(out)
    assert out.tobytes() == dense(*matrix).tobytes()


@given(matrices())
def test_the_usual_form_has_ascending_columns_and_the_same_sums(matrix):
    """Each column once; a row of its own for each row, also an empty one."""
    rows, width, entries = matrix
    usual = by_row(rows, entries).canonical(width)
    expected = dense(*matrix)
    split = usual.split(width)
    assert len(split) == rows
    for row, values in zip(split, expected, strict=True):
        assert (np.diff(row.columns) > 0).all() and row.size == width
        out = np.zeros(width, "f4")
        out[row.columns] = row.values
        assert np.array_equal(out, values)


@given(matrices(), st.integers(1, 7))
def test_what_comes_by_column_is_sorted_by_row(matrix, size):
    """In pieces of any size: the entries of a row, column after column, those of one place in their sequence."""
    rows, width, entries = matrix
    stored = sorted(entries, key=lambda entry: entry[1])
    counts = np.array([sum(entry[0] == row for entry in entries) for row in range(rows)], np.int64)
    made = Transpose(counts, width, np.dtype("f4"))
    for start in range(0, len(stored), size):
        row, column, value = map(np.array, zip(*stored[start : start + size], strict=True))
        made.put(column, row, value)
    assert made.block.nbytes == transposed_bytes(rows, width, len(entries), np.dtype("f4"))
    found, expected = made.rows.entries(0, rows), by_row(rows, stored)
    for one, other in zip(found, expected, strict=True):
        assert one.tobytes() == other.tobytes()
    for row in range(rows):
        alone = made.rows.entries(row, row + 1)
        assert alone.columns.tolist() == [column for at, column, _ in stored if at == row]


def test_a_copied_row_is_in_memory_of_its_own():
    """Samples may be written to, also where two take one row."""
    (row,) = Entries(np.array([2]), np.array([0, 1]), np.array([5.0, 6.0])).split(3)
    other = row.copy()
    other.values[0] = other.columns[0] = 9
    assert row.values.tolist() == [5, 6] and row.columns.tolist() == [0, 1]
    assert row.nbytes == 32 and other.size == 3
