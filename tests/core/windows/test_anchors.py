"""Samples are anchors in sequences, numbered by arithmetic: as a list of all windows numbers them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.windows.anchors import Anchors, Window

OFFSETS = st.one_of(
    st.integers(-4, 4),
    st.lists(st.integers(-5, 5), min_size=1, max_size=4).map(tuple),
    st.builds(
        lambda start, size, step: range(start, start + size * step, step),
        st.integers(-4, 3),
        st.integers(1, 4),
        st.integers(1, 3),
    ),
)


@st.composite
def windows(draw):
    """Any window of small offsets, and rows that its padding may add."""
    offsets = draw(st.one_of(OFFSETS, st.dictionaries(st.sampled_from("abc"), OFFSETS, min_size=1)))
    pad = draw(st.sampled_from([None, "edge", "zero"]))
    reach = (
        {}
        if pad is None
        else draw(
            st.fixed_dictionaries(
                {}, optional={"before": st.integers(0, 6), "after": st.integers(0, 6)}
            )
        )
    )
    return Window(offsets, stride=draw(st.integers(1, 4)), pad=pad, **reach)


@st.composite
def stores(draw):
    """Lengths of sequences, and (sequence, row) pairs that are missing."""
    lengths = draw(st.lists(st.integers(0, 12), max_size=6))
    rows = [(sequence, row) for sequence, length in enumerate(lengths) for row in range(length)]
    ends = [
        (sequence, row) for sequence, row in rows if row in (0, lengths[sequence] - 1)
    ]  # which padding repeats
    return lengths, draw(
        st.lists(st.sampled_from(ends) | st.sampled_from(rows), max_size=4)
    ) if rows else []


def spread(window):
    """All offsets of all fields."""
    given = window.offsets.values() if isinstance(window.offsets, dict) else [window.offsets]
    return [one for some in given for one in ([some] if isinstance(some, int) else some)]


def every_anchor(window, lengths, missing):
    """By the definition of SAMPLES: all t in a wide range, each tried."""
    offsets = spread(window)
    lo, hi = min(offsets), max(offsets)
    before, after = (0, 0) if window.pad is None else (window.before, window.after)
    listed = []
    for sequence, length in enumerate(lengths):
        possible = (
            [
                t
                for t in range(-40, length + 40)
                if t + lo >= -before and t + hi <= length - 1 + after
            ]
            if length
            else []
        )
        for t in possible[:: window.stride]:
            rows = [t + o for o in offsets]
            if window.pad == "edge":
                rows = [min(max(row, 0), length - 1) for row in rows]
            if not {(sequence, row) for row in rows} & set(missing):
                listed.append((sequence, t))
    return listed


@settings(max_examples=300)
@given(window=windows(), store=stores())
def test_ids_number_all_anchors_in_sequence(window, store):
    """Whatever the padding, strides, offsets of fields and missing rows; one at a time, many, and back."""
    lengths, missing = store
    pairs = np.array(missing, np.int64).reshape(-1, 2)
    anchors = Anchors(lengths, window, missing=(pairs[:, 0], pairs[:, 1]))
    expected = every_anchor(window, lengths, missing)
    assert len(anchors) == len(expected)
    assert [anchors.locate(id) for id in range(len(anchors))] == expected
    assert (
        list(
            zip(
                *(column.tolist() for column in anchors.locate_many(range(len(anchors)))),
                strict=True,
            )
        )
        == expected
    )
    assert [anchors.sample_id(*pair) for pair in expected] == list(range(len(expected)))
    tried = [(sequence, t) for sequence in range(len(lengths)) for t in range(-12, 24)]
    told = anchors.sample_ids(*np.array(tried, np.int64).reshape(-1, 2).T) if tried else []
    assert list(told) == [expected.index(pair) if pair in expected else -1 for pair in tried]
    for sequence, t in tried:
        if (sequence, t) not in expected:
            with pytest.raises(IndexError):
                anchors.sample_id(sequence, t)


@given(window=windows(), length=st.integers(1, 12))
def test_rows_are_those_around_the_anchor(window, length):
    """Beyond an end they are the row at it, and not inside."""
    anchors = Anchors([length], window)
    _, at = anchors.locate_many(range(len(anchors)))
    for name in window.offsets if isinstance(window.offsets, dict) else ["any"]:
        offsets = window.of(name)
        rows, inside = window.rows(offsets, at, np.full(len(at), length))
        for number, t in enumerate(at.tolist()):
            reached = [t + o for o in ([offsets] if isinstance(offsets, int) else offsets)]
            assert rows[number].tolist() == [min(max(row, 0), length - 1) for row in reached]
            assert inside[number].tolist() == [0 <= row < length for row in reached]
            assert window.pad is not None or inside[number].all()


def test_a_billion_windows_cost_their_sequences():
    """10^5 sequences of 10^4 rows: the memory of a few columns, and ids at both ends."""
    anchors = Anchors(np.full(10**5, 10**4), Window(range(16), pad="edge"))
    assert len(anchors) == 10**9
    assert anchors.locate(10**9 - 1) == (10**5 - 1, 10**4 - 1)
    assert anchors.sample_id(10**5 - 1, 10**4 - 1) == 10**9 - 1


@pytest.mark.parametrize(
    ("arguments", "options", "error"),
    [
        (("0",), {}, TypeError),
        ((1.5,), {}, TypeError),
        (((),), {}, ValueError),
        (({},), {}, ValueError),
        ((0,), {"stride": 0}, ValueError),
        ((0,), {"pad": "reflect"}, ValueError),
        ((0,), {"before": 1}, ValueError),
        ((0,), {"pad": "edge", "after": -1}, ValueError),
        ((0,), {"mask": 1}, TypeError),
        ((2**50,), {}, ValueError),
    ],
)
def test_arguments_are_checked(arguments, options, error):
    """One error, before anything is read."""
    with pytest.raises(error):
        Window(*arguments, **options)


@pytest.mark.parametrize(
    "missing", [([2], [0]), ([0], [3]), ([-1], [0]), ([0], [-1]), ([0, 0], [1])]
)
def test_missing_rows_must_exist(missing):
    """Otherwise the sample ids would be those of another store."""
    with pytest.raises((IndexError, ValueError)):
        Anchors([3, 4], Window(0), missing=tuple(np.array(column) for column in missing))
