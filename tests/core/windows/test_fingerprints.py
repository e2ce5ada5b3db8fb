"""What tells the samples of an index from those of another: its fingerprint, held against a list of all rows."""

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from globidx.core.index.episodes import Episodes
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.windows.anchors import Window
from globidx.core.windows.sampling import Sampling
from tests.core.windows.test_anchors import windows

ARRAYS = (ArrayInfo("x", (), "int64", 4, "x"),)


def table_of(files, episodes=None):
    """Files of these names and lengths."""
    entries = [
        Entry("hdf5", rows, ARRAYS, bytes(16), ((0, 0, 0, 0),), episodes=episodes)
        for _, rows in files
    ]
    return Table.of([name for name, _ in files], entries)


def chained(files, window):
    """Samples of files that are one chain."""
    return Sampling(window, chains=[""] * len(files)).of(table_of(files))


def rows_of(samples, id):
    """The rows that a sample takes, by the name of their file; None where padding stands for one."""
    window, index = samples.window, samples.index
    names = window.offsets if isinstance(window.offsets, dict) else ["any"]
    listed = []
    for name in names:
        taken = index.rows([id], window.of(name))
        for file, row, inside in zip(*(part[0].tolist() for part in taken), strict=True):
            listed.append((samples.sequences.table.names[file], row) if inside else None)
    return listed


@st.composite
def edits(draw):
    """Files, and these files after something was done to one of them."""
    names = draw(st.lists(st.sampled_from("abcdefg"), min_size=1, max_size=5, unique=True))
    files = [(name, draw(st.integers(0, 6))) for name in names]
    at = draw(st.integers(0, len(files) - 1))
    (name, rows), more = files[at], draw(st.integers(1, 4))
    after = {
        "grown": [*files[:at], (name, rows + more), *files[at + 1 :]],
        "renamed": [*files[:at], ("x", rows), *files[at + 1 :]],
        "inserted": [*files[:at], ("x", more), *files[at:]],
        "removed": [*files[:at], *files[at + 1 :], ("x", rows)],
        "swapped": files[::-1],
        "appended": [*files, ("x", more)],
    }
    kind = draw(st.sampled_from(sorted(after)))
    return (
        kind,
        files,
        after[kind],
        kind == "appended" or (kind == "grown" and at == len(files) - 1),
    )


def tells_all(window):
    """Whether the number of samples tells which rows there were: not so where strides end in padding."""
    return window.pad is None or window.stride == 1


@settings(max_examples=300)
@given(edit=edits(), window=windows().filter(tells_all))
def test_equal_fingerprints_are_equal_rows(edit, window):
    """A chain of files of which one was grown, renamed, inserted, removed or moved has another, unless no id shows it."""
    kind, before, after, is_growth = edit
    old, new = chained(before, window), chained(after, window)
    count = len(old.index)
    if count > len(new.index):
        return
    is_same = new.fingerprint(count) == old.fingerprint()
    event(f"{kind}: {is_same}")
    assert is_same or not is_growth
    for id in range(count) if is_same else ():
        for was, now in zip(rows_of(old, id), rows_of(new, id), strict=True):
            assert was in (now, None)


def test_a_chain_that_is_appended_moves_nothing():
    """The folder that all files shared gets a name only when there is a second one."""
    first = [("01.nc", 4), ("02.nc", 4)]
    both = [("a/01.nc", 4), ("a/02.nc", 4), ("b/01.nc", 4)]
    window = Window(range(3))
    old = Sampling(window, chains=["", ""]).of(table_of(first))
    new = Sampling(window, chains=["a", "a", "b"]).of(table_of(both))
    assert new.fingerprint(len(old.index)) == old.fingerprint()


@pytest.mark.parametrize("starts", [[0, 5], [2, 5]])
def test_runs_that_begin_elsewhere_are_other_samples(starts):
    """Of the same lengths, in the same file."""
    one, other = (
        Sampling(Window(range(2))).of(table_of([("a", 9)], Episodes.of(some, [3, 4])))
        for some in ([0, 5], starts)
    )
    assert (one.fingerprint() == other.fingerprint()) == (starts == [0, 5])
    assert rows_of(one, 0) == [("a", 0), ("a", 1)]
    assert np.array_equal(one.index.anchors.counts, [2, 3])
