"""What the values of a ragged field must have in common, told with the field and the sample."""

import numpy as np
import pytest
import torch

from globidx.torch.collating.ragged import has_axes, tensors
from globidx.torch.collating.sparse_rows import SparseRow


def test_arrays_count_as_tensors_and_texts_do_not():
    """By the number of their axes."""
    assert has_axes(torch.ones(2, 3), 2) and has_axes(np.ones((2, 3)), 1)
    assert not has_axes(torch.ones(2), 2) and not has_axes(np.array(["a"]), 1)
    assert not has_axes([1, 2], 1) and not has_axes(1, 0)
    assert [type(one) for one in tensors([np.ones(2)], "x", count=1, by="f()")] == [torch.Tensor]


@pytest.mark.parametrize(
    ("values", "error", "words"),
    [
        ([torch.ones(1), "a"], TypeError, "is 'a' in sample 1.*f\\(\\) takes tensors"),
        ([[1, 2]], TypeError, r"is \[1, 2\] in sample 0.*make it one by transform"),
        ([SparseRow(torch.tensor([1]), torch.ones(1), 3)], TypeError, ".*leave it to sparse"),
        ([torch.ones(()), torch.ones(())], ValueError, r"has shape \(\), and f\(\) needs 1 axes"),
        (
            [torch.ones(2), torch.ones(2, 1)],
            ValueError,
            r".*\(2,\).*\(2, 1\) in sample 1.*as many axes",
        ),
        (
            [torch.ones(2), torch.ones(2).int()],
            ValueError,
            "is torch.float32.*torch.int32 in sample 1",
        ),
    ],
)
def test_what_is_no_ragged_field_is_refused(values, error, words):
    """Which field, which sample, what to do."""
    with pytest.raises(error, match="^field 'x' " + words):
        tensors(values, "x", count=1, by="f()")
