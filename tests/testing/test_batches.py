"""Sample ids are read out of batches, and what holds none is refused."""

import numpy as np
import pytest
import torch

from globidx.testing.batches import ids_of


@pytest.mark.parametrize("ids", [torch.tensor([3, 5]), np.array([3, 5]), [3, 5], (3, 5)])
def test_ids_are_the_last_part_of_a_batch_or_what_the_function_returns(ids):
    """A ``with_id=True`` batch ends with its ids; any other way has a function."""
    assert ids_of((torch.zeros(2, 4), ids)) == [3, 5]
    assert ids_of({"at": ids}, lambda batch: batch["at"]) == [3, 5]


@pytest.mark.parametrize(
    "batch",
    [
        torch.arange(4),
        {"x": torch.zeros(4)},
        (torch.zeros(4),),
        (torch.zeros(4), torch.zeros(4)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.bool)),
        (torch.zeros(4), torch.zeros(2, 2, dtype=torch.int64)),
        (torch.zeros(4), ["a"]),
    ],
)
def test_a_batch_without_ids_says_what_to_do(batch):
    """Labels in floats, texts, tables and bare values are not taken for ids."""
    with pytest.raises(TypeError, match="with_id=True, or pass ids="):
        ids_of(batch)
