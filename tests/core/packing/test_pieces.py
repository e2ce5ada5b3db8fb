"""What is cut and left out of documents against lists of their tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.packing.pieces import concatenated, within

LENGTHS = st.lists(st.integers(0, 30), max_size=20)


def tokens_of(pieces):
    """(document, token) of all tokens, in their sequence."""
    rows = zip(*(column.tolist() for column in pieces), strict=True)
    return [(document, token) for document, start, stop in rows for token in range(start, stop)]


def all_tokens(lengths, documents):
    """(document, token) of documents one behind the other."""
    return [(document, token) for document in documents for token in range(lengths[document])]


@settings(max_examples=100)
@given(lengths=LENGTHS, budget=st.integers(1, 12), seed=st.integers(0, 99))
def test_concatenated_documents_are_cut_after_each_budget(lengths, budget, seed):
    """All tokens in their sequence, and a bin holds exactly the budget but for the last."""
    documents = np.random.default_rng(seed).permutation(len(lengths))
    pieces, bins = concatenated(np.array(lengths, np.int32), documents, budget)
    expected = all_tokens(lengths, documents.tolist())
    assert tokens_of(pieces) == expected
    assert (pieces.lengths > 0).all()
    counted = np.repeat(bins, pieces.lengths).tolist()
    assert counted == [number // budget for number in range(len(expected))]


@settings(max_examples=100)
@given(lengths=LENGTHS, budget=st.integers(1, 12), seed=st.integers(0, 99))
def test_long_documents_are_split_into_whole_budgets_and_a_rest(lengths, budget, seed):
    """No token is lost, and all pieces fit."""
    documents = np.random.default_rng(seed).permutation(len(lengths))
    pieces, dropped = within(np.array(lengths, np.int32), documents, budget, "split")
    assert tokens_of(pieces) == all_tokens(lengths, documents.tolist())
    assert pieces.lengths.max(initial=1) <= budget and pieces.lengths.min(initial=1) > 0
    assert len(pieces.documents) == sum(-(-length // budget) for length in lengths)
    assert len(dropped) == 0


@settings(max_examples=100)
@given(lengths=LENGTHS, budget=st.integers(1, 12))
def test_long_documents_are_dropped_and_told(lengths, budget):
    """And none that fits."""
    documents = np.arange(len(lengths))
    pieces, dropped = within(np.array(lengths, np.int32), documents, budget, "drop")
    assert dropped.tolist() == [id for id in documents.tolist() if lengths[id] > budget]
    kept = [id for id in documents.tolist() if lengths[id] <= budget]
    assert tokens_of(pieces) == all_tokens(lengths, kept)


def test_long_documents_are_an_error_that_says_what_to_do():
    """Which one, how long, how many, and the three ways out."""
    with pytest.raises(
        ValueError, match="document 1 has 9 tokens, more than the budget of 8"
    ) as told:
        within(np.array([8, 9, 2, 10]), np.array([3, 2, 1, 0]), 8, "error")
    for word in ("2 of 4 documents", "'split'", "'drop'", "a larger budget"):
        assert word in str(told.value)
