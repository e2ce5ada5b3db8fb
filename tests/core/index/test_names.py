"""Many names in one block of bytes, against a list of them."""

import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.names import Names, common_folder

#: Bytes of file names: any but NUL, "/" among them, also what is no UTF-8, and the empty name of a bare array's path.
name = st.binary(max_size=6).map(lambda data: os.fsdecode(data.replace(b"\0", b"/")))
names = st.lists(name, max_size=8)


@given(names, st.data())
def test_names_are_a_list(every, data):
    """Length, each place from both ends, slices, iteration, ``index`` and ``in`` are those of the list."""
    kept = Names.of(every)
    assert len(kept) == len(every) and list(kept) == every and kept[:] == every
    assert [kept[place] for place in range(-len(every), len(every))] == every + every
    cut = slice(
        *(data.draw(st.none() | st.integers(-9, 9)) for _ in range(2)),
        data.draw(st.sampled_from([None, 2, -1])),
    )
    assert kept[cut] == every[cut]
    for word in every:
        assert kept.index(word) == every.index(word) and word in kept
    for outside in (len(every), -len(every) - 1):
        with pytest.raises(IndexError):
            kept[outside]
    assert list(pickle.loads(pickle.dumps(kept))) == every
    assert list(Names(*kept.arrays())) == every


@given(names, st.data())
def test_parts_are_slices(every, data):
    """``encoded``, ``part`` and ``spelled`` of any stretch are the bytes of that slice, and a part is Names again."""
    kept = Names.of(every)
    start = data.draw(st.integers(0, len(every)))
    stop = data.draw(st.integers(start, len(every)))
    raw = [os.fsencode(word) for word in every]
    assert kept.encoded(start, stop) == raw[start:stop]
    part = kept.part(start, stop)
    assert (
        list(part) == every[start:stop] and [part[n] for n in range(len(part))] == every[start:stop]
    )
    assert part.encoded(0, len(part)) == raw[start:stop]
    assert bytes(kept.spelled(stop)) == b"".join(word + b"\0" for word in raw[:stop])


@given(st.lists(names, min_size=1, max_size=4))
def test_joined_names_are_one_list(parts):
    """One after the other, and parts of other names join like any."""
    every = [word for part in parts for word in part]
    joined = Names.joined([Names.of(part) for part in parts])
    assert list(joined) == every and [joined[n] for n in range(len(every))] == every
    again = Names.joined(
        [joined.part(0, len(every) // 2), joined.part(len(every) // 2, len(every))]
    )
    assert list(again) == every and again.encoded(0, len(every)) == joined.encoded(0, len(every))


@given(names.filter(bool), st.data())
def test_take_takes_any_places(every, data):
    """In any sequence, also twice."""
    places = data.draw(st.lists(st.integers(0, len(every) - 1)))
    assert list(Names.of(every).take(np.array(places, np.int64))) == [
        every[place] for place in places
    ]


@given(names, names, names)
def test_shared_names_are_counted_by_whole_names(first, one, other):
    """However alike the next ones begin: ``shared_with`` is the length of the common beginning of the lists."""
    left, right = first + one, first + other
    expected = 0
    while expected < min(len(left), len(right)) and left[expected] == right[expected]:
        expected += 1
    assert Names.of(left).shared_with(Names.of(right)) == expected
    cut = Names.of(["x", *left]).part(1, len(left) + 1)  # one whose bytes lie inside others
    assert cut.shared_with(Names.of(right)) == Names.of(right).shared_with(cut) == expected


path = st.lists(st.sampled_from(["a", "b", "ab", "é", "\udcff", ""]), min_size=1, max_size=4).map(
    "/".join
)


@given(st.lists(path, max_size=5))
def test_the_common_folder_is_the_longest_that_begins_every_name(paths):
    """Tried one folder after the other."""
    folders = (
        [paths[0][: place + 1] for place, letter in enumerate(paths[0]) if letter == "/"]
        if paths
        else []
    )
    fitting = [folder for folder in folders if all(path.startswith(folder) for path in paths)]
    assert common_folder(paths) == len(max(fitting, key=len, default=""))
