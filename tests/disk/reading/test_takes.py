"""Each sample is given its own rows, whatever others take, and each row is read once."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.reading.planning import plan
from globidx.disk.reading.takes import Take, rows_of

PLACES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 6)), min_size=1, max_size=12)


def planned(pairs):
    """The plan of (file, item) pairs, and rows that say which each is."""
    made = plan(*(np.array(column, np.int64) for column in zip(*pairs, strict=True)))
    rows = np.stack([made.files * 100 + made.items, -made.items], axis=1)
    return made, rows


def wanted(pairs):
    """What each is given, one by one."""
    return [[file * 100 + item, -item] for file, item in pairs]


@given(PLACES)
@settings(deadline=None)
def test_each_sample_is_given_its_row_and_may_write_to_it(pairs):
    """The distinct rows are fewer; what one sample's holder writes, no other sees."""
    made, rows = planned(pairs)
    got = rows_of(Take(made, made.places).given(rows))
    assert [one.tolist() for one in got] == wanted(pairs)
    for number, one in enumerate(got):
        one[...] = number
    assert [one.tolist() for one in got] == [[number] * 2 for number in range(len(pairs))]


@given(PLACES)
@settings(deadline=None)
def test_targets_say_where_a_row_goes_unless_it_goes_to_two_places(pairs):
    """Rows that are read to their targets are those of the samples, as they come."""
    made, rows = planned(pairs)
    targets = Take(made, made.places).targets
    assert (targets is None) == (len(set(pairs)) < len(pairs))
    if targets is not None:
        block = np.empty_like(rows)
        block[targets] = rows
        assert block.tolist() == wanted(pairs)


@given(st.permutations([(0, 0), (0, 1), (2, 5), (2, 6)]), st.booleans())
@settings(deadline=None)
def test_windows_have_their_rows_in_their_sequence(pairs, in_order):
    """Two rows each, also where they are read as they come."""
    pairs = sorted(pairs) if in_order else pairs
    made, rows = planned(pairs)
    got = rows_of(Take(made, made.places.reshape(-1, 2)).given(rows))
    assert np.stack(got).tolist() == np.reshape(wanted(pairs), (-1, 2, 2)).tolist()


@given(PLACES, st.data())
@settings(deadline=None)
def test_what_lies_outside_is_given_what_stands_for_nothing(pairs, drawn):
    """Windows of two rows, some of which are not there and were not read."""
    pairs = pairs[: len(pairs) // 2 * 2] or [*pairs, *pairs]
    inside = np.array(drawn.draw(st.lists(st.booleans(), min_size=len(pairs), max_size=len(pairs))))
    if not inside.any():
        inside[0] = True
    read = [pair for pair, is_inside in zip(pairs, inside, strict=True) if is_inside]
    made, rows = planned(read)
    places = np.zeros(len(pairs), np.intp)
    places[inside] = made.places
    take = Take(made, places.reshape(-1, 2), inside.reshape(-1, 2))
    got = np.stack(rows_of(take.given(rows, np.array(7))))
    expected = np.full((len(pairs), 2), 7)
    expected[inside] = wanted(read)
    assert got.tolist() == expected.reshape(-1, 2, 2).tolist()
    if take.targets is not None:
        block = np.empty((len(pairs), 2), rows.dtype)
        block[take.targets] = rows
        assert np.stack(rows_of(take.shaped(block, 7))).tolist() == got.tolist()


@pytest.mark.parametrize("counts", [(1, 1, 1), (2, 0, 1), (3,)])
def test_sequences_of_many_lengths_are_cut_where_each_ends(counts):
    """All rows of all samples lie one behind the other."""
    made, rows = planned([(0, 0), (0, 1), (0, 2)])
    got = rows_of(Take(made, made.places, None, np.array(counts)).given(rows))
    assert [len(one) for one in got] == list(counts)
    assert np.concatenate(got).tolist() == rows.tolist()
