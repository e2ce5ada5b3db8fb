"""What a record may hold: the writer and the reader agree, and the error says what to do."""

import pytest

from globidx import errors
from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.progress import limits
from globidx.core.progress.merge import merge_states
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress, Segment, Skip
from globidx.core.progress.state import SamplerState

UNEVEN = Segment((0, 5))


TOO_MUCH = {
    "segments of uneven ranks": [UNEVEN] * (limits.MAX_UNEVEN + 1),
    "uneven segments": [Segment((0, *[2] * 4095))] * (limits.MAX_RANKS // 4096 + 1),
    "segments and skips": [Segment((1,)), Skip(Ranges(((0, 1),)), 0)]
    * (limits.MAX_LAYERS // 2 + 1),
    "ids left out": [Skip(Ranges(((0, limits.MAX_IDS + 1),)), 0)],
    "ranges of ids left out": [
        Skip(Ranges(tuple((2 * n, 2 * n + 1) for n in range(limits.MAX_RANGES))), 0)
    ]
    * 3,
    "ids left out times": [UNEVEN] * 100 + [Skip(Ranges(((0, limits.MAX_LOOKUPS // 90),)), 0)],
}


@pytest.mark.parametrize("what", TOO_MUCH)
def test_what_is_more_than_a_reader_takes_is_not_written(what):
    """The writer and the reader have one limit, and the sentence says what there is too much of and what to do."""
    history = TOO_MUCH[what]
    done = sum(layer.committed for layer in history if isinstance(layer, Segment))
    progress = Progress(2**60, tuple(history), committed=done)
    state = SamplerState(DatasetIdentity(2**60), {}, 0, 0, "pad", progress)
    with pytest.raises(
        errors.RecordError,
        match=f"{what}.* the most that a record may hold is .*; .*(save|use|leave)",
    ):
        state.to_dict()
    fits = SamplerState(DatasetIdentity(2**60), {}, 0, 0, "pad", Progress(2**60)).to_dict()
    layers = [
        list(layer.counts)
        if isinstance(layer, Segment)
        else ["skip", 0, list(map(list, layer.ids.pairs))]
        for layer in history
    ]
    with pytest.raises(errors.RecordError, match="at most|the most|a list of 0 to"):
        SamplerState.from_dict(fits | {"segments": layers})


def test_a_run_that_cannot_be_saved_can_be_once_its_ranks_have_caught_up():
    """The longest history there may be, and a rank that again gets nowhere: refused; when it has read on, all is one number."""
    progress = Progress(10**6, (UNEVEN,) * limits.MAX_UNEVEN, committed=5 * limits.MAX_UNEVEN)
    state = SamplerState(DatasetIdentity(10**6), {}, 0, 0, "pad", progress, world_size=2)
    assert SamplerState.from_dict(state.to_dict()).progress == progress
    ranks = [state.commit(count, rank).to_dict() for rank, count in enumerate((0, 7))]
    with pytest.raises(
        errors.RecordError, match="save again when the ranks that are behind have gone on"
    ):
        merge_states(ranks)
    ranks = [state.commit(count, rank).to_dict() for rank, count in enumerate((20, 27))]
    assert len(merge_states(ranks)["segments"]) == 2
