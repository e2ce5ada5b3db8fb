"""Progress over shards is a set of rows, as a dictionary of all rows would have it."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.progress.ranges import Ranges
from globidx.core.streams.shard_progress import Row, ShardProgress
from globidx.errors import CommitError

LENGTHS = st.lists(st.integers(1, 4), min_size=1, max_size=6)


@settings(max_examples=60)
@given(lengths=LENGTHS, taken=st.lists(st.integers(0, 5), max_size=25))
def test_rows_are_counted_one_by_one(lengths, taken):
    """Shards are read in turns, as far as they go."""
    progress, counts = ShardProgress(), [0] * len(lengths)
    for shard in taken:
        if shard < len(lengths) and counts[shard] < lengths[shard]:
            row = counts[shard]
            progress = progress.commit([Row(shard, row, row + 1 == lengths[shard])])
            counts[shard] += 1
    is_done = [count == length for count, length in zip(counts, lengths, strict=True)]
    assert [progress.is_done(shard) for shard in range(len(lengths) + 1)] == [*is_done, False]
    assert progress.begun == {
        shard: count for shard, count in enumerate(counts) if count and not is_done[shard]
    }
    assert progress.prefix == [*is_done, False].index(False)
    assert progress.stop == max((shard + 1 for shard, n in enumerate(counts) if n), default=0)


def test_nothing_changes_where_a_commit_is_refused():
    """A batch with a row out of turn counts not at all."""
    progress = ShardProgress()
    with pytest.raises(CommitError, match="row 2"):
        progress.commit([Row(0, 0, False), Row(0, 2, False)])
    assert progress == ShardProgress()


def test_rows_that_were_committed_before_are_not_the_next_ones():
    """Of shard 4, which had three rows when it was dealt."""
    progress = ShardProgress().commit([Row(4, 3, False), Row(4, 4, True)], {4: 3}.get)
    assert progress == ShardProgress(Ranges(((4, 5),)))
    with pytest.raises(CommitError, match=r"row 0 .* number 4, of which rows \[0, 3\)"):
        ShardProgress().commit([Row(4, 0, False)], {4: 3}.get)
