"""The sequences of some files, against lists: their rows, names, files, and where each begins."""

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import Inner
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.windows.sequence_table import Lazy, SequenceTable

X = ArrayInfo("x", (3,), "float32", 4, "x")


def entry(length, *, episodes=None, missing=(), inner=None):
    """A file with so many rows, and what is in it."""
    return Entry(
        "hdf5",
        length,
        (X,),
        bytes(16),
        inner=inner or Inner(missing="gone"),
        episodes=episodes,
        missing=Missing.of(list(missing)),
    )


@st.composite
def tables(draw):
    """A table, an order of its files or None, and (name, file, places) of each sequence, in that order."""
    kind = draw(st.sampled_from(["file", "ends", "match"]))
    folders = ["", "a/", "a/b/"]
    count = draw(st.integers(1, 5))
    names = [draw(st.sampled_from(folders)) + f"{number}.h5" for number in range(count)]
    order = draw(st.none() | st.permutations(range(count)))
    entries, inside = [], []
    for name in names:
        rows = draw(st.integers(0, 9))
        if kind == "file":
            entries.append(entry(rows, missing=gone(draw, rows)))
            inside.append([(name, range(rows))])
            continue
        if kind == "match":
            lengths = draw(st.lists(st.integers(0, 4), max_size=3))
            starts = np.cumsum([0, *lengths])[:-1].tolist()
            rows = sum(lengths)
        else:
            starts = draw(st.lists(st.integers(0, rows), max_size=3))
            lengths = [draw(st.integers(0, rows - start)) for start in starts]
        called = [f"g{number}" for number in range(len(lengths))] if kind == "match" else ()
        episodes = Episodes.of(
            starts,
            lengths,
            names=called,
            chunk_lengths=[[number] for number in range(len(lengths))] if called else None,
        )
        entries.append(entry(rows, episodes=episodes, missing=gone(draw, rows)))
        inside.append(
            [
                (called[number] if called else str(number), range(start, start + length))
                for number, (start, length) in enumerate(zip(starts, lengths, strict=True))
            ]
        )
    table = Table.of(names, entries)
    expected = [
        (name, file, [(file, row) for row in rows])
        for file in (range(count) if order is None else order)
        for name, rows in inside[file]
    ]
    return table, order, expected


def gone(draw, rows):
    return draw(st.lists(st.integers(0, rows - 1), max_size=3)) if rows else []


def places(found, sequence):
    """(file, row of the file) of each row of a sequence."""
    start, length = found.sequences.starts[sequence], found.sequences.lengths[sequence]
    units, rows = found.units.index.locate_many(np.arange(start, start + length))
    told = []
    for unit, row in zip(units.tolist(), rows.tolist(), strict=True):
        file, number = found.units.place(unit)
        episodes = found.table.episodes
        if found.units.numbers is not None:
            row += int(episodes.of_file(file).starts[number])
        told.append((file, row))
    return told


@given(given=tables(), data=st.data())
def test_sequences_are_runs_of_rows_of_files(given, data):
    """Names, files and rows are those of the lists, in any order of files, and of any choice of sequences."""
    table, order, expected = given
    found = SequenceTable.of(table, None if order is None else np.array(order))
    chosen = data.draw(st.lists(st.sampled_from(range(len(expected))))) if expected else []
    for some, lists in (
        (found, expected),
        (found.take(np.array(chosen, np.int64)), [expected[number] for number in chosen]),
    ):
        assert len(some) == len(lists)
        assert list(some.names) == [name for name, _, _ in lists]
        assert some.files.tolist() == [file for _, file, _ in lists]
        assert [places(some, number) for number in range(len(lists))] == [one for *_, one in lists]
        full = [
            table.names[file] if table.episodes is None else f"{table.names[file]}\0{name}"
            for name, file, _ in lists
        ]
        assert [one.decode() for one in some.spelled()] == full
        assert [one.decode() for one in some.spelled(2)] == full[:2]


@given(given=tables())
def test_missing_rows_are_counted_over_all_files_in_their_order(given):
    """Those that each file tells, moved to where its rows begin."""
    table, order, _ = given
    found = SequenceTable.of(table, None if order is None else np.array(order))
    starts = np.cumsum(table.missing.counts) - table.missing.counts
    expected, first = [], 0
    for file in range(len(table)) if order is None else order:
        own = table.missing.rows[starts[file] : starts[file] + table.missing.counts[file]]
        expected += (first + own).tolist()
        first += int(table.lengths[file])
    assert found.missing_rows().tolist() == expected


@given(
    lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    data=st.data(),
)
def test_chains_are_files_one_behind_the_other(lengths, data):
    """Chains by their first file, files of a chain in their order; a chain begins where its first row is."""
    count = len(lengths)
    chains = data.draw(st.lists(st.sampled_from("abc"), min_size=count, max_size=count))
    order = data.draw(st.none() | st.permutations(range(count)))
    table = Table.of([f"{number}.h5" for number in range(count)], [entry(one) for one in lengths])
    found = SequenceTable.of(table, None if order is None else np.array(order), chains)
    expected = {}
    for file in range(count) if order is None else order:
        expected.setdefault(chains[file], []).extend((file, row) for row in range(lengths[file]))
    assert list(found.names) == list(expected)
    assert [places(found, number) for number in range(len(found))] == list(expected.values())
    for file, rows in zip(found.files.tolist(), expected.values(), strict=True):
        assert not rows or file == rows[0][0]


@given(given=tables(), data=st.data())
def test_origins_say_all_that_places_a_sequence(given, data):
    """Equal exactly if files, names in them and first rows are: not of other files, nor from other rows."""
    table, order, expected = given
    order = None if order is None else np.array(order)
    found = SequenceTable.of(table, order)
    held = [number for number, (*_, rows) in enumerate(expected) if rows]
    if not held:
        return
    numbers = np.array(held)
    whole = found.origins(numbers, found.sequences.lengths[numbers])
    short = found.origins(numbers, np.ones_like(numbers))
    assert whole == short, "a sequence of one file lies where its first row does"
    assert len(set(whole)) == len({(file, name) for name, file, rows in expected if rows})
    moved = data.draw(st.sampled_from(held))
    if table.episodes is not None and not table.episodes.is_apart:
        starts = table.episodes.starts.copy()
        starts[found.labels[moved]] += 1
        episodes = replace(table.episodes, starts=starts)
        longer = replace(table, episodes=episodes, lengths=table.lengths + 1)
        other = SequenceTable.of(longer, order).origins(numbers, np.ones_like(numbers))
        changed = [one != two for one, two in zip(whole, other, strict=True)]
        assert changed == [number == moved for number in held]


def test_origins_are_counted_from_the_folder_of_their_files():
    """Files that come elsewhere, and rows behind the ones asked for, change nothing."""
    one = Table.of(["1.h5", "2.h5"], [entry(3), entry(2)])
    more = Table.of(["run/1.h5", "run/2.h5", "z.h5"], [entry(3), entry(9), entry(1)])
    for chains in (None, "all"):
        names = [None if chains is None else [chains] * len(table) for table in (one, more)]
        first, second = (
            SequenceTable.of(table, None, name)
            for table, name in zip((one, more), names, strict=True)
        )
        count = 2 if chains is None else 1
        rows = np.array([3, 2] if chains is None else [5])
        assert first.origins(np.arange(count), rows) == second.origins(np.arange(count), rows)
    inserted = Table.of(["1.h5", "1b.h5", "2.h5"], [entry(3), entry(1), entry(2)])
    chain = [SequenceTable.of(table, None, [""] * len(table)) for table in (one, inserted)]
    origins = [found.origins(np.array([0]), np.array([5])) for found in chain]
    assert origins[0] != origins[1]
    assert chain[0].origins(np.array([0]), np.array([3])) == chain[1].origins(
        np.array([0]), np.array([3])
    ), "the first file alone is the same"
    empty = Table.of(["1.h5", "1b.h5", "2.h5"], [entry(3), entry(0), entry(2)])
    assert (
        SequenceTable.of(empty, None, [""] * 3).origins(np.array([0]), np.array([5])) == origins[0]
    )


def test_lazy_strings_are_a_sequence():
    """Made when they are read, by index from either end, by slice, and in a short repr."""
    made = []
    names = Lazy(5, lambda row: made.append(row) or f"n{row}")
    assert (len(names), made) == (5, [])
    assert (names[1], names[-1], names[1:3], made) == ("n1", "n4", ["n1", "n2"], [1, 4, 1, 2])
    assert repr(names) == "['n0', 'n1', 'n2', ...]"
    assert "n3" in names
