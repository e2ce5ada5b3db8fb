"""Progress over shards is a set of rows, as a dictionary of all rows would have it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.streams.shard_progress import Part, ShardProgress, dealt
from globidx.errors import CommitError

LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(max_examples=60)
@given(lengths=LENGTHS, taken=st.lists(st.integers(0, 5), max_size=25), cut=st.integers(0, 25))
def test_rows_are_counted_one_by_one(lengths, taken, cut):
    """Shards are read in turns, as far as they go; what came after a moment, with what was before, is all."""
    progress, begin, counts = ShardProgress(), ShardProgress(), [0] * len(lengths)
    for number, shard in enumerate(taken):
        if shard < len(lengths) and counts[shard] < lengths[shard]:
            row = counts[shard]
            progress = progress.commit([(0, shard, row, row + 1 == lengths[shard])])
            counts[shard] += 1
        if number == cut:
            begin = progress
    assert progress.left(len(lengths)) == [
        Part(shard, count)
        for shard, (count, length) in enumerate(zip(counts, lengths, strict=True))
        if count < length
    ]
    assert [progress.is_done(shard) for shard in range(len(lengths))] == [
        count == length for count, length in zip(counts, lengths, strict=True)
    ]
    assert begin | progress.since(begin) == progress


def test_nothing_changes_where_a_commit_is_refused():
    """A batch with a row out of turn counts not at all."""
    progress = ShardProgress()
    with pytest.raises(CommitError, match="row 2"):
        progress.commit([(0, 0, 0, 0), (0, 0, 2, 0)])
    assert progress == ShardProgress()


def test_dealing_gives_each_to_one():
    """Like cards."""
    parts = [Part(shard, 0) for shard in range(5)]
    assert [[part.shard for part in dealt(parts, number=n, of=2)] for n in range(2)] == [
        [0, 2, 4],
        [1, 3],
    ]
