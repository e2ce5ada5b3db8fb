"""One epoch of ChunkShuffle answers for any positions, in any sequence of calls, as it does for all of them at once."""

import chunk_oracle
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index.chunking import Chunking
from globidx.core.orders import chunk_epoch
from globidx.core.orders.chunk_epoch import ChunkShuffled
from globidx.core.orders.ground import Tiling
from globidx.core.orders.lanes import Lanes

files = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from([1, 4, 4, 7])), min_size=1, max_size=5
)
all_lanes = st.builds(
    Lanes, ranks=st.integers(1, 3), workers=st.integers(1, 3), batch=st.integers(1, 12)
)


def epoch_of(files, window, lanes):
    """An epoch over files of these lengths and chunk lengths."""
    lengths, chunks = zip(*files, strict=True)
    chunking = Chunking.of(lengths, np.array(chunks, np.int64).reshape(-1, 1))
    share = max(1, lanes.batch // lanes.ranks)
    return ChunkShuffled(Tiling.of(chunking, window, share), lanes, seed=3, epoch=1)


@given(files=files, window=st.integers(1, 4), lanes=all_lanes, data=st.data())
def test_no_call_depends_on_the_calls_before_it(files, window, lanes, data):
    """Windows of the last call are kept; whatever was asked before, a position has the id that the lists say."""
    arrangement = epoch_of(files, window, lanes)
    lengths, chunks = zip(*files, strict=True)
    whole = chunk_oracle.order(lengths, chunks, window, lanes, 3, 1)
    some = st.lists(st.integers(0, len(whole) - 1), max_size=20) if whole else st.just([])
    for positions in data.draw(st.lists(some, max_size=4)):
        ids = arrangement.forward(np.array(positions, np.int64))
        assert ids.tolist() == [whole[position] for position in positions]
        assert arrangement.inverse(ids).tolist() == positions


def test_many_windows_are_computed_some_at_a_time(monkeypatch):
    """However many windows a call needs, the ids are those of calls that need one each."""
    arrangement = epoch_of([(500, 4), (301, 7)], 2, Lanes(2, 2, 8))
    whole = arrangement.forward(np.arange(801))
    monkeypatch.setattr(chunk_epoch, "_AT_ONCE", 1)
    again = epoch_of([(500, 4), (301, 7)], 2, Lanes(2, 2, 8))
    assert again.forward(np.arange(801)).tolist() == whole.tolist()
    assert again.inverse(whole).tolist() == list(range(801))


@given(wanted=st.lists(st.integers(0, 9), min_size=1, max_size=8), units=st.integers(0, 60))
def test_units_are_dealt_as_evenly_as_lanes_want_them(wanted, units):
    """None is dealt twice or to who does not want it, and too few are dealt as far as they go."""
    dealt = chunk_epoch._dealt(np.array(wanted, np.int64), units).tolist()
    assert all(0 <= has <= wants for has, wants in zip(dealt, wanted, strict=True))
    assert sum(dealt) <= units
    if sum(wanted) <= units:
        assert dealt == wanted


@given(keys=st.lists(st.one_of(st.integers(0, 30), st.integers(0, 2**60)), max_size=40))
def test_distinct_keys_are_found_by_marking_as_by_sorting(keys):
    """Close keys are marked and far ones sorted, with one result: numpy's."""
    array = np.array(keys, np.int64)
    distinct, rows = chunk_epoch._distinct(array)
    assert distinct.tolist() == sorted(set(keys))
    assert distinct[rows].tolist() == keys
