"""What ranks have committed with holes in their streams, against sets of positions."""

import json
import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sampling import Sampler

from globidx import errors
from globidx.core.progress import limits
from globidx.core.progress.merge import merge_states
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.regrouped import beyond
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress, Segment, Skip, Taken
from globidx.core.progress.state import SamplerState


def left_after(progress):
    """The positions that remain, by the algebra."""
    return Remaining(progress, np.asarray).forward(np.arange(progress.remaining)).tolist()


def of_a_hand(draw, hand):
    """Which cards of a hand a rank has had: as a batch sampler leaves them that sorts within windows, or any."""
    style = draw(st.sampled_from(["first", "windows", "one kept back", "any"]))
    count = draw(st.integers(0, len(hand)))
    if style == "any":
        return [card for card in hand if draw(st.booleans())]
    cards = hand[1:] + hand[:1] if style == "one kept back" else list(hand)
    if style == "windows":
        size = draw(st.integers(2, 9))
        windows = [cards[first : first + size] for first in range(0, len(cards), size)]
        cards = [card for window in windows for card in draw(st.permutations(window))]
    return cards[:count]


@given(st.data())
def test_what_remains_is_what_nobody_has_had(data):
    """Legs on any world sizes, each rank with any cards of its hand, and ids left out between them."""
    n = data.draw(st.integers(0, 60))
    left, progress = list(range(n)), Progress(n)
    for _ in range(data.draw(st.integers(1, 5))):
        world_size = data.draw(st.integers(1, 5))
        hands = [left[rank::world_size] for rank in range(world_size)]
        had = [of_a_hand(data.draw, hand) for hand in hands]
        runs = [
            Ranges.of([place for place, card in enumerate(hand) if card in cards])
            for hand, cards in zip(hands, had, strict=True)
        ]
        firsts = [run.pairs[0][1] if run.pairs and run.pairs[0][0] == 0 else 0 for run in runs]
        counts = [data.draw(st.integers(0, first)) for first in firsts]
        progress = progress.extend(counts).take(beyond(runs, counts))
        left = sorted(set(left) - {card for cards in had for card in cards})
        if data.draw(st.integers(0, 4)) == 0 and left:
            bad = data.draw(st.sampled_from(left))
            progress, left = progress.skip(Ranges.of(bad), 1), [id for id in left if id != bad]
        assert left_after(progress) == left
        assert progress.committed + progress.skipped == n - len(left)
        _is_normal(progress)


def _is_normal(progress):
    """No two neighbours could be one, and no set begins with what is a prefix."""
    for before, after in zip(progress.history, progress.history[1:], strict=False):
        if isinstance(after, Segment) and after.is_prefix:
            assert isinstance(before, Skip) or (
                isinstance(before, Segment) and before.holes > after.committed
            )
        assert not (isinstance(before, Taken) and isinstance(after, Taken))
    for layer in progress.history:
        assert not isinstance(layer, Taken) or layer.indices.pairs[0][0] > 0


@given(
    windows=st.lists(st.permutations(range(6)), min_size=2, max_size=8),
    stops=st.lists(st.integers(0, 12), max_size=9),
)
def test_a_window_that_was_read_through_is_forgotten(windows, stops):
    """However often a run over windows is resumed, at the end of a window its history is one prefix."""
    stream = [6 * number + place for number, window in enumerate(windows) for place in window]
    progress, done = Progress(len(stream)), 0
    for stop in [*stops, len(stream)]:
        some = stream[done : done + stop]
        left = left_after(progress)
        progress = progress.take(Ranges.of([left.index(id) for id in some]))
        done += len(some)
        if done % 6 == 0:
            assert progress.history == ((Segment((done,)),) if done else ())
        assert len(progress.history) <= 2


def test_a_prefix_over_an_uneven_segment_and_a_set_before_it_makes_them_one():
    """What is behind the uneven segment takes part, and nothing of the history is left but one prefix."""
    progress = Progress(20).take(Ranges.of([1])).extend((0, 2))
    assert len(progress.history) == 2
    assert left_after(progress)[:5] == [0, 3, 5, 6, 7]
    progress = progress.extend((3,))
    assert progress.history == (Segment((6,)),)


@pytest.mark.parametrize("indices", [[(3, 9)], [(8, 9)]])
def test_more_than_remains_is_not_taken(indices):
    """Of ten positions two are committed already."""
    with pytest.raises(ValueError, match="taken indices"):
        Progress(10).extend((2,)).take(Ranges.of(indices))


def test_one_id_that_is_kept_back_costs_nothing():
    """A rare group may wait for its batch all epoch: 10^12 samples on 1,000 ranks are still a few ranges."""
    world_size, each = 1000, 10**9
    runs = [Ranges.of([range(5), range(6, each + rank % 7)]) for rank in range(world_size)]
    tracemalloc.start()
    ahead = beyond(runs, [5] * world_size)
    assert tracemalloc.get_traced_memory()[1] < 2**25
    tracemalloc.stop()
    assert ahead.size == sum(run.size for run in runs) - 5 * world_size
    assert ahead.pairs[0] == (world_size, (each - 5) * world_size)
    assert len(ahead.pairs) < 7 * world_size


def test_ranks_that_are_too_far_apart_are_refused():
    """A million rows that one rank has read and another has not are no list, if the first ids are missing."""
    runs = [Ranges.of(range(1, 2 * limits.MAX_SCATTERED)), Ranges.of(range(1, 3))]
    with pytest.raises(errors.RecordError, match=r"ahead of others.*smaller windows"):
        beyond(runs, [0, 0])
    # a segment has a count for each rank
    assert (
        beyond(
            [Ranges.of(range(2 * limits.MAX_SCATTERED)), Ranges()], [2 * limits.MAX_SCATTERED, 0]
        )
        == Ranges()
    )


def rank_of(world_size, rank, taken, n=40, **arguments):
    """A rank that has committed some ids of its stream."""
    sampler = Sampler(range(n), world_size, rank, shuffle=False, **arguments)
    indices = Ranges.of(taken)
    sampler.tracker.commit(indices.size, rank, world_size, indices)
    return sampler


def test_a_merge_takes_what_each_rank_has_had():
    """Padding is never progress, wherever in the stream it was delivered; the longest rank counts the steps."""
    ranks = [rank_of(3, 0, [0, 2], n=7), rank_of(3, 1, [2, 1], n=7), rank_of(3, 2, [1], n=7)]
    merged = merge_states([rank.state_dict() for rank in ranks])
    assert (merged["version"], merged["remaining"], merged["per_rank"]) == (2, 3, 2)
    resumed = Sampler(range(7), 1, 0, shuffle=False)
    resumed.load_state_dict(json.loads(json.dumps(merged)))
    assert list(resumed) == [1, 2, 3]


def test_a_rank_that_has_ended_the_epoch_has_had_all_of_its_ids():
    """Regrouped batches need not end at the same step on every rank."""
    ranks = [rank_of(2, 0, range(5), n=10), rank_of(2, 1, [0, 3], n=10)]
    merged = merge_states([rank.state_dict() for rank in ranks])
    assert (ranks[0].state_dict()["epoch"], merged["epoch"]) == (1, 0)
    resumed = Sampler(range(10), 1, 0, shuffle=False)
    resumed.load_state_dict(merged)
    assert list(resumed) == [3, 5, 9]


def test_one_rank_of_several_does_not_speak_for_the_others():
    """Its state is refused alone, also where its ids happen to be its first: others may have had theirs otherwise."""
    for taken in ([3], [0, 1]):
        state = rank_of(2, 0, taken).state_dict()
        with pytest.raises(errors.RecordError, match=r"one rank of 2.*CheckpointManager"):
            Sampler(range(40), 2, 0, shuffle=False).load_state_dict(state)
    alone = Sampler(range(40), 3, 1, shuffle=False)
    alone.load_state_dict(rank_of(1, 0, [0, 3]).state_dict())
    assert list(alone)[:3] == [2, 6, 9]


def test_a_single_rank_that_has_its_first_ids_writes_a_number():
    """So readers of version 1 go on reading what they know."""
    state = rank_of(1, 0, [1, 0, 2]).state_dict()
    assert (state["version"], state["open"]["count"]) == (1, 3)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"open": {"world_size": 1, "count": [[0, 2], [2, 4]]}}, "ascend"),
        ({"open": {"world_size": 1, "count": [[0, 2], [39, 41]]}}, "was dealt only 40"),
        (
            {"open": {"world_size": 1, "count": [[2, 3]]}, "version": 1},
            "version 1 knows no regrouped",
        ),
        ({"open": {"world_size": 1, "count": []}}, "must be an integer"),
        ({"segments": [["taken", [[1, 41]]]]}, "do not fit 40 positions"),
        ({"segments": [["taken", [[3, 2]]]]}, "ascend"),
        ({"segments": [["taken", []]]}, "must be a list of 1"),
        ({"segments": [["taken"]]}, "must be .*taken"),
        ({"segments": [["taken", [[1, 2]], 3]]}, "must be .*taken"),
        ({"committed": 3}, "committed is 3, but its segments say 2"),
    ],
)
def test_what_no_run_can_have_taken_is_refused(change, reason):
    """Ranges that overlap, that nobody was dealt, that the version cannot have, or that the sums contradict."""
    state = rank_of(1, 0, [1, 3]).state_dict()
    assert SamplerState.from_dict(state).to_dict() == state
    with pytest.raises(errors.RecordError, match=reason):
        SamplerState.from_dict(state | change)


def test_a_history_with_too_many_ranges_is_refused_by_writers():
    """Every second id of a rank, as nobody could regroup them within the window of a loader."""
    most = limits.MAX_RANGES * 2
    layers = [Taken(Ranges(tuple((2 * i + 1, 2 * i + 2) for i in range(most + 1))))]
    with pytest.raises(errors.RecordError, match="smaller windows"):
        limits.refuse_too_much(layers)
    limits.refuse_too_much([Taken(Ranges(layers[0].indices.pairs[:most]))])


def test_a_thousand_restarts_of_regrouped_ranks_are_a_small_record():
    """A set is one with what comes after it, so the history does not grow with the restarts."""
    dice = random.Random(3)
    progress = Progress(10**6)
    for _ in range(1000):
        runs = []
        for _ in range(4):
            first = dice.randrange(20)
            runs.append(Ranges.of([range(first), *dice.sample(range(first + 1, first + 30), 9)]))
        counts = [run.pairs[0][1] if run.pairs[0][0] == 0 else 0 for run in runs]
        progress = progress.extend(counts).take(beyond(runs, counts))
    state = SamplerState.from_dict(rank_of(1, 0, [0], n=10**6).state_dict())
    text = json.dumps(
        SamplerState(
            **{**vars(state), "progress": progress, "committed": 0, "taken": None}
        ).to_dict()
    )
    assert len(text) < 2**17
