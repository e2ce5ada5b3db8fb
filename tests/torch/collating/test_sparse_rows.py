"""Rows of a sparse matrix and their matrix are the same numbers, densely written."""

import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from globidx.torch.collating.sparse_rows import SparseRow, matrix

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")


def row(pairs, size=6, dtype=torch.float64):
    """The row that has these (column, value) pairs."""
    columns = torch.tensor([at for at, _ in pairs], dtype=torch.int64)
    return SparseRow(columns, torch.tensor([value for _, value in pairs], dtype=dtype), size)


PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), max_size=8)


@given(st.lists(PAIRS, min_size=1, max_size=4), st.sampled_from([torch.float64, torch.int32]))
def test_the_matrix_is_the_rows_densely_written(rows, dtype):
    """Columns in any sequence; one that stands twice has the sum."""
    expected = []
    for pairs in rows:
        line = [0] * 6
        for at, value in pairs:
            line[at] += value
        expected.append(line)
    given_rows = [row(pairs, dtype=dtype) for pairs in rows]
    made = matrix(given_rows, "x")
    assert made.layout == torch.sparse_csr and made.dtype == dtype
    assert made.to_dense().tolist() == expected
    assert [one.dense().tolist() for one in given_rows] == expected
    # torch itself checks that columns ascend and offsets fit
    torch.sparse_csr_tensor(
        made.crow_indices(), made.col_indices(), made.values(), made.shape, check_invariants=True
    )


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([row([(0, 1)]), row([(6, 1)])], r"field 'x' has a value in column 6, outside \[0, 6\)"),
        ([row([(-1, 1)])], r"column -1, outside \[0, 6\)"),
        ([row([]), row([], size=5)], "6 columns.*sample 0.*5 of.*sample 1"),
        ([row([]), row([], dtype=torch.int32)], "float64.*int32 in sample 1"),
        ([SparseRow(torch.tensor([1, 2]), torch.ones(1), 6)], r"shape \(2,\).*shape \(1,\)"),
        ([SparseRow(torch.tensor([1.0]), torch.ones(1), 6)], "float32.*one int64 for each value"),
    ],
)
def test_rows_that_make_no_matrix_are_refused(rows, words):
    """A column outside would be read outside of the memory."""
    with pytest.raises(ValueError, match=words):
        matrix(rows, "x")


def test_a_matrix_has_rows_only():
    """Whichever sample is the odd one."""
    with pytest.raises(TypeError, match="field 'x' is None in sample 1 of the batch, which is no"):
        matrix([row([]), None], "x")


def test_a_row_survives_pickling():
    """It comes out of a worker, so as a worker does it."""
    one = pickle.loads(ForkingPickler.dumps(row([(2, 5)])))
    assert isinstance(one, SparseRow) and one.dense().tolist() == [0, 0, 5, 0, 0, 0]
