"""Passes of a size of their own, against one long list of the epochs under them."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.orders.base import Left
from globidx.core.orders.chunk_shuffle import ChunkShuffle
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.mixture import Mixture
from globidx.core.orders.passes import Passes
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.errors import RecordError


def lanes(batch):
    """One rank that reads batches of a size."""
    return lambda: Lanes(1, 1, batch)


def ids_of(planned, num_samples, seed=3):
    """All ids of a planned pass."""
    bound = planned.bind(num_samples, seed=seed, epoch=0)
    return bound.take(range(len(bound))).tolist()


def epochs_of(order, num_samples, count, seed=3):
    """The ids of the first epochs of an order, one after another."""
    bound = [order.bind(num_samples, seed=seed, epoch=epoch) for epoch in range(count)]
    return [id for one in bound for id in one.take(range(len(one))).tolist()]


@given(
    num_samples=st.integers(1, 30),
    sizes=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    order=st.sampled_from([Shuffle(), Sequential()]),
    data=st.data(),
)
def test_passes_are_one_long_list_whatever_their_sizes(num_samples, sizes, order, data):
    """Left anywhere, also by a record, the next pass goes on there, at a size of its own."""
    everything = epochs_of(order, num_samples, sum(sizes) // num_samples + 2)
    at, following, left = 0, None, Left(0, 0)
    for size in sizes:
        passes = Passes(order, size=size)
        following = passes if following is None else passes.after(following, left, 0)
        planned = following.plan(range(num_samples), num_samples, Lanes)
        assert ids_of(planned, num_samples) == everything[at : at + size]
        described = json.loads(json.dumps(planned.describe()))
        assert passes.matches(described)
        again = passes.recorded(described, range(num_samples), num_samples)
        assert again == planned and ids_of(again, num_samples) == everything[at : at + size]
        left = Left(0, data.draw(st.integers(0, size)))
        at += left.position
        following = again


def test_steps_are_global_batches_of_each_pass():
    """The size follows the batch when a pass begins, and where it begins does not depend on it."""
    passes, following, at, size = Passes(Shuffle(), steps=5), None, 0, 0
    everything = epochs_of(Shuffle(), 50, 3)
    for batch in (4, 6, 3):
        following = passes if following is None else passes.after(following, Left(0, size), 0)
        planned = following.plan(range(50), 50, lanes(batch))
        size = planned.length(50)
        assert size == 5 * batch
        assert ids_of(planned, 50) == everything[at : at + size]
        at, following = at + size, planned


def test_appended_files_begin_with_the_next_epoch_under_the_passes():
    """The one that runs keeps its samples, also in a record."""
    passes = Passes(Shuffle(), size=6)
    first = passes.plan(range(10), 10, Lanes)
    second = passes.after(first, Left(0, 6), 0).plan(range(14), 14, Lanes)
    second = passes.recorded(second.describe(), range(14), 14)
    old, new = Shuffle().bind(10, seed=3, epoch=0), Shuffle().bind(14, seed=3, epoch=1)
    expected = [*old.take(range(6, 10)), *new.take(range(2))]
    assert ids_of(second, 14) == expected
    third = passes.after(second, Left(0, 6), 0).plan(range(14), 14, Lanes)
    assert ids_of(third, 14) == new.take(range(2, 8)).tolist()


@given(st.integers(1, 12), st.integers(1, 40), st.integers(0, 3), st.data())
def test_occurrences_and_inverse_are_those_of_looking(num_samples, size, epoch, data):
    """Of samples that a pass has once, several times, or not at all."""
    bound = Passes(Shuffle(), size=size).bind(num_samples, seed=3, epoch=epoch)
    ids = bound.take(range(size))
    asked = data.draw(st.lists(st.integers(0, num_samples - 1), unique=True))
    found = bound.occurrences(np.array(asked, np.int64))
    assert sorted(found.tolist()) == np.flatnonzero(np.isin(ids, asked)).tolist()
    for id in asked:
        at = np.flatnonzero(ids == id)
        if len(at):
            assert bound.position(id) == at[0]
        else:
            with pytest.raises(ValueError, match=f"sample {id} is not drawn"):
                bound.position(id)


def test_a_chunk_shuffle_keeps_its_plan_to_the_end_of_its_epoch():
    """Other ranks and workers plan the next epoch, not the one that is half read."""
    order = ChunkShuffle(window=2, chunk=4)
    passes = Passes(order, size=25)
    four = lambda: Lanes(ranks=4, workers=1, batch=8)  # noqa: E731
    two = lambda: Lanes(ranks=2, workers=2, batch=8)  # noqa: E731
    first = passes.plan(range(40), 40, four)
    second = passes.after(first, Left(0, 25), 0).plan(range(40), 40, two)
    under = order.plan(range(40), 40, four).bind(40, seed=3, epoch=0)
    later = order.plan(range(40), 40, two).bind(40, seed=3, epoch=1)
    assert ids_of(second, 40) == [*under.take(range(25, 40)), *later.take(range(10))]


def test_a_mixture_under_passes_takes_other_weights():
    """From where the pass was left, and in all passes after it."""

    def mixed(weights):
        return Mixture([60, 60], weights, stop="CYCLE_FOREVER", num_samples=80)

    old, new = (Passes(mixed(weights), size=40) for weights in ([0.5, 0.5], [0.1, 0.9]))
    first = old.plan(range(120), 120, Lanes)
    assert new.matches(first.describe())
    gone_on = new.go_on(new.recorded(first.describe(), None, 120), Left(0, 20), Lanes)
    second = new.after(gone_on, Left(0, 40), 0).plan(range(120), 120, Lanes)
    third = new.after(second, Left(0, 40), 0).plan(range(120), 120, Lanes)
    assert ids_of(gone_on, 120)[:20] == ids_of(first, 120)[:20]
    lately = [*ids_of(gone_on, 120)[20:], *ids_of(second, 120), *ids_of(third, 120)]
    assert [sum(id < 60 for id in part) for part in (lately[:20], lately[20:60], lately[60:])] == [
        2,
        4,
        4,
    ]
    # 16 draws of the first dataset, and 64 of the second, whose second pass has begun
    assert len(set(lately[:60]) | set(ids_of(first, 120)[:20])) == 16 + 60


def test_wrong_sizes_are_refused():
    """By a sentence."""
    with pytest.raises(ValueError, match="one of them, and not both"):
        Passes(Shuffle(), size=3, steps=3)
    with pytest.raises(ValueError, match="one of them, and not both"):
        Passes(Shuffle())
    with pytest.raises(ValueError, match="epoch_size must be in"):
        Passes(Shuffle(), size=0)
    with pytest.raises(ValueError, match="has passes of its own"):
        Passes(Passes(Shuffle(), size=3), size=3)
    with pytest.raises(ValueError, match="over 4096 epochs of 2"):
        Passes(Shuffle(), size=10_000).bind(2, seed=0, epoch=0)


@pytest.mark.parametrize(
    ("name", "value"),
    [("order", "{"), ("then", "[]"), ("position", -1), ("num_samples", 11), ("size", 0)],
)
def test_an_edited_record_is_refused(name, value):
    """It names what."""
    passes = Passes(Shuffle(), size=3)
    described = passes.plan(range(10), 10, Lanes).describe()
    described["plan"] |= {name: value}
    with pytest.raises(RecordError, match=f"plan: {name}"):
        passes.recorded(described, range(10), 10)
