"""Chunks, slabs and runs of bytes, held against numpy's own indexing of one axis."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.reading import pieces


@st.composite
def axes(draw):
    """The size of an axis, and what is taken along it: a range, elements, or one of them."""
    size = draw(st.integers(1, 20))
    element = st.integers(0, size - 1)
    start = draw(element)
    ranges = st.builds(range, st.just(start), st.integers(start + 1, size), st.integers(1, 5))
    lists = st.lists(element, min_size=1, max_size=8).map(tuple)
    return size, draw(st.one_of(ranges, lists, element))


def oracle(size, taken):
    """What numpy takes of the axis, whose elements are 0, 1, ..."""
    return np.arange(size)[list(taken) if not isinstance(taken, int) else taken]


@given(axes(), st.integers(1, 7))
def test_pieces_put_together_are_what_was_taken(given, length):
    """Each chunk that holds some of it is named once, and no other."""
    size, taken = given
    whole, out = np.arange(size), np.full(oracle(size, taken).shape, -1)
    found = pieces.pieces(taken, length)
    for number, inside, region in found:
        chunk = whole[number * length : (number + 1) * length]
        out[... if region is None else region] = chunk[inside]
    np.testing.assert_array_equal(out, oracle(size, taken))
    assert [piece.number for piece in found] == np.unique(oracle(size, taken) // length).tolist()


@given(axes(), st.integers(1, 7))
def test_slabs_put_together_are_what_was_taken(given, length):
    """No chunk is read by two of them, and none that holds nothing of it by any; there are no fewer such slabs."""
    size, taken = given
    whole, out = np.arange(size), np.full(oracle(size, taken).shape, -1)
    touched = []
    for start, stop, inside, region in pieces.slabs(taken, length):
        out[... if region is None else region] = whole[start:stop][inside]
        touched.append(range(start // length, (stop - 1) // length + 1))
    np.testing.assert_array_equal(out, oracle(size, taken))
    wanted = np.unique(oracle(size, taken) // length)
    assert [number for slab in touched for number in slab] == wanted.tolist()
    assert len(touched) == 1 + int((np.diff(wanted) > 1).sum())


@given(st.lists(axes(), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 40))
def test_runs_hold_the_bytes_that_are_taken(given, itemsize, gap):
    """With no gap allowed they hold no other byte; with one, what lies between two runs is longer."""
    shape, taken = [size for size, _ in given], [one for _, one in given]
    flat = np.arange(np.prod(shape)).reshape(shape)
    wanted = np.unique(flat[np.ix_(*(np.atleast_1d(oracle(*one)) for one in given))])
    needed = {item * itemsize + byte for item in wanted.tolist() for byte in range(itemsize)}
    runs = pieces.byte_runs(taken, shape, itemsize, gap)
    held = [byte for start, stop in runs.tolist() for byte in range(start, stop)]
    assert held == sorted(set(held)) and needed <= set(held)
    assert {held[0], held[-1]} <= needed
    assert gap or set(held) == needed
    assert (runs[1:, 0] - runs[:-1, 1] > gap).all()


@given(st.lists(axes(), min_size=1, max_size=4))
def test_taking_is_numpys_one_axis_after_another(given):
    """Lists, slices and ints in any mixture: each is along its own axis."""
    rows = np.arange(2 * np.prod([size for size, _ in given])).reshape(
        2, *(size for size, _ in given)
    )
    insides = [
        one if isinstance(one, int) else pieces.as_index(np.array(one, np.int64))
        for _, one in given
    ]
    expected = rows
    for axis, (_, taken) in reversed(list(enumerate(given, 1))):
        expected = expected.take(taken if isinstance(taken, int) else list(taken), axis=axis)
    np.testing.assert_array_equal(pieces.take(rows, insides), expected)


@given(st.lists(axes(), min_size=1, max_size=3), st.randoms())
def test_putting_writes_to_each_axis_region(given, random):
    """Slices and lists in any mixture; what is not in all of the regions stays as it was."""
    shape, regions = [2], []
    for size, taken in given:
        places = sorted({*([taken] if isinstance(taken, int) else taken)})
        random.shuffle(places)
        regions.append(pieces.as_index(np.array(places, np.int64)))
        shape.append(size)
    indices = np.ix_(
        range(2), *(np.arange(n)[one] for n, one in zip(shape[1:], regions, strict=True))
    )
    out, expected = np.zeros(shape, int), np.zeros(shape, int)
    rows = np.arange(1, 1 + expected[indices].size).reshape(expected[indices].shape)
    expected[indices] = rows
    pieces.put(out, regions, rows)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("elements", [[0], [5], [3, 2, 1, 0], [1, 3, 5], [2, 2], [0, 2, 3], [4, 2]])
def test_an_index_takes_the_elements_that_it_was_made_of(elements):
    """Whether it is a slice or an array; descending to 0, a stop of -1 would mean the end."""
    np.testing.assert_array_equal(np.arange(6)[pieces.as_index(np.array(elements))], elements)
