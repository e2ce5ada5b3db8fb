"""Samplers over orders that run on under their epochs, or change in mid-epoch: on any number of ranks."""

from __future__ import annotations

from collections import Counter
from functools import partial
from itertools import islice

import numpy as np
import pytest
from files import write_hdf5
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    Window,
    merge_states,
)
from globidx.core.progress.ranges import Ranges
from globidx.errors import RecordMismatchError
from globidx.orders import (
    ChunkShuffle,
    Grouped,
    Mixture,
    Sequential,
    Shuffle,
    Weighted,
    by_sequence,
)


class Ranks:
    """The ranks of one run, each with its loader, in step with each other."""

    def __init__(self, num_samples, world_size, batch_size, record=None, **options):
        dataset = range(num_samples)
        self.samplers = [
            ResumableDistributedSampler(dataset, world_size, rank, seed=5, **options)
            for rank in range(world_size)
        ]
        self.loaders = [
            DataLoader(dataset, batch_size, sampler=sampler) for sampler in self.samplers
        ]
        if record is not None:
            for sampler in self.samplers:
                sampler.load_state_dict(record)

    def read(self, steps=None):
        """The global batches of one pass, or of its first steps; a break in its middle leaves it."""
        passes = [iter(loader) for loader in self.loaders]
        batches = []
        while steps is None or len(batches) < steps:
            parts = [next(one, None) for one in passes]
            if all(part is None for part in parts):
                break
            # rank r has every W-th of the batch, from r on
            rows = max(len(part) for part in parts if part is not None)
            batches.append(
                [
                    part[row].item()
                    for row in range(rows)
                    for part in parts
                    if part is not None and row < len(part)
                ]
            )
        # in the body of the loop's last batch
        self.record = merge_states([sampler.state_dict() for sampler in self.samplers])
        return batches


def joined(batches):
    """The ids of batches, one after another."""
    return [id for batch in batches for id in batch]


# -- epochs of the trainer's size


def test_every_sample_comes_once_before_any_comes_twice():
    """20 passes of 50 steps on 2, 3 and 1 ranks over 1,003 samples, left in the middle of passes."""
    seen, record, passes = [], None, 0
    for world_size, many in ((2, 7), (3, 7), (1, 6)):
        ranks = Ranks(1003, world_size, 4, record, epoch_steps=50, tail="exact")
        for number in range(many):
            for sampler in ranks.samplers:
                sampler.set_epoch(max(passes, sampler.epoch))
            seen += joined(ranks.read(20 if number == many - 1 else None))
            passes += 1
        record = ranks.record
    counts = Counter(seen)
    most = max(counts.values())
    assert {most - 1, most} >= set(counts.values()) and len(counts) == 1003
    for at in range(0, len(seen) - 1003, 1003):
        assert len(set(seen[at : at + 1003])) == 1003


@given(st.data())
@settings(max_examples=40)
def test_passes_of_any_size_are_one_long_list_on_any_ranks(data):
    """Sizes, ranks and batches change at each resume, in the middle of passes or between them."""
    n = data.draw(st.integers(1, 40))
    expected = [
        id
        for epoch in range(1 + 720 // n)
        for id in Shuffle().bind(n, seed=5, epoch=epoch).take(range(n)).tolist()
    ]
    seen, record = [], None
    for _ in range(data.draw(st.integers(1, 4))):
        size, world_size = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 3))
        ranks = Ranks(
            n, world_size, data.draw(st.integers(1, 5)), record, epoch_size=size, tail="exact"
        )
        for _ in range(data.draw(st.integers(0, 2))):
            seen += joined(ranks.read())
        seen += joined(ranks.read(data.draw(st.integers(0, 4))))
        record = ranks.record
    assert seen == expected[: len(seen)]


def test_a_pass_that_a_trainer_leaves_is_not_lost():
    """The epoch goes on with the first sample that was not read, whatever set_epoch says."""
    ranks = Ranks(100, 2, 5, epoch_size=40, shuffle=False)
    seen = []
    for epoch in (0, 3, 4, 17):
        for sampler in ranks.samplers:
            sampler.set_epoch(epoch)
        seen += joined(ranks.read(3))
        # what trainers do when they limit the batches of an epoch: they come back for the next pass
        for sampler in ranks.samplers:
            sampler.finish_epoch()
    # the batch that a loop held when it was left is not committed, and comes again
    assert seen == [id for start in (0, 20, 40, 60) for id in range(start, start + 30)]


# -- groups


@pytest.mark.parametrize("batch_sizes", [(6, 8, 3), (4, 4, 4), (5, 2, 7)])
@pytest.mark.parametrize("tail", ["merge", "pad", "drop"])
def test_groups_of_a_run_on_4_then_3_then_8_ranks(batch_sizes, tail):
    """One group a batch, whether the global batch is constant or not; nothing is lost."""
    labels = np.repeat([0, 1, 2], [1003, 517, 64])
    np.random.default_rng(0).shuffle(labels)
    seen, record = [], None
    worlds = (4, 3, 8)
    for number, (world_size, batch_size) in enumerate(zip(worlds, batch_sizes, strict=True)):
        ranks = Ranks(1584, world_size, batch_size, record, order=Grouped(labels, tail=tail))
        batches = ranks.read(None if number == 2 else 17)
        record = ranks.record
        mixed = [len({labels[id] for id in batch}) > 1 for batch in batches]
        whole = len(batches) - 3 if number == 2 and tail == "merge" else len(batches)
        assert sum(mixed[:whole]) <= (2 if tail == "merge" and number == 2 else 0)
        seen += joined(batches)
    counts = Counter(seen)
    if tail == "merge":
        assert len(counts) == 1584 and len(seen) <= 1584 + 7
    elif tail == "pad":
        assert len(counts) == 1584
    else:
        assert max(counts.values()) == 1 and len(counts) > 1584 - 3 * 56
    assert ranks.samplers[0].epoch in (0, 1)


@pytest.mark.parametrize("tail", ["merge", "pad", "drop"])
@pytest.mark.parametrize("when", ["before", "in the epoch before"])
def test_batches_are_of_one_group_where_samples_are_left_out(tail, when):
    """In every epoch that begins after it, on any ranks, with batches of other sizes after a resume."""
    labels = np.arange(300) % 3 // 2
    out = [(4, 9), 17, (100, 131), 299]
    gone = set(Ranges.of(out).ids().tolist())
    ranks = Ranks(300, 2, 3, order=Grouped(labels, tail=tail))
    for sampler in ranks.samplers:
        if when != "before":
            sampler.commit(3)
        sampler.skip(out)
        sampler.finish_epoch()
    seen, record, mixed = [], ranks.samplers[0].state_dict(), 0
    for world_size, batch_size, steps in ((3, 2, 11), (2, 5, 9), (1, 7, None)):
        ranks = Ranks(300, world_size, batch_size, record, order=Grouped(labels, tail=tail))
        batches = ranks.read(steps)
        record, seen = ranks.record, seen + joined(batches)
        mixed += sum(len(set(labels[batch])) > 1 for batch in batches)
    assert mixed <= (2 if tail == "merge" else 0)
    kept = set(range(300)) - gone
    assert set(seen) <= kept
    if tail == "merge":
        assert sorted(seen) == sorted(kept)
    assert len(kept - set(seen)) <= (0 if tail != "drop" else 3 * 10)
    assert ranks.samplers[0].epoch == 2 and not gone & set(joined(ranks.read()))


@pytest.mark.parametrize("labels", [None, ["short", "long", "long", "short"]])
def test_batches_are_of_one_sequence_or_of_those_with_one_label(labels, tmp_path):
    """Episodes of different lengths in two files, in windows of two rows, on 2 and then 3 ranks."""
    lengths = ((9, 14), (21, 6))
    for number, episodes in enumerate(lengths):
        data = {"x": np.zeros(sum(episodes)), "ends": np.cumsum(episodes)}
        write_hdf5(tmp_path / f"{number}.h5", data)
    manager = GlobalIndexManager(
        str(tmp_path), key="x", sequences="ends", window=Window([0, 1]), cache_dir=tmp_path / "c"
    )
    dataset = FileCacheDataset(manager)
    sequence = [manager.where(id).sequence for id in range(len(dataset))]
    kinds = [one if labels is None else labels[one] for one in sequence]
    order = Grouped(partial(by_sequence, labels=labels), tail="drop")
    seen, record = [], None
    for world_size, steps in ((2, 4), (3, None)):
        samplers = [
            ResumableDistributedSampler(dataset, world_size, rank, order=order)
            for rank in range(world_size)
        ]
        for sampler in samplers if record else ():
            sampler.load_state_dict(record)
        loaders = [DataLoader(range(len(dataset)), 1, sampler=sampler) for sampler in samplers]
        for batch in islice(zip(*loaders, strict=True), steps):
            ids = [id for part in batch for id in part.tolist()]
            assert len({kinds[id] for id in ids}) == 1
            seen += ids
            record = merge_states([sampler.state_dict() for sampler in samplers])
    assert len(set(seen)) == len(seen) > len(dataset) - 3 * 4


# -- weights that change


@pytest.mark.parametrize("worlds", [(1, 3), (3, 8), (8, 1)])
def test_a_mixture_takes_other_weights_where_a_run_is_resumed(worlds):
    """Shares are within one of exact in every 1,000 on both sides; datasets are read in whole passes."""
    sizes = (700, 400, 100)
    seen, record = [], None
    for world_size, weights in zip(worlds, [(0.6, 0.3, 0.1), (0.2, 0.3, 0.5)], strict=True):
        order = Mixture(sizes, weights, stop="CYCLE_FOREVER", num_samples=12_000)
        ranks = Ranks(1200, world_size, 24 // world_size, record, order=order)
        part = joined(ranks.read(250))
        record = ranks.record
        which = np.digitize(part, np.cumsum(sizes)[:-1])
        for one, weight in enumerate(weights):
            served = np.concatenate([[0], np.cumsum(which == one)])
            assert np.abs(served[1000:] - served[:-1000] - 1000 * weight).max() <= 1
        seen += part
    which = np.digitize(seen, np.cumsum(sizes)[:-1])
    for one, size in enumerate(sizes):
        own = np.array(seen)[which == one]
        for at in range(0, len(own) - size, size):
            assert len(set(own[at : at + size].tolist())) == size


def test_samples_that_are_left_out_stay_out_over_a_change_of_weights():
    """They come at other positions, or more often, by the new ones."""
    options = {"stop": "CYCLE_FOREVER", "num_samples": 400}
    ranks = Ranks(60, 2, 5, order=Mixture((30, 30), (0.5, 0.5), **options))
    for sampler in ranks.samplers:
        sampler.skip([3, 4, 45])
    ranks.read(6)
    for world_size, weights in ((3, (0.9, 0.1)), (2, (0.1, 0.9))):
        ranks = Ranks(60, world_size, 5, ranks.record, order=Mixture((30, 30), weights, **options))
        assert not {3, 4, 45} & set(joined(ranks.read(9)))


def test_weighted_draws_take_other_weights_where_a_run_is_resumed():
    """What was drawn stands; what follows is drawn by the new weights; a record says both."""
    first, second = [1.0] * 50 + [0.0] * 50, [0.0] * 50 + [1.0] * 50
    ranks = Ranks(100, 2, 5, order=Weighted(first, 200))
    assert max(joined(ranks.read(8))) < 50
    resumed = Ranks(100, 3, 5, ranks.record, order=Weighted(second, 200))
    seen = joined(resumed.read(4))
    assert min(seen) >= 50
    again = Ranks(100, 1, 5, resumed.record, order=Weighted(second, 200))
    assert len(joined(again.read())) == 200 - 80 - 60
    with pytest.raises(RecordMismatchError, match="order"):
        Ranks(100, 1, 5, ranks.record, order=Weighted(second, 40, replacement=False))


def test_the_order_of_a_dataset_is_taken():
    """A mixture that was read in another order would have other shares."""

    class Backwards(list):
        order = Sequential()

    sampler = ResumableDistributedSampler(Backwards(range(9)), 1, 0)
    assert sampler.order == Sequential()
    assert (
        ResumableDistributedSampler(Backwards(range(9)), 1, 0, order=Shuffle()).order == Shuffle()
    )


def test_groups_under_passes_are_cut_anew_where_a_run_or_a_pass_goes_on():
    """With another batch, also in the next epoch under the pass; and in the middle of a batch."""
    labels = np.repeat([0, 1, 2], [24, 36, 60])
    options = {"order": Grouped(labels), "epoch_size": 200}
    first = Ranks(120, 2, 3, **options)
    given = first.read(4)
    resumed = Ranks(120, 1, 4, first.record, **options)
    given += resumed.read(30)
    again = Ranks(120, 1, 4, resumed.record, **options)
    rest = again.read()
    given += rest
    ids = joined(given)
    assert sorted(ids[:120]) == list(range(120)) and len(set(ids[120:])) == 80
    assert all(len(set(labels[batch])) == 1 for batch in given)

    labels = np.repeat(np.arange(10), 12)
    passes = Ranks(120, 1, 4, order=Grouped(labels), epoch_size=30)
    given = [batch for _ in range(3) for batch in passes.read()]
    ids = joined(given)
    assert len(set(ids)) == 90
    # each pass has a batch of what the one before it had left of a batch, and a smaller last one
    assert sum(len(set(labels[batch])) > 1 for batch in given) <= 3


def test_chunks_under_passes_resume_anywhere():
    """With the plan of the epoch under the pass, whose lanes were those of other ranks."""
    options = {"order": ChunkShuffle(chunk=4), "epoch_size": 50, "tail": "exact"}
    ranks = Ranks(120, 2, 3, **options)
    ids = joined(ranks.read(3))
    for world_size in (1, 3, 5):
        ranks = Ranks(120, world_size, 2, ranks.record, **options)
        ids += joined(ranks.read())
    assert len(ids) == 150
    assert sorted(ids[:120]) == list(range(120)) and len(set(ids[120:])) == 30
    assert not ChunkShuffle(chunk=4).matches(ranks.record["order"])
    with pytest.raises(RecordMismatchError, match="order"):
        Ranks(120, 1, 2, ranks.record, order=ChunkShuffle(chunk=5), epoch_size=50)


def test_ranks_that_have_ended_a_pass_agree_with_those_that_have_not():
    """After a change of weights that the pass does not take, since its first epoch is over."""

    def mixture(*weights):
        order = Mixture([12, 12], weights, stop="ALL_DATASETS_EXHAUSTED")
        return {"order": order, "epoch_size": 40}

    first = Ranks(24, 2, 3, **mixture(0.5, 0.5))
    first.read(5)
    resumed = Ranks(24, 2, 1, first.record, **mixture(0.2, 0.8))
    done, behind = (iter(loader) for loader in resumed.loaders)
    assert len(list(done)) == 5
    next(behind)
    record = merge_states([sampler.state_dict() for sampler in resumed.samplers])
    assert record["committed"] == 36


def test_a_record_that_is_refused_leaves_iterators_as_they_were():
    """Ids that this run leaves out cannot be found in an epoch that other weights drew."""
    first = ResumableDistributedSampler(range(6), 1, 0, order=Weighted([1, 2, 3, 1, 1, 1]))
    assert len(list(islice(first, 2))) == 2
    first.commit(2)
    second = ResumableDistributedSampler(range(6), 1, 0, order=Weighted([3, 2, 1, 1, 1, 1]))
    second.skip([1])
    ids = iter(second)
    next(ids)
    with pytest.raises(RecordMismatchError, match="left out"):
        second.load_state_dict(first.state_dict())
    assert len(list(ids)) == 5
