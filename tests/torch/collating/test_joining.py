"""Rows one behind the other: offsets, nested tensors and sparse matrices give the samples back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from globidx import collate
from globidx.collate import SparseRow

pytestmark = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
DTYPES = [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.complex64]


@st.composite
def rows(draw):
    """1 to 5 tensors of 0 to 4 rows, all of one shape."""
    lengths = draw(st.lists(st.integers(0, 4), min_size=1, max_size=5))
    shape = draw(st.lists(st.integers(1, 3), max_size=2))
    dtype = draw(st.sampled_from(DTYPES))
    return [torch.randint(0, 50, (length, *shape)).to(dtype) for length in lengths]


@given(rows())
def test_the_offsets_give_the_samples_back(samples):
    """B + 1 of them, int64, from 0 to the number of rows."""
    joined, offsets = collate.concat()(samples)
    assert offsets.dtype == torch.int64 and len(offsets) == len(samples) + 1
    assert offsets[0] == 0 and offsets[-1] == len(joined) and joined.dtype == samples[0].dtype
    bounds = offsets.tolist()
    for number, one in enumerate(samples):
        assert torch.equal(joined[bounds[number] : bounds[number + 1]], one)


@given(rows())
def test_a_nested_tensor_unbinds_into_the_samples(samples):
    """It is that of torch.nested.nested_tensor, in the jagged layout."""
    nested = collate.nested()(samples)
    theirs = torch.nested.nested_tensor(samples, layout=torch.jagged)
    assert nested.layout == torch.jagged and nested.dtype == theirs.dtype
    assert torch.equal(nested.values(), theirs.values())
    assert torch.equal(nested.offsets(), theirs.offsets())
    for ours, one in zip(nested.unbind(), samples, strict=True):
        assert torch.equal(ours, one)


def test_nested_fields_of_equal_lengths_are_of_one_shape_to_torch():
    """Positions and forces of the same atoms may be added."""
    samples = [
        {"a": torch.ones(n, 2), "b": torch.ones(n, 2), "c": torch.ones(5, 2)} for n in (2, 3)
    ]
    batch = collate.nested()(samples)
    total = batch["a"] + batch["b"]
    assert [one.tolist() for one in total.unbind()] == [[[2.0] * 2] * n for n in (2, 3)]
    assert batch["a"].offsets() is batch["b"].offsets() is not batch["c"].offsets()


def test_an_embedding_bag_takes_the_offsets():
    """The bag of a sample is the sum of its rows' embeddings."""
    words = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 1])]
    bag = torch.nn.EmbeddingBag(6, 3, mode="sum", include_last_offset=True)
    joined, offsets = collate.concat()(words)
    expected = torch.stack([bag.weight[one].sum(0) for one in words])
    assert torch.allclose(bag(joined, offsets), expected)


def test_offsets_are_beside_the_fields_and_nested_as_they_are():
    """Under another name where one was given; an array counts as a tensor."""
    samples = [{"obs": {"x": torch.ones(n, 2)}, "y": torch.ones(n).numpy()} for n in (3, 1)]
    batch = collate.concat()(samples)
    assert batch["offsets"]["obs"]["x"].tolist() == batch["offsets"]["y"].tolist() == [0, 3, 4]
    assert collate.concat("y", offsets="ptr")([{"y": torch.ones(2)}])["ptr"]["y"].tolist() == [0, 2]


@pytest.mark.parametrize("by", ["concat", "nested"])
def test_what_differs_along_another_axis_is_refused_with_its_shapes(by):
    """And pad is named, which takes it."""
    samples = [{"x": torch.ones(2, 3)}, {"x": torch.ones(2, 3)}, {"x": torch.ones(2, 4)}]
    words = rf"field 'x' has shape \(2, 3\) in sample 0.*\(2, 4\) in sample 2, along axis 1.*{by}\(\).*use pad"
    with pytest.raises(ValueError, match=words):
        getattr(collate, by)("x")(samples)


def test_the_matrix_of_a_batch_has_the_rows():
    """Of csr layout, other fields stacked."""
    samples = [
        {"x": SparseRow(torch.tensor(at, dtype=torch.int64), torch.ones(len(at)), 4), "y": 1}
        for at in ([0, 3], [], [2])
    ]
    batch = collate.sparse("x")(samples)
    assert batch["x"].layout == torch.sparse_csr and batch["y"].tolist() == [1, 1, 1]
    dense = [[1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert batch["x"].to_dense().tolist() == dense


def test_sparse_refuses_what_is_no_row():
    """Where the field was named; else it is left to the default."""
    samples = [{"x": torch.ones(2)}] * 2
    with pytest.raises(TypeError, match="field 'x' is tensor.*which is no SparseRow"):
        collate.sparse("x")(samples)
    assert collate.sparse()(samples)["x"].shape == (2, 2)


def test_offsets_have_a_name():
    """A str that is not empty."""
    for name in ("", 1, None):
        with pytest.raises(TypeError, match="offsets must be a name"):
            collate.concat(offsets=name)
