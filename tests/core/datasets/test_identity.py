"""Identity of datasets: ids that mean other samples are never taken for the same ones, and growth is told from change."""

import pickle

import pytest
from derived import TREES, Files, Joined, Picked, grown, renamed, samples
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.datasets.identity import (
    DatasetIdentity,
    IdentifiedDataset,
    advice,
    unidentified,
)


@given(TREES, TREES)
def test_equal_identities_mean_equal_samples(one, other):
    """And the same construction in another process is the same dataset."""
    if DatasetIdentity.of(one) == DatasetIdentity.of(other):
        assert samples(one) == samples(other)
    assert DatasetIdentity.of(pickle.loads(pickle.dumps(one))) == DatasetIdentity.of(one)


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_the_sequence_of_a_selection_is_part_of_it(one, other):
    """The same samples under other ids are another dataset."""
    inner = Files("a", [5])
    same = DatasetIdentity.of(Picked(inner, one)) == DatasetIdentity.of(Picked(inner, other))
    assert same == (one == other)


@given(TREES, st.lists(st.integers(1, 3), min_size=1, max_size=2))
def test_appended_files_are_growth_exactly_where_no_id_moves(before, more):
    """A selection does not notice them, a concatenation grows at its end alone."""
    before = renamed(before)
    after = grown(before, tuple(more))
    keeps_ids = samples(after)[: len(before)] == samples(before)
    assert DatasetIdentity.of(before).begins(after) == keeps_ids or not len(before)


@given(TREES, TREES)
def test_a_longer_selection_begins_with_the_shorter(dataset, other):
    """``Subset(d, ids)`` may grow at its end, and be nothing else."""
    ids = list(range(len(dataset)))
    half = DatasetIdentity.of(Picked(dataset, ids[: len(ids) // 2]))
    assert half.begins(Picked(dataset, ids)) or len(ids) < 2
    known = DatasetIdentity.of(dataset)
    if known.begins(other):
        assert samples(other)[: len(dataset)] == samples(dataset)


def test_a_class_that_inherits_the_protocol_needs_a_length_and_a_fingerprint():
    """The other members have defaults that say nothing."""

    class Own(IdentifiedDataset):
        fingerprint = "v1"

        def __len__(self):
            return 4

    own = Own()
    assert (own.num_files, own.chunking, own.fingerprint_of(2)) == (None, None, None)
    assert DatasetIdentity.of(own) == DatasetIdentity(4, None, "v1")


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        ([5, 6], "of this list only its length (2) is known"),
        (Picked([1, 2, 3], [0, 2]), "of the list in this Picked only the length is known"),
        (Joined([Files("a", [2]), [1]]), "of the list in this Joined only the length is known"),
        (Files("a", [2]), None),
        (Picked(Files("a", [4]), [1, 2]), None),
        (range(5), None),
    ],
)
def test_what_is_not_known_is_told_by_its_type(dataset, told):
    """A range needs nothing: its length says all."""
    assert unidentified(dataset) == told


def test_advice_is_for_the_kind_of_dataset():
    """What a user can do about another one."""
    files = Files("a", [4])
    assert "open the data" in advice(files)
    assert "manual_seed(0)" in advice(Picked(files, [1]))
    assert "join the same datasets" in advice(Joined([files]))
    assert "with a fixed seed" in advice([1, 2])
