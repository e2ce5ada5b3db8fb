"""Rows of a sparse matrix are those of the dense one that was cut into three arrays, or an error that says what is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.disk.stores.sparse import SparseSource
from globidx.errors import ReadError


class Arrays:
    """The open file: three arrays by name."""

    def __init__(self, indptr, indices, data):
        self.by_name = {
            "X/indptr": np.array(indptr, "i4"),
            "X/indices": np.array(indices, "i4"),
            "X/data": np.array(data, "f4"),
        }

    def read(self, name, start, stop, fill=None):
        return self.by_name[name][start:stop]


def read(arrays, start, stop, width):
    """Rows ``[start, stop)``, over memory that holds something else."""
    out = np.full((stop - start, width), 99, "f4")
    taken = SparseSource(lambda: arrays, "X").read(start, stop, out)
    return out.tolist(), taken


@given(st.data())
def test_rows_are_those_of_the_dense_matrix(data):
    """Entry by entry, entries of one place added up; what it took is the bytes of the three arrays."""
    rows, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 5))
    entries = st.lists(st.tuples(st.integers(0, width - 1), st.integers(-3, 3)), max_size=6)
    matrix = [data.draw(entries) for _ in range(rows)]
    start = data.draw(st.integers(0, rows - 1))
    stop = data.draw(st.integers(start + 1, rows))
    dense = [[0.0] * width for _ in range(rows)]
    for row, pairs in enumerate(matrix):
        for column, value in pairs:
            dense[row][column] += value
    ends = [sum(map(len, matrix[:row])) for row in range(rows + 1)]
    flat = [pair for pairs in matrix for pair in pairs]
    arrays = Arrays(ends, [column for column, _ in flat], [value for _, value in flat])
    found, taken = read(arrays, start, stop, width)
    assert found == dense[start:stop]
    count = ends[stop] - ends[start]
    assert taken == (stop - start + 1) * 8 + count * (4 + 4)


@pytest.mark.parametrize(
    ("arrays", "told"),
    [
        (
            ([0, 2, 1], [0, 1], [1, 1]),
            r"indptr of 'X' does not ascend in rows \[0, 2\): \[0, 2, 1\]",
        ),
        (([-1, 0, 1], [0, 1], [1, 1]), "does not ascend"),
        (([0, 1, 3], [0, 1], [1, 1]), "ends at 3, behind the end of indices or data"),
        (([0, 1, 2], [0, 1], [1]), "ends at 2, behind the end of indices or data"),
        (([0, 1, 2], [0, 3], [1, 1]), r"indices of 'X' lie outside \[0, 3\) in rows \[0, 2\)"),
        (([0, 1, 2], [-1, 2], [1, 1]), r"lie outside \[0, 3\)"),
    ],
)
def test_what_is_no_matrix_is_refused(arrays, told):
    """Neither wrapped around nor cut: the error names the array and the rule."""
    with pytest.raises(ReadError, match=told):
        read(Arrays(*arrays), 0, 2, 3)
