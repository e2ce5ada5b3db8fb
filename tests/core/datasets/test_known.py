"""What is known of a dataset: its own metadata, or what follows from the datasets that it is made of."""

import derived
import numpy as np
import pytest
from derived import Files, Joined, Picked
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.datasets.known import Concatenation, Plain, Selection, chunking_of, known


class Read(list):
    """A list that counts how often it is read through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_ids_are_read_once_and_not_at_every_look():
    """Ten million ids may be looked at between any two steps; what is put in their place is read anew."""
    selection = Picked(Files("a", [50] * 40), Read(range(2000)))
    for _ in range(3):
        before = known(selection).fingerprint
        chunking_of(selection, 2000)
    assert selection.indices.times == 2  # for the fingerprint, and for the chunks
    selection.indices = selection.indices[::-1]
    assert known(selection).fingerprint != before
    selection.indices.reverse()
    assert known(selection).fingerprint == before


@pytest.mark.parametrize("make", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_selection_is_the_same_however_its_ids_are_kept(make):
    """As list, tuple or array; a range is a list of the same ids."""
    inner = Files("a", [5])
    assert (
        known(Picked(inner, make([2, 0, 1]))).fingerprint
        == known(Picked(inner, [2, 0, 1])).fingerprint
    )
    assert known(Picked(inner, range(3))).fingerprint == known(Picked(inner, [0, 1, 2])).fingerprint


@pytest.mark.parametrize(
    "members",
    [
        {"dataset": [1, 2], "indices": lambda self: [0]},
        {"dataset": [1, 2], "indices": [0.5]},
        {"dataset": [1, 2], "indices": [7]},
        {"datasets": ([1], [2])},
        {"datasets": ([1], [2]), "cumulative_sizes": [1, 3]},
    ],
    ids=["method", "fractions", "outside", "no ends", "other ends"],
)
def test_what_only_looks_like_one_is_known_by_its_length(members):
    """Attributes of the same names that mean something else."""
    found = known(type("Other", (), members | {"__len__": lambda self: 1})())
    assert type(found) is Plain
    assert (found.num_samples, found.fingerprint) == (1, None)


def test_its_own_fingerprint_goes_before_what_it_is_made_of():
    """A wrapper that knows better."""
    inner = Files("a", [3])
    assert type(known(Picked(inner, [0]))) is Selection
    assert type(known(Joined([inner]))) is Concatenation
    own = Picked(inner, [0])
    own.fingerprint = "mine"
    assert type(known(own)) is Plain
    assert known(own).fingerprint == "mine"


@pytest.mark.parametrize("word", ["", "x" * 257])
def test_a_fingerprint_that_no_record_takes_is_refused_at_once(word):
    """Rather than written and never read again: how long it is, and what to do."""
    odd = type("Odd", (), {"fingerprint": word, "__len__": lambda self: 3})()
    with pytest.raises(ValueError, match=f"of Odd has {len(word)} characters.*digest"):
        known(odd)


def test_a_dataset_without_a_length_is_refused_by_its_type():
    """An IterableDataset chooses its samples itself."""
    with pytest.raises(TypeError, match="object has no __len__.*map-style"):
        known(object())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(0, 20))
def test_a_prefix_is_whole_files_and_does_not_change_when_files_are_appended(lengths, stop):
    """The shortest one that holds the ids."""
    dataset = Files("a", lengths)
    stop = min(stop, len(dataset))
    prefix = known(dataset).covering(stop)
    ends = [sum(lengths[:count]) for count in range(len(lengths) + 1)]
    assert prefix.num_samples == next(end for end in ends if end >= stop)
    assert known(Files("a", [*lengths, 7])).covering(stop) == prefix


def test_chunks_that_are_not_known_are_refused_with_what_to_do():
    """An attribute to add, or indices to sort."""
    with pytest.raises(TypeError, match="list has no `chunking`: add that attribute"):
        chunking_of([1, 2], 2)
    with pytest.raises(TypeError, match="next to each other; sort its indices"):
        chunking_of(Picked(Files("a", [12]), [0, 5, 1]), 3)
    assert chunking_of(Picked(Files("a", [12]), [0, 1, 5]), 3).lengths.tolist() == [2, 1]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (17, "of type int"),
        (b"v1", "of type bytes"),
        (lambda: "v1", "a method"),
        (["v1"], "of type list"),
    ],
    ids=["int", "bytes", "method", "list"],
)
def test_a_fingerprint_of_another_type_is_refused_and_not_ignored(value, kind):
    """A method would be left out of the record without a word, and other samples taken for these."""
    odd = type("Odd", (), {"__len__": lambda self: 3})()
    odd.fingerprint = value
    with pytest.raises(TypeError, match=f"of Odd is {kind}, but a record takes a str of 1 to 256"):
        known(odd)


def test_an_unknown_fingerprint_is_none_and_a_private_one_of_another_type_means_nothing():
    """``_fingerprint`` is Hugging Face's word; in any other class it may be anything."""
    for members in ({"fingerprint": None}, {"_fingerprint": 5}, {"_fingerprint": lambda self: 5}):
        odd = type("Odd", (), members | {"__len__": lambda self: 3})()
        assert known(odd).fingerprint is None
    both = type("Both", (), {"fingerprint": "own", "_fingerprint": "f1", "__len__": len})
    both.__len__ = lambda self: 3
    assert known(both()).fingerprint == "own"


class Wrapper:
    """A dataset that changes how samples look, and not which they are."""

    def __init__(self, inner):
        self.same_ids_as = inner

    def __len__(self):
        return len(self.same_ids_as)


@given(derived.TREES)
def test_a_wrapper_that_names_whose_ids_it_has_is_known_as_that_one(dataset):
    """Fingerprint, prefixes that survive growth, chunks, and what is not known."""
    wrapped, own = known(Wrapper(Wrapper(dataset))), known(dataset)
    assert (wrapped.num_samples, wrapped.num_files) == (own.num_samples, own.num_files)
    assert wrapped.fingerprint == own.fingerprint
    for stop in range(own.num_samples + 1):
        assert wrapped.covering(stop) == own.covering(stop)
    assert [*wrapped.unidentified()] == [*own.unidentified()]


def test_a_wrapper_with_a_fingerprint_of_its_own_still_has_the_chunks():
    """Its fingerprint says more, its ids lie where those of the other lie."""
    wrapper = Wrapper(Files("a", [12]))
    wrapper.fingerprint = "mine"
    assert known(wrapper).fingerprint == "mine"
    assert chunking_of(wrapper, 12).lengths.tolist() == [12]


def test_a_wrapper_of_another_length_has_not_the_ids_that_it_says():
    """A selection that passes on all attributes, say."""
    wrapper = type("Half", (), {"same_ids_as": [1, 2, 3, 4], "__len__": lambda self: 2})()
    with pytest.raises(ValueError, match="same_ids_as of Half, which has 2 .* a list of 4"):
        known(wrapper)


def test_the_splits_of_a_data_set_are_refused_with_one_to_choose():
    """Their number is no number of samples; a dict by id is a dataset."""
    with pytest.raises(
        TypeError, match=r"this dict has the keys 'train', 'test': choose .*\['train'\]"
    ):
        known({"train": [1, 2], "test": [3]})
    assert known({0: "a", 1: "b"}).num_samples == 2
