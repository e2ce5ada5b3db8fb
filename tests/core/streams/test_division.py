"""Blocks of a stream are dealt to workers in turn, none twice and none to nobody."""

from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.streams import division


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=4),
    size=st.integers(1, 7),
    workers=st.integers(1, 5),
)
def test_each_place_is_one_workers_and_batches_in_turn_are_the_stream(lengths, size, workers):
    """Streams one after another, written out and cut into batches by hand."""
    places = [(stream, place) for stream, length in enumerate(lengths) for place in range(length)]
    expected = [[] for _ in range(workers)]
    for block, begin in enumerate(range(0, len(places), size)):
        expected[block % workers] += places[begin : begin + size]
    for worker in range(workers):
        got, before = [], 0
        for stream, length in enumerate(lengths):
            for start, stop in division.runs(
                length, size=size, worker=worker, workers=workers, before=before
            ):
                assert 0 <= start < stop <= length
                got += [(stream, place) for place in range(start, stop)]
            before += length
        assert got == expected[worker]


@settings(max_examples=60)
@given(length=st.integers(0, 60), size=st.integers(1, 7), workers=st.integers(1, 5))
def test_shares_are_the_lengths_of_the_runs(length, size, workers):
    """Counted one by one."""
    assert division.shares(length, size=size, workers=workers) == [
        sum(
            stop - start
            for start, stop in division.runs(length, size=size, worker=worker, workers=workers)
        )
        for worker in range(workers)
    ]
