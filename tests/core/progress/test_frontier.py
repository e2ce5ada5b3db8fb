"""The frontier of an epoch, against a set of positions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress.frontier import left_at, rearranged
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress
from globidx.core.progress.view import EpochView

LENGTH = 40


@st.composite
def histories(draw):
    """Progress of several segments, skips and taken positions; what is committed; what is left."""
    arrangement = draw(st.sampled_from([Sequential(), Shuffle()])).bind(LENGTH, seed=3, epoch=1)
    progress, remaining, committed = Progress(LENGTH), list(range(LENGTH)), set()
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["even", "uneven", "taken", "skip"]))
        if kind == "skip":
            ids = draw(st.sets(st.integers(0, LENGTH - 1), max_size=4))
            ids -= set(progress.left_out.ids().tolist())
            gone = {int(at) for at in arrangement.occurrences(np.array(sorted(ids), np.int64))}
            gone &= set(remaining)
            progress = progress.skip(Ranges.of(sorted(ids)), len(gone))
        elif kind == "taken":
            at = (
                draw(st.sets(st.integers(0, max(0, len(remaining) - 1)), max_size=4))
                if remaining
                else set()
            )
            gone = {remaining[index] for index in at}
            progress = progress.take(Ranges.of(sorted(at)))
            committed |= gone
        else:
            world = draw(st.integers(1, 4))
            dealt = [remaining[rank::world] for rank in range(world)]
            most = min(map(len, dealt))
            count = draw(st.integers(0, min(4, most)))
            counts = [
                count if kind == "even" else draw(st.integers(0, min(4, len(own)))) for own in dealt
            ]
            gone = {at for own, many in zip(dealt, counts, strict=True) for at in own[:many]}
            progress = progress.extend(counts)
            committed |= gone
        remaining = [at for at in remaining if at not in gone]
    return arrangement, progress, committed, remaining


@given(histories())
def test_the_frontier_is_behind_the_last_committed_position(history):
    """With the positions before it that remain."""
    arrangement, progress, committed, remaining = history
    left = left_at(progress, arrangement, seed=3, epoch=1)
    assert left.position == max(committed, default=-1) + 1
    assert left.holes == sum(at < left.position for at in remaining)
    assert (left.seed, left.epoch) == (3, 1)


@given(histories(), st.integers(0, 20))
def test_a_rearranged_progress_leaves_out_the_same_ids(history, more):
    """Behind the frontier they stand elsewhere, or there are more positions."""
    arrangement, progress, committed, _ = history
    position = max(committed, default=-1) + 1
    order = np.concatenate(
        [np.arange(position), position + np.random.default_rng(0).permutation(LENGTH - position)]
    )

    class Changed(type(arrangement)):
        def __init__(self):
            self.num_samples, self.length = LENGTH, LENGTH + more

        def forward(self, positions):
            return arrangement.forward(order[positions % LENGTH])

        def inverse(self, ids):
            return np.argsort(order)[arrangement.inverse(ids)]

        def occurrences(self, ids):
            first = self.inverse(ids)
            return np.concatenate([first, first[first < more] + LENGTH])

    changed = Changed()
    again = rearranged(progress, changed)
    assert again.committed == progress.committed and again.length == LENGTH + more
    view = EpochView(changed, again)
    left = view.stream(0, again.remaining, rank=0, world_size=1).tolist() if again.remaining else []
    out = set(progress.left_out.ids().tolist())
    assert not out & set(left)
    ids = changed.forward(np.arange(LENGTH + more)).tolist()
    gone = set(committed)
    assert sorted(left) == sorted(
        id for at, id in enumerate(ids) if at not in gone and id not in out
    )
