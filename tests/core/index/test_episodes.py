"""Sequences inside files, and missing rows, against lists of lists."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.episodes import Episodes, Missing

counts = st.lists(st.integers(0, 5), max_size=5)


@st.composite
def files(draw):
    """For each of some files its episodes: (start, length, listed, chunk lengths, name)."""
    is_apart, is_named = draw(st.booleans()), draw(st.booleans())
    episode = st.tuples(
        st.integers(0, 99),
        st.integers(0, 9),
        st.booleans(),
        st.tuples(st.integers(0, 9), st.integers(0, 9)),
        st.sampled_from(["a", "b/c", "demo_1", "é"]),
    )
    some = draw(st.lists(st.lists(episode, max_size=4), min_size=1, max_size=4))
    return some, is_apart, is_named


def made(episodes, is_apart, is_named):
    return Episodes.of(
        [one[0] for one in episodes],
        [one[1] for one in episodes],
        listed=np.array([one[2] for one in episodes], bool),
        chunk_lengths=[one[3] for one in episodes] if is_apart and episodes else None,
        names=[one[4] for one in episodes] if is_named else (),
        arrays=2,
    )


def told(episodes, file):
    """The episodes of a file, as tuples."""
    some = episodes.of_file(file)
    chunks = some.chunk_lengths.tolist() if some.is_apart else [None] * len(some)
    columns = (some.starts.tolist(), some.lengths.tolist(), some.listed.tolist(), chunks)
    return [(*row, some.name(number)) for number, row in enumerate(zip(*columns, strict=True))]


def expected(episodes, is_apart, is_named):
    return [
        (
            start,
            length,
            listed,
            list(chunks) if is_apart else None,
            name if is_named else str(number),
        )
        for number, (start, length, listed, chunks, name) in enumerate(episodes)
    ]


@given(given=files(), data=st.data())
def test_episodes_of_files_are_lists_of_lists(given, data):
    """Joined, taken in any sequence and looked at one by one, each file has the episodes that it was made of."""
    some, is_apart, is_named = given
    joined = Episodes.joined([made(one, is_apart, is_named) for one in some])
    order = data.draw(st.lists(st.integers(0, len(some) - 1), min_size=1, max_size=5))
    for episodes, lists in (
        (joined, some),
        (joined.take(np.array(order)), [some[file] for file in order]),
    ):
        assert len(episodes) == sum(map(len, lists))
        assert episodes.counts.tolist() == [len(one) for one in lists]
        assert episodes.files.tolist() == [file for file, one in enumerate(lists) for _ in one]
        wanted = [expected(one, is_apart, is_named) for one in lists]
        assert [told(episodes, file) for file in range(len(lists))] == wanted
        flat = [row[4] for one in wanted for row in one]
        assert [episodes.name(number) for number in range(len(flat))] == flat
        numbers = [number for one in lists for number in range(len(one))]
        assert [episodes.number(place) for place in range(len(flat))] == numbers
        start = data.draw(st.integers(0, len(flat)))
        stop = data.draw(st.integers(start, len(flat)))
        assert [one.decode() for one in episodes.spelled(start, stop)] == flat[start:stop]


@given(
    lists=st.lists(st.lists(st.integers(0, 30), max_size=6), min_size=1, max_size=4), data=st.data()
)
def test_missing_rows_are_sets(lists, data):
    """Ascending and distinct in each file, whatever was told, and they go where their file goes."""
    joined = Missing.joined([Missing.of(rows) for rows in lists])
    order = data.draw(st.permutations(range(len(lists))))
    taken = joined.take(np.array(order))
    expected = [sorted(set(lists[file])) for file in order]
    assert taken.counts.tolist() == [len(rows) for rows in expected]
    assert taken.rows.tolist() == [row for rows in expected for row in rows]
