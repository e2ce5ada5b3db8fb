"""Codes of files, as those of the categories of all: a name is never taken for another."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.categories import Categories, spelled

NAMES = st.lists(st.sampled_from(["B", "T", "NK", "é", "", "a\0b"]), unique=True, max_size=5)
FILES = st.lists(st.tuples(NAMES, st.none() | NAMES), min_size=1, max_size=6)


def made(files):
    return Categories.of(
        [
            [spelled(np.array(one, object)) if one is not None else "" for one in two]
            for two in files
        ]
    )


@given(FILES)
def test_a_code_keeps_its_name(files):
    """The joined code of each code of each file leads to the name that the file has for it."""
    found = made(files)
    for column in (0, 1):
        names = found.joined_names(column)
        assert len(set(names)) == len(names)
        assert set(names) == {name for two in files for name in two[column] or ()}
        for file, two in enumerate(files):
            codes = found.codes(file, column)
            if two[column] is None:
                assert codes is None and found.names_in(file, column) == []
            else:
                assert [names[code] for code in codes] == two[column]
                assert found.names_in(file, column) == two[column]


@given(FILES, st.data())
def test_codes_of_the_first_files_do_not_depend_on_the_others(files, data):
    """So files may be appended: names come behind those that were there."""
    count = data.draw(st.integers(1, len(files)))
    some, every = made(files[:count]), made(files)
    names = some.joined_names(0)
    assert every.joined_names(0)[: len(names)] == names
    for file in range(count):
        assert every.codes(file, 0).tolist() == some.codes(file, 0).tolist()


@given(FILES, st.data())
def test_parts_joined_are_the_whole(files, data):
    """However files are scanned in parts, and whichever of them are taken."""
    cut = data.draw(st.integers(0, len(files)))
    parts = [made(part) for part in (files[:cut], files[cut:]) if part]
    rows = data.draw(st.permutations(range(len(files))))
    joined = Categories.joined(parts).take(np.array(rows))
    expected = made([files[row] for row in rows])
    for column in (0, 1):
        assert joined.joined_names(column) == expected.joined_names(column)
        assert joined.odd_ones(column) == expected.odd_ones(column)
    # a list that several files have is kept once
    lists = {tuple(one) for two in files for one in two if one is not None}
    assert len(Categories.joined(parts).texts) == len(lists)


def test_files_without_names_have_no_categories():
    """Nor have files of which those of a part are not known."""
    assert Categories.of([("", ""), ("", "")]) is None
    assert Categories.joined([None, made([(["B"], None)])]) is None


@given(FILES)
def test_odd_ones_have_other_names_than_the_first_file_with_any(files):
    """Files without names are not among them."""
    for column in (0, 1):
        first, odd = made(files).odd_ones(column)
        named = [file for file, two in enumerate(files) if two[column] is not None]
        assert odd == [file for file in named if files[file][column] != files[named[0]][column]]
        assert not named or first == named[0]
