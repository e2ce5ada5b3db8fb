"""Which samples are taken: the sequence of files, sides, and what ``only=`` and ``missing=`` leave out."""

import re

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from globidx.core.index.layout import parse
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.disk.files.paths import Paths
from globidx.disk.index.samples import SampleSpec, Side

X = ArrayInfo("x", (), "float32", 0, "x")


def table_of(names, length=2):
    return Table.of(names, [Entry("hdf5", length, (X,), bytes(16))] * len(names))


def sampling(names, named="/data", **options):
    """What is taken of files of these names below /data."""
    _, spec = SampleSpec.of(parse(None, "x"), **{"sequences": "file"} | options)
    table = table_of(names)
    return spec.sampling(table, Paths("/data", table.names), named), table


def by_value(name):
    return [int(part) if part.isdigit() else part for part in re.split(r"([0-9]+)", name)]


@given(names=st.sets(st.text("a019/", min_size=1, max_size=5), min_size=1, max_size=8))
@example(names={"1a", "a1"})
@example(names={"a10", "a09", "a11"})
@example(names={"a10", "a9", "a1b"})
def test_files_that_were_searched_are_ordered_by_the_value_of_their_numbers(names):
    """Whether or not their numbers are padded; as many digits at the same places need no other order."""
    listed = sorted(names)
    taken, _ = sampling(listed)
    order = range(len(listed)) if taken.order is None else taken.order.tolist()
    found = [listed[row] for row in order]
    assert sorted(found) == listed
    keys = [by_value(name) for name in found]
    assert keys == sorted(keys)


def test_files_that_were_listed_stay_as_they_were_listed():
    """The user gave the order."""
    taken, _ = sampling(["b10", "b9"], named=["/data/b10", "/data/b9"])
    assert taken.order is None


@given(
    fraction=st.floats(0, 1),
    seed=st.integers(0, 99),
    names=st.sets(st.sampled_from([f"{number}.h5" for number in range(30)]), min_size=2),
)
def test_sides_are_told_by_names_alone(fraction, seed, names):
    """Both sides together are all; a side of some files is that of all of them, less the others."""
    _, spec = SampleSpec.of(parse(None, "x"), sequences="file")

    def side(listed, is_first):
        some = table_of(sorted(listed))
        taken = spec.on_side(Side(fraction, seed, is_first)).sampling(
            some, Paths("/data", some.names), "/data"
        )
        found = taken.found(some)
        kept = range(len(found)) if taken.kept is None else taken.kept.tolist()
        return {found.name(number) for number in kept}

    whole = {f"{number}.h5" for number in range(30)}
    for is_first in (True, False):
        assert side(names, is_first) == side(whole, is_first) & names
    assert side(names, True) | side(names, False) == names
    assert not side(names, True) & side(names, False)
    # far off with a chance of one in millions
    assert abs(len(side(whole, True)) - 30 * fraction) < 15


@pytest.mark.parametrize(
    ("only", "kept"),
    [
        (["a", "c"], [0, 2]),
        (("c",), [2]),
        ({"b": 1}, [1]),
        (lambda name: name > "a", [1, 2]),
        (lambda name: name and 1, None),
        (["a", "b", "c", "a"], None),
    ],
)
def test_only_keeps_what_it_names(only, kept):
    """Any iterable of names, or a function; all of them is no choice."""
    taken, _ = sampling(["a", "b", "c"], only=only)
    assert (None if taken.kept is None else taken.kept.tolist()) == kept


@pytest.mark.parametrize("missing", [[5, 0, 5], range(0, 6, 5), np.array([0, 5], "u1"), {0, 5}])
def test_missing_rows_are_a_set(missing):
    """However they are listed."""
    taken, _ = sampling(["a", "b", "c"], missing=missing)
    assert taken.missing.tolist() == [0, 5]
