"""Groups by runs, against a plain list of labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.membership import Groups, by_sequence


@given(st.lists(st.sampled_from("abc"), max_size=40))
def test_members_are_those_of_a_list(labels):
    """In the sequence of their ids, both ways."""
    some = Groups.of(labels if labels else np.empty(0, "U1"))
    assert some.labels == sorted(set(labels))
    for number, label in enumerate(some.labels):
        members = [id for id, one in enumerate(labels) if one == label]
        assert some.sizes[number] == len(members)
        groups = np.full(len(members), number)
        assert some.forward(groups, np.arange(len(members))).tolist() == members
        found, places = some.inverse(np.array(members))
        assert found.tolist() == groups.tolist() and places.tolist() == list(range(len(members)))


def test_other_groups_have_another_digest():
    """And the same ones the same, whatever they are called."""
    digests = {Groups.of(list(labels)).digest for labels in ("aab", "abb", "aba", "aabb")}
    assert len(digests) == 4
    assert Groups.of([1, 1, 2]).digest == Groups.of(["x", "x", "y"]).digest


@pytest.mark.parametrize("labels", [[[1, 2]], [1.5, 2.5], [None, 1]])
def test_labels_are_integers_or_words(labels):
    """One for each sample."""
    with pytest.raises(TypeError, match="groups must be one integer or word for each sample"):
        Groups.of(labels)


def test_runs_take_memory_not_samples():
    """A group of a thousand million samples is one number."""
    some = Groups([0, 10**9], [1, 0], 3 * 10**9, ["b", "a"])
    assert some.sizes.tolist() == [2 * 10**9, 10**9]
    assert some.forward(np.array([0, 1]), np.array([5, 5])).tolist() == [10**9 + 5, 5]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=12))
def test_groups_of_runs_are_those_of_each_sample(runs):
    """Also where runs of one group are neighbours, or have no sample."""
    labels, lengths = zip(*runs, strict=True) if runs else ((), ())
    spelled = [label for label, length in runs for _ in range(length)]
    expected = Groups.of(np.array(spelled, "U1"))
    some = Groups.of_runs(np.array(labels, "U1"), lengths)
    assert (some.digest, some.labels) == (expected.digest, expected.labels)
    assert (some.sizes.tolist(), some.num_samples) == (expected.sizes.tolist(), len(spelled))


def test_each_run_has_one_label():
    """No more, and no fewer; and a dataset without sequences has none."""
    with pytest.raises(ValueError, match="2 labels for 3 runs"):
        Groups.of_runs(["a", "b"], [1, 2, 3])
    with pytest.raises(TypeError, match="and the sampler reads a range: pass Grouped an array"):
        by_sequence(range(3))
