"""What ids mean: Samples of a table against lists, and fingerprints that tell growth from all else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.episodes import Episodes
from globidx.core.index.layout import Inner
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.windows.anchors import Window
from globidx.core.windows.sampling import Sampling

WINDOWS = st.sampled_from(
    [
        Window(0),
        Window(range(3)),
        Window((-1, 2), stride=2),
        Window(range(2), pad="edge"),
        Window((-2, 1), pad="zero", before=1, after=0, stride=3),
        Window({"x": 0, "y": (1, 3)}),
        Window("all"),
    ]
)
LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=5)


def arrays(chunk=4):
    return tuple(ArrayInfo(name, (2,), "float32", chunk, name) for name in "xy")


def files(lengths, names=None, chunk=4):
    """A table of files of these lengths."""
    named = [f"{number}.h5" for number in range(len(lengths))] if names is None else names
    return Table.of(named, [Entry("hdf5", one, arrays(chunk), bytes(16)) for one in lengths])


def buffer(lengths, rows=None):
    """A table of one file with such episodes."""
    starts = np.cumsum([0, *lengths])[:-1]
    episodes = Episodes.of(starts, lengths, arrays=2)
    total = sum(lengths) if rows is None else rows
    inner = Inner("ends", ("ends",))
    return Table.of(
        ["a.h5"], [Entry("hdf5", total, arrays(), bytes(16), inner=inner, episodes=episodes)]
    )


def meaning(samples, table):
    """(sequence name, anchor, places of the rows that it takes and that are there) of each id."""
    told = []
    window, names = samples.window, samples.sequences.names
    for id in range(len(samples.index)):
        sequence, anchor = samples.index.anchors.locate(id)
        rows = []
        if not window.is_whole:
            for name in "xy":
                found = samples.index.rows([id], window.of(name))
                units = samples.sequences.units.files_of(found.files[0])
                some = zip(units.tolist(), found.rows[0].tolist(), found.inside[0], strict=True)
                rows += [(table.names[file], row) for file, row, inside in some if inside]
        told.append((names[sequence], anchor, rows))
    return told


def is_prefix(old, new):
    return len(old) <= len(new) and all(
        one[:2] == other[:2] and set(one[2]) <= set(other[2])
        for one, other in zip(old, new, strict=False)
    )


@given(one=LENGTHS, other=LENGTHS, window=WINDOWS, kind=st.sampled_from(["file", "chain", "ends"]))
def test_a_fingerprint_of_first_samples_is_equal_exactly_if_they_are(one, other, window, kind):
    """Any two sets of files: that of the first samples of one is that of the other if and only if the ids mean the same."""
    made = []
    for lengths in (one, other):
        table = buffer(lengths) if kind == "ends" else files(lengths)
        chains = [""] * len(table) if kind == "chain" else None
        made.append((Sampling(window, chains=chains).of(table), table))
    (first, table), (second, longer) = made
    old, new = meaning(first, table), meaning(second, longer)
    if len(old) > len(new):
        return
    same = second.fingerprint(len(old)) == first.fingerprint()
    if window.is_whole and kind != "chain":
        return  # a whole sequence is the same sample when it grew
    if same:
        assert is_prefix(old, new)
    elif is_prefix(old, new):
        # padding alone may hide that a file of a chain took the place of another, or a start moved
        assert kind == "chain" and window.pad


@given(lengths=LENGTHS, window=WINDOWS, data=st.data())
def test_growth_keeps_every_first_fingerprint(lengths, window, data):
    """Rows behind the last file of a chain, or the last episode, and all that comes later."""
    more = [*lengths[:-1], lengths[-1] + data.draw(st.integers(0, 5)), *data.draw(LENGTHS)]
    pairs = [
        (Sampling(window).of(buffer(lengths)), Sampling(window).of(buffer(more))),
        (Sampling(window).of(files(lengths)), Sampling(window).of(files(more))),
        tuple(
            Sampling(window, chains=["all"] * len(some)).of(files(some)) for some in (lengths, more)
        ),
    ]
    for old, new in pairs:
        for count in range(len(old.index) + 1):
            assert old.fingerprint(count) == new.fingerprint(count)
            if count:
                assert old.fingerprint(count) != old.fingerprint(count - 1)


def test_a_fingerprint_tells_what_is_read():
    """Other names, windows, dtypes and missing rows; not another folder, chunks, or where arrays lie in their file."""
    base = Sampling(Window(range(3))).of(files([6, 7], ["a/1.h5", "a/2.h5"]))
    same = [
        Sampling(Window(range(3))).of(files([6, 7], ["b/1.h5", "b/2.h5"])),
        Sampling(Window(range(3))).of(files([6, 7], ["a/1.h5", "a/2.h5"], chunk=0)),
        Sampling(Window((0, 1, 2), mask=False)).of(files([6, 7], ["1.h5", "2.h5"])),
        Sampling(Window(range(3)), missing=np.array([], np.int64)).of(
            files([6, 7], ["1.h5", "2.h5"])
        ),
    ]
    other = [
        Sampling(Window(range(3))).of(files([6, 7], ["a/1.h5", "a/3.h5"])),
        Sampling(Window(range(3))).of(files([6, 7], ["a/1.h5", "b/2.h5"])),
        Sampling(Window((0, 2, 1))).of(files([6, 7])),
        Sampling(Window(range(3), stride=2)).of(files([6, 7])),
        Sampling(Window(range(3), pad="edge", before=0, after=0)).of(files([6, 7])),
        Sampling(Window({"x": range(3), "y": range(3)})).of(files([6, 7])),
        Sampling(Window(range(3)), missing=np.array([5])).of(files([6, 7])),
        Sampling(Window(range(3)), order=np.array([1, 0])).of(files([6, 7])),
        Sampling(Window(range(3)), chains=["", ""]).of(files([6, 7])),
        Sampling(Window(range(3)), kept=np.array([1])).of(files([6, 7])),
    ]
    assert {one.fingerprint() for one in same} == {base.fingerprint()}
    every = [one.fingerprint() for one in other]
    assert base.fingerprint() not in every
    assert len(set(every)) == len(every)


@given(
    lengths=LENGTHS,
    window=WINDOWS,
    kept=st.lists(st.integers(0, 4)),
    lost=st.sets(st.integers(0, 44)),
)
def test_samples_of_some_sequences_are_those_of_all_less_the_others(lengths, window, kept, lost):
    """Missing rows are counted over all files, used or not; where and by_sequence agree with the anchors."""
    table = files(lengths)
    lost = np.array(sorted(row for row in lost if row < sum(lengths)), np.int64)
    chosen = np.array([number for number in kept if number < len(lengths)], np.int64)
    every = Sampling(window, missing=lost).of(table)
    some = Sampling(window, kept=chosen, missing=lost).of(table)
    everything = meaning(every, table)
    expected = [one for number in chosen.tolist() for one in everything if one[0] == f"{number}.h5"]
    assert meaning(some, table) == expected
    assert (some.num_found, some.num_missing) == (len(lengths), len(lost))
    assert len(some.by_sequence) == len(expected)
    for id, (name, anchor, rows) in enumerate(expected):
        where = some.where(id, table.names)
        assert (where.path, where.anchor) == (name, anchor)
        if not window.is_whole:
            told = where.rows if not isinstance(where.rows, dict) else where.rows["x"]
            inside = [row for row in told.tolist() if (name, row) in rows]
            assert inside or not rows or isinstance(where.rows, dict)


@pytest.mark.parametrize(
    ("sampling", "table", "message"),
    [
        (Sampling(Window(range(9))), files([5, 7]), "takes 9 rows, 0 to 8 .* 2 sequences has 7"),
        (
            Sampling(Window(0), kept=np.array([], np.int64)),
            files([5]),
            "leaves none of 1 sequences",
        ),
        (Sampling(Window(0), missing=np.arange(5)), files([5]), "has 5 and 5 rows are missing"),
        (Sampling(Window(range(9))), files([0, 0]), None),
        (Sampling(Window(range(9))), buffer([], rows=5), None),
        (Sampling(Window(range(9), pad="edge")), files([1]), None),
    ],
)
def test_rows_without_samples_are_an_error(sampling, table, message):
    """Unless there are none yet."""
    samples = sampling.of(table)
    if message is None:
        samples.refuse_none()
        return
    with pytest.raises(ValueError, match=message):
        samples.refuse_none()
