"""The index against a list of every (file, item) there is."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx import GlobalIndex

lengths = st.lists(st.integers(0, 7), max_size=12)


@given(lengths)
def test_every_id_has_one_place_and_every_place_one_id(counts):
    """locate, locate_many and sample_id agree with the places written out one after another, empty files included."""
    places = [(file, item) for file, count in enumerate(counts) for item in range(count)]
    index = GlobalIndex(counts)
    assert len(index) == len(places)
    assert [index.locate(id) for id in range(len(places))] == places
    assert [index.sample_id(*place) for place in places] == list(range(len(places)))
    files, items = index.locate_many(range(len(places)))
    assert list(zip(files.tolist(), items.tolist(), strict=True)) == places
    assert files.dtype == items.dtype == np.int64


@pytest.mark.parametrize("bad", [-1, 5, 2**31, 2**53 + 1, 2**63, -(2**63), 2**200])
def test_ids_outside_are_index_errors(bad):
    """No id outside [0, len) reads anything, negative ones included."""
    index = GlobalIndex([3, 2])
    with pytest.raises((IndexError, ValueError)):
        index.locate(bad)
    with pytest.raises((IndexError, ValueError)):
        index.locate_many([0, bad])


@pytest.mark.parametrize("bad", [1.0, True, np.float64(1), np.True_, "1", None, [1], slice(1)])
def test_only_integers_are_ids(bad):
    """Floats and bools are refused, though Python would take them for numbers."""
    with pytest.raises(TypeError, match="must be an integer"):
        GlobalIndex([3]).locate(bad)


@pytest.mark.parametrize("bad", [[0.0], [True], np.array([1.5]), np.array([True])])
def test_only_integer_arrays_are_ids(bad):
    """The vectorised lookup is as strict as the scalar one."""
    with pytest.raises(TypeError, match="must be (integers|an integer)"):
        GlobalIndex([3]).locate_many(bad)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int32, np.uint64])
def test_integers_of_any_width_are_ids(kind):
    """numpy's integers count as integers."""
    index = GlobalIndex([3, 2])
    assert index.locate(kind(4)) == (1, 1)
    assert index.locate_many(np.array([4], kind))[0].tolist() == [1]


@pytest.mark.parametrize("bad", [[-1], [1.0], [True], np.array([1.0])])
def test_bad_lengths_are_refused(bad):
    """A length is a non-negative integer."""
    with pytest.raises((TypeError, ValueError)):
        GlobalIndex(bad)


def test_totals_beyond_int64_are_refused_and_those_below_are_exact():
    """numpy's cumsum would wrap silently."""
    with pytest.raises(OverflowError):
        GlobalIndex([2**62, 2**62])
    index = GlobalIndex([2**62, 2**62 - 1])
    assert index.locate(2**62) == (1, 0)
    assert index.locate(2**63 - 2) == (1, 2**62 - 2)


def test_an_index_is_a_frozen_value():
    """Equal by content, hashable, picklable, and its arrays cannot be written to."""
    index = GlobalIndex([3, 2])
    assert index == pickle.loads(pickle.dumps(index)) != GlobalIndex([2, 3])
    assert hash(index) == hash(GlobalIndex([3, 2]))
    with pytest.raises(ValueError, match="read-only"):
        index.lengths[0] = 9
    with pytest.raises(ValueError, match="read-only"):
        index.offsets[0] = 9


@pytest.mark.parametrize("place", [(2, 0), (-1, 0), (0, 3), (0, -1)])
def test_places_that_are_none_are_index_errors(place):
    """sample_id refuses files and items that do not exist."""
    with pytest.raises(IndexError):
        GlobalIndex([3, 2]).sample_id(*place)
