"""Samples have the same bits whichever batch they came in, and other bits where anything of them differs."""

from collections import namedtuple

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from globidx.torch.collating.rows import bits_of, bits_of_rows

Pair = namedtuple("Pair", "x name")


def batch_of(ids):
    """A batch of all that has rows."""
    x = torch.tensor(ids, dtype=torch.float64)
    texts = [f"text {id}" for id in ids]
    return {
        "x": x[:, None] * torch.arange(3),
        "half": x.to(torch.bfloat16),
        "complex": torch.complex(x, -x).conj(),
        "array": np.array(ids),
        "pair": Pair(x > 2, texts),
        "list": [x, np.array(texts, "U9")],
        "ids": torch.tensor(ids),
    }


@given(ids=st.lists(st.integers(0, 30), min_size=1, max_size=8), data=st.data())
def test_bits_depend_on_the_sample_alone(ids, data):
    """Batches cut anywhere give the bits of single samples, place by place."""
    cut = data.draw(st.integers(0, len(ids)))
    together = [
        sample
        for part in (ids[:cut], ids[cut:])
        if part
        for sample in bits_of_rows(batch_of(part), len(part))
    ]
    assert together == [bits_of_rows(batch_of([id]), 1)[0] for id in ids]
    assert {*together[0]} == {
        "x",
        "half",
        "complex",
        "array",
        "pair/0",
        "pair/1",
        "list/0",
        "list/1",
        "ids",
    }


DIFFERENT = [
    torch.tensor(0.0),
    torch.tensor(-0.0),
    torch.tensor(0.0, dtype=torch.float64),
    torch.tensor([0.0]),
    torch.tensor(0),
    torch.tensor(False),
    torch.tensor([[1.0, 0.0]]),
    torch.tensor([[1.0], [0.0]]),
    np.array(0.0),
    np.array(0.0, ">f8"),
    np.array(["a", None], object),
    0.0,
    0,
    "0",
    b"0",
    None,
    [torch.tensor(0.0)],
    (torch.tensor(0.0),),
    {"a": torch.tensor(0.0)},
    {"b": torch.tensor(0.0)},
]


def test_whatever_differs_has_other_bits():
    """Type, dtype, shape, sign of zero, container and key."""
    assert len({bits_of(value) for value in DIFFERENT}) == len(DIFFERENT)


def test_equal_bits_are_equal_whatever_they_lie_in():
    """Strides, sparse layouts, gradients and NaN make no difference."""
    x = torch.tensor([[1.0, 0.0], [float("nan"), 2.0]])
    for same in (x.T.contiguous().T, x.to_sparse(), x.clone().requires_grad_()):
        assert bits_of(same) == bits_of(x)


@pytest.mark.parametrize(
    ("batch", "place"),
    [
        (
            {"x": torch.zeros(4), "flat": torch.zeros(9)},
            "'flat' of the batch, a Tensor, has not one row",
        ),
        ((torch.zeros(4), 0.5), "'1' of the batch, a float, has not one row"),
        (torch.tensor(1), "the batch, a Tensor, has not one row for each of its 4 samples"),
    ],
)
def test_what_has_no_rows_is_named(batch, place):
    """Its place, and what to pass."""
    with pytest.raises(TypeError, match=f"{place}.*pass values="):
        bits_of_rows(batch, 4)
