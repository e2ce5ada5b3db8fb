"""Boundaries of documents in a pack, and in the packs of a batch, against loops over tokens."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from globidx.core.packing.contents import Pack
from globidx.packing import PackedDataset, flatten, pack
from globidx.torch.packing.attention import boundaries

PIECES = st.lists(
    st.tuples(st.integers(0, 99), st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=6
)


def pack_of(pieces):
    """A pack of (document, start, length)."""
    documents, starts, lengths = (
        np.array(column, np.int32) for column in zip(*pieces, strict=True)
    )
    return Pack(documents, starts, starts + lengths)


def together(told):
    """Which pairs of tokens attend to one another, by ``cu_seqlens``."""
    ends = told["cu_seqlens"].tolist()
    mask = torch.zeros(ends[-1], ends[-1], dtype=torch.bool)
    for start, stop in zip(ends[:-1], ends[1:], strict=True):
        mask[start:stop, start:stop] = True
    return mask


@settings(max_examples=60)
@given(pieces=PIECES, extra=st.none() | st.integers(0, 5))
def test_documents_are_told_token_by_token(pieces, extra):
    """By a loop; with padding behind them, whose shape does not depend on the documents."""
    used = sum(length for _, _, length in pieces)
    size = None if extra is None else used + extra
    told = boundaries(pack_of(pieces), size, most=8)
    of = [number for number, (_, _, length) in enumerate(pieces) for _ in range(length)]
    places = [place for _, _, length in pieces for place in range(length)]
    assert told["document_ids"].tolist() == of + [-1] * (extra or 0)
    assert told["position_ids"].tolist() == places + list(range(extra or 0))
    assert told["cu_seqlens"].dtype == torch.int32
    assert told["max_seqlen"] == max([length for _, _, length in pieces] + [extra or 0])
    ids = [document for document, _, _ in pieces]
    if extra is None:
        assert told["documents"].tolist() == ids
        assert len(told["cu_seqlens"]) == len(pieces) + 1
    else:
        assert told["documents"].tolist() == ids + [-1] * (8 - len(ids))
        assert len(told["cu_seqlens"]) == 8 + 2
    same = told["document_ids"][:, None] == told["document_ids"]
    assert torch.equal(together(told), same)


@settings(max_examples=30)
# the first pack has fewer documents than the next
@example(lengths=[6, 3, 3], pad=0)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=12), pad=st.none() | st.just(0))
def test_flattened_packs_keep_documents_apart(lengths, pad):
    """Tokens attend to one another in the row exactly as they do in their packs."""
    documents = [torch.arange(length) for length in lengths]
    dataset = PackedDataset(documents, pack(lengths, 7, seed=1), pad=pad)
    samples = [dataset[id] for id in range(len(dataset))]
    row = flatten(samples)
    assert torch.equal(together(row), torch.block_diag(*map(together, samples)).bool())
    assert row["max_seqlen"] == max(sample["max_seqlen"] for sample in samples)
    assert row["cu_seqlens"].dtype == torch.int32
    assert len(row["cu_seqlens"]) - 1 == sum(len(one["cu_seqlens"]) - 1 for one in samples)
    for name in ("tokens", "position_ids", "documents"):
        assert row[name].tolist() == [one for sample in samples for one in sample[name].tolist()]
    counted = row["document_ids"][row["document_ids"] >= 0].unique_consecutive()
    assert counted.tolist() == list(range(len(lengths)))


def test_attention_by_boundaries_is_that_of_documents_alone():
    """What a model computes of a document does not depend on the pack that it is in."""
    torch.manual_seed(0)
    lengths = [5, 2, 4, 1]
    values = [torch.randn(length, 8) for length in lengths]
    dataset = PackedDataset(values, pack(lengths, 7), pad=0.0)
    attend = torch.nn.functional.scaled_dot_product_attention
    for id in range(len(dataset)):
        sample = dataset[id]
        x, mask = sample["tokens"][None], together(sample)
        found = attend(x, x, x, attn_mask=mask)[0]
        for number, document in enumerate(sample["documents"][sample["documents"] >= 0].tolist()):
            alone = values[document][None]
            here = found[sample["document_ids"] == number]
            assert torch.allclose(here, attend(alone, alone, alone)[0], atol=1e-6)


@pytest.mark.parametrize("count", [1, 3])
def test_boundaries_fit_attention_of_varying_lengths(count):
    """torch's own kernel for them, where a GPU has it; elsewhere its jagged tensors take the same offsets."""
    told = boundaries(pack_of([(0, 0, 2)] * count))
    jagged = torch.nested.nested_tensor_from_jagged(
        torch.randn(2 * count, 4), told["cu_seqlens"].long()
    )
    assert [len(row) for row in jagged.unbind()] == [2] * count
