"""Rows of shards are read once on any ranks and workers, whatever was read before a save."""

import copy
import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_workers import as_worker, batches
from torch.utils.data import DataLoader
from torch.utils.data._utils.worker import WorkerInfo

from globidx import CheckpointManager
from globidx.errors import CommitError, EpochError, RecordMismatchError, StaleIteratorError
from globidx.stream import ShardStream

GRID = list(itertools.product((1, 2, 3), (0, 1, 2, 4)))
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create")


class Shards:
    """Shards of so many rows each; a row is (shard, row)."""

    def __init__(self, lengths):
        self.names = [f"part-{number}.parquet" for number in range(len(lengths))]
        self.lengths = dict(zip(self.names, lengths, strict=True))

    def rows(self, name):
        """All rows of a shard."""
        return ((name, row) for row in range(self.lengths[name]))

    def all(self):
        """All rows, sorted."""
        return sorted(row for name in self.names for row in self.rows(name))

    def streams(self, ranks, states=None, **arguments):
        """A stream for each rank, which goes on from a record."""
        made = [
            ShardStream(self.names, self.rows, ranks, rank, **arguments) for rank in range(ranks)
        ]
        for stream in made if states else ():
            stream.load_state_dict(states)
        return made


def run(stream, *, workers, batch_size, most=None):
    """The rows that a loop of at most so many batches trains on, each batch committed."""
    seen = read_on(stream, workers=workers, batch_size=batch_size, most=most)
    return [row for _, row in seen]


def read_on(stream, *, workers, batch_size, most):
    """The (epoch, row) that a loop of so many batches trains on, each batch committed."""
    seen = []
    for batch in itertools.islice(batches(stream, workers=workers, batch_size=batch_size), most):
        seen += [(int(place[0]), row) for row, place in batch]
        stream.commit([place for _, place in batch])
    return seen


@settings(max_examples=8)
@pytest.mark.parametrize("first", GRID)
@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    second=st.sampled_from(GRID),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.lists(st.integers(0, 5), min_size=3, max_size=3),
    later=st.integers(0, 3),
)
def test_no_row_is_lost_or_repeated_on_any_other_ranks_and_workers(
    first, lengths, second, sizes, steps, later
):
    """An epoch in three worlds, saved anywhere, where ranks have come differently far and some shards are empty."""
    shards, states, seen = Shards(lengths), None, []
    for (ranks, workers), size, most in (
        (first, sizes[0], steps),
        (second, sizes[1], [later] * 3),
        (first, sizes[0], [None] * 3),
    ):
        made = shards.streams(ranks, states, seed=3)
        for stream, limit in zip(made, most, strict=False):
            # a loop that is left and begun again in between
            half = None if limit is None else limit // 2
            seen += run(stream, workers=workers, batch_size=size, most=half)
            rest = None if limit is None else limit - half
            seen += run(stream, workers=workers, batch_size=size, most=rest)
        states = ShardStream.merge_states([stream.state_dict() for stream in made])
    assert sorted(seen) == shards.all()


@pytest.mark.parametrize(("first", "second"), [((1, 2), (2, 1)), ((2, 1), (1, 2))])
def test_torchs_own_workers_and_a_checkpoint(tmp_path, first, second):
    """The same with processes, torch's collate, and records in a folder for one rank."""
    shards, states, seen = Shards([7, 0, 11, 3, 5, 1]), None, []
    for (ranks, workers), size, most in ((first, 4, 2), (second, 3, None)):
        made = shards.streams(ranks, states)
        for stream in made:
            loader = DataLoader(stream, batch_size=size, num_workers=workers)
            for (names, rows), places in itertools.islice(loader, most):
                seen += zip(names, rows.tolist(), strict=True)
                stream.commit(places)
        states = ShardStream.merge_states([stream.state_dict() for stream in made])
    assert sorted(seen) == shards.all()
    (alone,) = shards.streams(1, states)
    CheckpointManager(tmp_path, {"rows": alone}).save(1)
    (other,) = shards.streams(1)
    CheckpointManager(tmp_path, {"rows": other}).restore()
    assert list(other) == [] and other.state_dict() == alone.state_dict()


def test_epochs_have_their_own_order_the_same_on_any_ranks():
    """Shards are read in another sequence; rows of a shard stay in theirs."""
    shards, orders = Shards([2] * 8), set()
    for epoch in range(4):
        (stream,) = shards.streams(1, seed=5)
        stream.set_epoch(epoch)
        order = [row for row, _ in stream]
        assert sorted(order) == shards.all() and [row for _, row in order] == [0, 1] * 8
        orders.add(tuple(order))
        dealt = shards.streams(2, seed=5)
        for rank, one in enumerate(dealt):
            one.set_epoch(epoch)
            assert [name for (name, row), _ in one if not row] == [
                name for name, row in order if not row
            ][rank::2]
    assert len(orders) == 4
    (plain,) = shards.streams(1, shuffle=False)
    assert [row for row, _ in plain] == shards.all()


def test_a_shard_that_seeks_is_asked_for_its_first_row():
    """It does not read what is done."""
    asked = []

    def rows(name, start=0):
        asked.append((name, start))
        return range(start, 5)

    stream = ShardStream([Path("/data/a"), "b"], rows, 1, 0, shuffle=False)
    stream.commit([place for _, place in itertools.islice(stream, 3)])
    asked.clear()
    assert [row for row, _ in stream] == [3, 4, 0, 1, 2, 3, 4]
    assert asked == [(Path("/data/a"), 3), ("b", 0)]


def test_a_pass_begins_where_it_was_made():
    """A worker that is asked late must not begin behind what was committed meanwhile."""
    (stream,) = Shards([6]).streams(1)
    late, places = iter(stream), [place for _, place in stream]
    stream.commit(places[:4])
    assert len(list(late)) == 6


@pytest.mark.parametrize("by", [lambda places: places, torch.stack, lambda places: places[0]])
def test_places_may_be_tensors(by):
    """A batch of them, or one."""
    (stream,) = Shards([4]).streams(1)
    places = [torch.from_numpy(place) for _, place in stream][:2]
    stream.commit(by(places))
    assert len(list(stream)) in (2, 3)


# -- infinite streams


@settings(max_examples=6)
@pytest.mark.parametrize("first", GRID)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    second=st.sampled_from(GRID),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    steps=st.lists(st.integers(0, 12), min_size=3, max_size=3),
)
def test_an_infinite_stream_has_each_row_once_an_epoch(first, lengths, second, sizes, steps):
    """In three worlds, where ranks and workers are in different epochs when they are saved."""
    shards, states, seen = Shards(lengths), None, []
    for (ranks, workers), size in ((first, sizes[0]), (second, sizes[1]), (first, sizes[1])):
        made = shards.streams(ranks, states, seed=3, infinite=True)
        for stream, most in zip(made, steps, strict=False):
            seen += read_on(stream, workers=workers, batch_size=size, most=most)
        states = ShardStream.merge_states([stream.state_dict() for stream in made])
    (alone,) = shards.streams(1, states, seed=3, infinite=True)
    last = max((epoch for epoch, _ in seen), default=0)
    while alone.epoch <= last:
        seen += read_on(alone, workers=0, batch_size=1, most=1)
    assert sorted(seen) == [(epoch, row) for epoch in range(last + 1) for row in shards.all()]


def test_an_infinite_stream_reads_each_epoch_in_an_order_of_its_own():
    """Those of the finite one."""
    shards = Shards([2] * 6)
    (endless,) = shards.streams(1, seed=5, infinite=True)
    rows = [row for row, _ in itertools.islice(endless, 36)]
    (finite,) = shards.streams(1, seed=5)
    for epoch in range(3):
        finite.set_epoch(epoch)
        assert [row for row, _ in finite] == rows[12 * epoch : 12 * epoch + 12]
    assert len({tuple(rows[at : at + 12]) for at in (0, 12, 24)}) == 3


def test_an_infinite_stream_goes_on_from_a_finished_one_and_back():
    """The record does not say which wrote it; ranks in several epochs need an infinite one."""
    shards = Shards([1, 1, 1])
    (finite,) = shards.streams(1)
    run(finite, workers=0, batch_size=1)
    (endless,) = shards.streams(1, finite.state_dict(), infinite=True)
    assert endless.epoch == 1 and finite.epoch == 0
    assert len(read_on(endless, workers=0, batch_size=1, most=4)) == 4
    (again,) = shards.streams(1, endless.state_dict())
    assert again.epoch == 2 and len(list(again)) == 2


def test_an_empty_shard_of_an_infinite_stream_is_refused():
    """It has no row that could say that it is read."""
    (stream,) = Shards([0]).streams(1, infinite=True)
    with pytest.raises(ValueError, match=r"'part-0.parquet' has no rows.* leave it out"):
        next(iter(stream))


def test_an_infinite_stream_is_set_to_an_epoch():
    """The one that it is in keeps its progress."""
    (stream,) = Shards([2, 2]).streams(1, infinite=True)
    read_on(stream, workers=0, batch_size=5, most=1)
    assert stream.epoch == 1
    stream.set_epoch(1)
    assert [int(place[0]) for _, place in itertools.islice(stream, 5)] == [1, 1, 1, 2, 2]
    stream.set_epoch(7)
    assert stream.epoch == 7


# -- who reads what


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(0, 7), min_size=1, max_size=9),
    world=st.sampled_from(GRID),
    most=st.integers(0, 6),
    infinite=st.booleans(),
)
def test_the_division_is_what_ranks_and_workers_then_read(lengths, world, most, infinite):
    """Counted by reading; of the rest of an epoch that has begun."""
    ranks, workers = world
    lengths = [length + infinite for length in lengths]
    shards = Shards(lengths)
    made = shards.streams(ranks, lengths=lengths, infinite=infinite, seed=1)
    stream = made[0]
    run(stream, workers=workers, batch_size=2, most=most)
    info, epoch = stream.distribution_info(workers), stream.epoch
    rows = info["rows"]

    def read(stream):
        return len(list(itertools.takewhile(lambda row: row[1][0] <= epoch, stream)))

    assert rows["per_rank"] == [read(one) for one in made]
    assert rows["total"] == sum(rows["per_rank"])
    assert rows["assigned"] == stream.num_rows == rows["per_rank"][0]
    per_worker, workers = [], max(1, workers)
    for number in range(workers):
        own = shards.streams(ranks, lengths=lengths, infinite=infinite, seed=1)[0]
        own.load_state_dict(stream.state_dict())
        with as_worker(WorkerInfo(id=number, num_workers=workers, seed=0, dataset=own)):
            per_worker.append(read(own))
            assert own.distribution_info()["rows"]["assigned"] == per_worker[-1]
    assert rows["per_worker"] == per_worker
    assert info["total"] == sum(info["per_rank"]) and info["assigned"] == sum(info["per_worker"])


def test_without_lengths_only_shards_are_known():
    """Of five shards two ranks have three and two; none has a len, by which a loader would count batches."""
    stream, _ = Shards([4] * 5).streams(2)
    assert stream.distribution_info(2) == {
        "total": 5,
        "per_rank": [3, 2],
        "per_worker": [2, 1],
        "assigned": 3,
    }
    assert stream.num_rows is None
    with pytest.raises(TypeError):
        len(stream)


# -- what is refused


def test_a_shard_that_has_shrunk_is_refused():
    """Its rows would be lost without a word."""
    shards = Shards([5])
    (stream,) = shards.streams(1)
    run(stream, workers=0, batch_size=3, most=1)
    shards.lengths["part-0.parquet"] = 3
    with pytest.raises(ValueError, match=r"has no row 3, of which rows \[0, 3\) are committed"):
        list(stream)


@pytest.mark.parametrize(
    ("lengths", "match"),
    [([1], "1 numbers for 2 shards"), ([1, -1], "length"), ([1, 0.5], "length")],
)
def test_lengths_are_one_number_a_shard(lengths, match):
    """None is negative."""
    with pytest.raises((ValueError, TypeError, IndexError), match=match):
        ShardStream(["a", "b"], list, 1, 0, lengths=lengths)


def test_rows_are_committed_once_and_in_their_sequence():
    """A row that was left out is named."""
    (stream,) = Shards([6]).streams(1)
    places = [place for _, place in stream]
    with pytest.raises(
        CommitError, match=r"row 1 of the shard that was dealt as number 0, of which rows \[0, 0\)"
    ):
        stream.commit(places[1:3])
    stream.commit(places[:2])
    with pytest.raises(CommitError, match=r"row 1 .* rows \[0, 2\)"):
        stream.commit(places[1:3])
    stream.commit(places[2:])
    with pytest.raises(CommitError, match="row 0 .* all rows"):
        stream.commit(places[:1])
    assert list(stream) == []


def test_rows_of_another_epoch_or_rank_cannot_be_committed():
    """A loop that goes on after set_epoch, and the batch of another rank."""
    one, other = Shards([3, 3]).streams(2)
    places = [place for _, place in one]
    with pytest.raises(CommitError, match="not dealt to rank 1 of 2"):
        other.commit(places)
    one.set_epoch(1)
    with pytest.raises(
        CommitError, match="of epoch 0, which is not dealt to rank 0 of 2 in epoch 1"
    ):
        one.commit(places)


def test_a_record_of_another_run_is_refused():
    """Other shards, another sequence of them, another seed; in another folder they are the same."""
    (stream,) = Shards([3, 3]).streams(1)
    state = stream.state_dict()
    names = ["/elsewhere/part-0.parquet", "part-1.parquet"]
    ShardStream(names, list, 1, 0).load_state_dict(state)
    for shards, arguments, name in (
        (names[:1], {}, "shards"),
        (names[::-1], {}, "names"),
        (names, {"seed": 1}, "seed"),
        (names, {"shuffle": False}, "shuffle"),
    ):
        with pytest.raises(RecordMismatchError, match=name) as caught:
            ShardStream(shards, list, 1, 0, **arguments).load_state_dict(state)
        assert caught.value.field == name


def test_one_rank_of_several_does_not_speak_for_all():
    """Its own state loads on that rank alone, as a manager does that has to go back."""
    one, _ = Shards([3, 3]).streams(2)
    one.commit([place for _, place in one][:2])
    state = one.state_dict()
    again, other = Shards([3, 3]).streams(2)
    again.load_state_dict(state)
    assert again.state_dict() == state and len(list(again)) == 1
    with pytest.raises(RecordMismatchError, match="rank 0 of 2 alone"):
        other.load_state_dict(state)


def test_finished_epochs_are_refused():
    """A trainer whose counter restarted at 0 would read them again."""
    (stream,) = Shards([3]).streams(1)
    stream.set_epoch(2)
    (later,) = Shards([3]).streams(1, stream.state_dict())
    with pytest.raises(EpochError, match="set_epoch"):
        later.set_epoch(1)


def test_workers_that_persist_are_refused():
    """Theirs is the stream as it was when they started."""
    (stream,) = Shards([3]).streams(1)
    with as_worker(WorkerInfo(id=0, num_workers=1, seed=0, dataset=stream)):
        assert len(list(copy.copy(stream))) == len(list(stream)) == 3
        with pytest.raises(StaleIteratorError, match="persistent_workers"):
            list(stream)
        with pytest.raises(CommitError, match="in the training loop"):
            stream.state_dict()


@pytest.mark.parametrize("shards", [[], "part-0.parquet"])
def test_no_shards_are_refused(shards):
    """One name is no list of names."""
    with pytest.raises(ValueError, match="list of at least one file"):
        ShardStream(shards, list)
