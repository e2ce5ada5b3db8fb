"""What is wrong with an epoch is said in numbers, and what caused it by the first rank that shows it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.testing.causes import cause, is_cut, offset, wrong
from globidx.testing.loops import Part, Share


@given(
    expected=st.lists(st.integers(0, 9), max_size=12), came=st.lists(st.integers(0, 9), max_size=12)
)
def test_lost_and_repeated_are_counted(expected, came):
    """Nothing is said exactly where both have the same ids as often; else the counts are those of lists."""
    lost, repeated = list(expected), []
    for id in came:
        (lost.remove if id in lost else repeated.append)(id)
    said = wrong(Counter(expected), Counter(came))
    assert bool(said) == bool(lost or repeated)
    for ids, word in ((lost, "lost"), (repeated, "repeated")):
        assert (f"{len(ids)} {'was' if len(ids) == 1 else 'were'} {word}" in said) == bool(ids)


@given(stream=st.permutations(range(9)), cuts=st.sets(st.integers(1, 8)), data=st.data())
def test_a_cut_stream_has_no_cause_and_any_other_one_has(stream, cuts, data):
    """Whole batches, each in any sequence of its own, are right; two ids of different batches that change places are not."""
    bounds = [0, *sorted(cuts), 9]
    batches = [list(stream[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]
    share = Share(list(stream), [], [data.draw(st.permutations(batch)) for batch in batches])
    assert is_cut(share) and cause([Part(0, 1, [share], ended=True)]) == ""
    if cuts:
        batches[0][0], batches[-1][-1] = batches[-1][-1], batches[0][0]
        share = Share(list(stream), [], batches)
        assert "reorders" in cause([Part(0, 1, [share], ended=True)])


CAUSES = [
    ([[5, 1]], True, "ended 2 ids before"),
    ([[5, 1]], False, ""),
    ([[5, 3], [1, 7]], True, "reorders"),
    ([[5, 1], [1, 3], [7]], True, "repeats"),
    ([[5], [3, 7]], True, "leaves out 1 ids"),
    ([[5, 2]], True, r"did not draw \(2\)"),
]


@pytest.mark.parametrize(("batches", "ended", "found"), CAUSES)
def test_each_cause_is_told_from_the_others(batches, ended, found):
    """Of the stream 5, 1, 3, 7, by the rank that shows it: here the second."""
    right = Share([5, 1, 3, 7], [], [[5, 1], [3, 7]])
    said = cause([Part(0, 2, [right, Share([5, 1, 3, 7], [], batches)], ended=ended)])
    assert found in said.replace("(2)", r"\(2\)") and said.startswith(
        "Rank 1 of 2" if found else ""
    )


def test_a_record_is_ahead_or_behind():
    """Counted in global batches of the run that was stopped."""
    assert offset(0, 8) == ""
    assert "1 global batch behind" in offset(8, 8)
    assert "2.5 global batches ahead" in offset(-20, 8)
