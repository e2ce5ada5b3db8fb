"""Rows of chunks of any array along any axis: put together, they are the array."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.reading.selection import Selection
from globidx.disk.stores.base import NotPlainError
from globidx.disk.stores.grid import ChunkGrid


@st.composite
def grids(draw):
    """An array, its chunks, the axis of its rows, and a place along axis 0 or None."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    chunks = tuple(draw(st.integers(1, 7)) for _ in shape)
    axis = draw(st.integers(0, len(shape) - 1))
    place = draw(st.none() | st.integers(0, shape[0] - 1)) if axis else None
    return np.arange(1, np.prod(shape) + 1).reshape(shape), chunks, axis, place


def stored(array, chunks, coordinates):
    """A chunk as it is stored: whole, what lies beyond the array is -1."""
    padded = np.full([-(-n // c) * c for n, c in zip(array.shape, chunks, strict=True)], -1)
    padded[tuple(map(slice, array.shape))] = array
    corner = zip(coordinates, chunks, strict=True)
    return padded[tuple(slice(at * c, (at + 1) * c) for at, c in corner)]


@given(given=grids(), data=st.data())
def test_spans_of_a_row_of_chunks_are_the_rows_of_the_array(given, data):
    """Any spans of rows, at one place or along all, come out as numpy has them, and no chunk is named twice."""
    array, chunks, axis, place = given
    grid = ChunkGrid(array.shape, chunks, axis)
    if place is not None:
        grid = grid.at(place)
    rows = np.moveaxis(array if place is None else array[place], axis - (place is not None), 0)
    row = data.draw(st.integers(0, (len(rows) - 1) // grid.length))
    first, end = row * grid.length, min((row + 1) * grid.length, len(rows))
    spans, wanted = [], []
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(first, end - 1))
        stop = data.draw(st.integers(start + 1, end))
        spans.append((start, stop, sum(map(len, wanted))))
        wanted.append(rows[start:stop])
    out = np.zeros((sum(map(len, wanted)), *rows.shape[1:]), array.dtype)
    seen = []
    for coordinates, region in grid.row(row):
        seen.append(coordinates)
        grid.put(grid.rows_of(stored(array, chunks, coordinates)), region, row, spans, out)
    np.testing.assert_array_equal(out, np.concatenate(wanted))
    assert len(set(seen)) == len(seen)
    if place is not None:
        assert {at[0] for at in seen} == {place // chunks[0]}


@given(given=grids())
def test_whole_and_direct_chunks_are_what_they_say(given):
    """A whole chunk is all of a row of chunks; of a direct one the bytes are those of its rows."""
    array, chunks, axis, place = given
    grid = ChunkGrid(array.shape, chunks, axis)
    if place is not None:
        grid = grid.at(place)
    rows = np.moveaxis(array if place is None else array[place], axis - (place is not None), 0)
    if not grid.is_whole:
        assert not grid.is_direct
        return
    for row in range(len(rows) // grid.length):
        assert [at for at, _ in grid.row(row)] == [grid.only(row)]
        chunk = stored(array, chunks, grid.only(row))
        expected = rows[row * grid.length : (row + 1) * grid.length]
        held = grid.rows_of(chunk)
        np.testing.assert_array_equal(held[tuple(map(slice, expected.shape))], expected)
        if grid.is_direct:
            np.testing.assert_array_equal(chunk.ravel(), expected.ravel())


def test_another_place_leaves_the_grid_alone():
    """Sources of many sequences share one."""
    whole = ChunkGrid((4, 6), (1, 2), 1)
    first = whole.at(3)
    assert [at for at, _ in first.row(1)] == [(3, 1)]
    assert [at for at, _ in whole.at(2).row(1)] == [(2, 1)]
    assert [at for at, _ in whole.row(1)] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    assert (whole.is_whole, first.is_whole) == (False, True)


@pytest.mark.parametrize(("shape", "axis"), [((3,), 1), ((0, 3), 1), ((3, 0), 0), ((), 0)])
def test_arrays_without_rows_of_anything_are_left_to_their_library(shape, axis):
    """No axis there, or nothing beside it."""
    with pytest.raises(NotPlainError):
        ChunkGrid(shape, (1,) * len(shape), axis)


@given(given=grids(), data=st.data())
def test_of_a_selection_only_chunks_that_hold_some_of_it_are_named(given, data):
    """Put together they are what numpy takes; a whole one is all that is selected of a row of chunks."""
    array, chunks, axis, place = given
    rows = np.moveaxis(array if place is None else array[place], axis - (place is not None), 0)
    taken = []
    for size in rows.shape[1:]:
        element = st.integers(0, size - 1)
        first = data.draw(element)
        some = st.builds(
            range, st.just(first), st.integers(first + 1, size), st.sampled_from([1, 2])
        )
        lists = st.lists(element, min_size=1, max_size=4).map(tuple)
        taken.append(data.draw(st.one_of(some, lists, element)))
    selection = Selection(rows.shape[1:], tuple(taken))
    grid = ChunkGrid(array.shape, chunks, axis)
    grid = grid.select(selection) if place is None else grid.at(place).select(selection)
    expected = rows
    for at, one in reversed(list(enumerate(taken, 1))):
        expected = expected.take(one if isinstance(one, int) else list(one), axis=at)
    row = data.draw(st.integers(0, (len(rows) - 1) // grid.length))
    first, end = row * grid.length, min((row + 1) * grid.length, len(rows))
    out = np.zeros((end - first, *expected.shape[1:]), array.dtype)
    seen = []
    for coordinates, found in grid.row(row):
        seen.append(coordinates)
        chunk = grid.rows_of(stored(array, chunks, coordinates))
        grid.put(chunk, found, row, [(first, end, 0)], out)
    np.testing.assert_array_equal(out, expected[first:end])
    beside = [
        other
        for other in range(array.ndim)
        if other not in (0 if place is not None else axis, axis)
    ]
    wanted = [
        {
            element // chunks[other]
            for element in np.atleast_1d(
                np.arange(array.shape[other])[one if isinstance(one, int) else list(one)]
            ).tolist()
        }
        for other, one in zip(beside, taken, strict=True)
    ]
    assert len(set(seen)) == len(seen) == grid.width == np.prod([len(one) for one in wanted])
    for other, numbers in zip(beside, wanted, strict=True):
        assert {at[other] for at in seen} == numbers
    if grid.is_whole and end - first == grid.length:
        assert seen == [grid.only(row)]
        if grid.is_direct:
            chunk = stored(array, chunks, seen[0])
            np.testing.assert_array_equal(chunk.ravel(), expected[first:end].ravel())
