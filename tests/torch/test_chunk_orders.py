"""ChunkShuffle in a run: planned as an epoch begins, kept in its record, exactly once whatever becomes of the ranks."""

import json
import pickle

import chunk_oracle
import numpy as np
import pytest
from files import numbers, write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Epoch
from torch.utils.data import BatchSampler

import globidx
from globidx import (
    CheckpointManager,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    errors,
    merge_states,
)
from globidx.core.index.chunking import Chunking
from globidx.core.orders.lanes import Lanes
from globidx.orders import ChunkShuffle, Shuffle


class Files:
    """Files of these lengths and chunk lengths, with identity but nothing in them."""

    def __init__(self, lengths, chunks):
        self.lengths, self.chunks = list(lengths), list(chunks)
        self.chunking = Chunking.of(self.lengths, np.array(self.chunks, np.int64).reshape(-1, 1))
        self.num_files = len(self.lengths)
        self.fingerprint = self.fingerprint_of(self.num_files)

    def __len__(self):
        return sum(self.lengths)

    def fingerprint_of(self, count):
        return str(self.lengths[:count])


SMALL = Files([13, 20, 5, 0, 31], [4, 4, 4, 4, 7])


def ranks_of(data, world, record=None, *, workers=0, batch=1, **arguments):
    """One sampler a rank, as after a start on ``world`` ranks from ``record``, read by such loaders."""
    made = [
        ResumableDistributedSampler(data, world, rank, **{"order": ChunkShuffle(2), **arguments})
        for rank in range(world)
    ]
    for sampler in made:
        if record is not None:
            sampler.load_state_dict(json.loads(json.dumps(record)))
        sampler._ledger.expect(workers=workers, batch_size=batch)
    return made


def expected(data, lanes, *, window=2, seed=0, epoch=0):
    """The epoch's order, by the oracle."""
    return chunk_oracle.order(data.lengths, data.chunks, window, lanes, seed, epoch)


legs = st.lists(
    st.tuples(
        st.integers(1, 5),
        st.integers(0, 3),
        st.integers(1, 6),
        st.lists(st.floats(0, 0.95), min_size=5, max_size=5),
        st.booleans(),
    ),
    max_size=4,
)


@settings(max_examples=40)
@given(
    legs=legs,
    last=st.integers(1, 5),
    seed=st.integers(0, 99),
    tail=st.sampled_from(("pad", "drop", "exact")),
)
def test_each_id_is_committed_once_however_often_the_run_is_killed(legs, last, seed, tail):
    """Legs of (ranks, workers, batch size, progress of each rank): one epoch, in the order planned when its first id was taken."""
    record, epoch, order, counts = None, None, None, []
    for world, workers, batch, shares, uneven in [*legs, (last, 1, 3, [1.0] * 5, False)]:
        ranks = ranks_of(SMALL, world, record, workers=workers, batch=batch, seed=seed, tail=tail)
        if epoch is None or not epoch.committed:
            order = expected(SMALL, Lanes(world, max(1, workers), world * batch), seed=seed)
            epoch = Epoch(order)
        streams = [list(sampler) for sampler in ranks]
        assert streams == epoch.deal(world, tail)
        if not any(streams):
            # fewer are left than there are ranks: a loop would end the epoch, and no commit does
            assert tail == "drop" and len(epoch.left) < world
            return
        counts = [
            len(stream) if share == 1.0 else int(share * len(stream))
            for stream, share in zip(
                streams, shares if uneven else [shares[0]] * world, strict=False
            )
        ]
        for sampler, count in zip(ranks, counts, strict=True):
            sampler.commit(count)
        record = merge_states([sampler.state_dict() for sampler in ranks])
        left = len(epoch.left)
        epoch.commit(
            world, [min(c, len(hand)) for c, hand in zip(counts, epoch.real(world), strict=True)]
        )
        if record["epoch"] == 1:
            assert len(epoch.left) == (left % world if tail == "drop" else 0)
            break
    assert record["epoch"] == 1
    assert len(set(epoch.committed)) == len(epoch.committed) == len(SMALL) - len(epoch.left)


@settings(max_examples=40)
@given(
    worlds=st.lists(st.sampled_from([1, 2, 3, 4, 6, 12]), min_size=1, max_size=5),
    steps=st.lists(st.integers(0, 3), min_size=5, max_size=5),
)
def test_global_batches_are_the_same_on_every_world_size(worlds, steps):
    """Once begun, while world size x batch size stays 12, global batch s is one set of ids, also across resumes."""
    order = expected(SMALL, Lanes(worlds[0], 2, 12))
    batches, record, step = (
        [set(order[first : first + 12]) for first in range(0, len(order), 12)],
        None,
        0,
    )
    for world, stretch in zip(worlds, steps, strict=False):
        if record is None or not record["committed"]:
            order = expected(SMALL, Lanes(world, 2, 12))
            batches = [set(order[first : first + 12]) for first in range(0, len(order), 12)]
        ranks = ranks_of(SMALL, world, record, workers=2, batch=12 // world, tail="exact")
        if ranks[0].epoch:
            break
        streams = [list(rank) for rank in ranks]
        for number in range(min(stretch, len(batches) - step)):
            cut = slice(number * 12 // world, (number + 1) * 12 // world)
            assert {id for stream in streams for id in stream[cut]} == batches[step]
            for rank, stream in zip(ranks, streams, strict=True):
                rank.commit(len(stream[cut]))
            step += 1
        record = merge_states([rank.state_dict() for rank in ranks])


def test_an_epoch_keeps_its_plan_and_the_next_has_its_own():
    """4 ranks x 2 workers, resumed on 3 x 1 in mid-epoch: the order of 4 x 2 to its end, then that of 3 x 1."""
    ranks = ranks_of(SMALL, 4, workers=2, batch=3)
    for rank in ranks:
        rank.commit(5)
    record = merge_states([rank.state_dict() for rank in ranks])
    plan = {"ranks": 4, "workers": 2, "batch": 12, "chunking": SMALL.chunking.digest}
    described = {"algorithm": "chunk-shuffle", "version": 1, "window": 2, "chunk": None}
    assert record["order"] == {**described, "plan": plan}
    ranks = ranks_of(SMALL, 3, record, workers=1, batch=5, tail="exact")
    old = expected(SMALL, Lanes(4, 2, 12))
    for r, rank in enumerate(ranks):
        ids = list(rank)
        assert ids == old[20 + r :: 3]
        assert rank.state_dict()["order"]["plan"] == plan
        rank.commit(len(ids))
    new = expected(SMALL, Lanes(3, 1, 15), epoch=1)
    assert [list(rank) for rank in ranks] == [new[r::3] for r in range(3)]
    assert {rank.epoch for rank in ranks} == {1}
    record = merge_states([rank.state_dict() for rank in ranks])
    ranks = ranks_of(SMALL, 2, record, workers=4, batch=2, tail="exact")
    new = expected(SMALL, Lanes(2, 4, 4), epoch=1)
    assert [list(rank) for rank in ranks] == [new[r::2] for r in range(2)]


def test_given_lanes_and_batch_win():
    """For loaders that tell nothing of themselves."""
    order = ChunkShuffle(2, (3, 2), batch=9)
    ranks = ranks_of(SMALL, 2, workers=5, batch=7, order=order, tail="exact")
    assert [list(rank) for rank in ranks] == [
        expected(SMALL, Lanes(3, 2, 9))[r::2] for r in range(2)
    ]


def test_ranks_are_still_asked_late(monkeypatch):
    """A sampler built before anybody knows the ranks plans for those there are when it is first read."""
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    sampler = ResumableDistributedSampler(SMALL, order=ChunkShuffle(2), tail="exact")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert list(sampler) == expected(SMALL, Lanes(3, 1, 3))[1::3]


def test_a_rank_that_planned_otherwise_is_named():
    """Another batch size or number of workers would deal other cards; a rank that has taken nothing has no say."""
    ranks = ranks_of(SMALL, 3, batch=4)
    ranks[2]._ledger.expect(workers=0, batch_size=2)
    for rank in ranks[:2]:
        rank.commit(4)
    assert merge_states([rank.state_dict() for rank in ranks])["order"]["plan"]["batch"] == 12
    ranks[2].commit(4)
    with pytest.raises(errors.RecordMismatchError, match="rank 2 disagrees on order") as error:
        merge_states([rank.state_dict() for rank in ranks])
    assert error.value.field == "order"


@pytest.mark.parametrize("size", ["auto", 0, 2.5, None])
def test_a_batch_sampler_may_mean_anything_by_its_batch_size(size):
    """What is no number of ids plans nothing."""
    sampler = ResumableDistributedSampler(SMALL, 1, 0, order=ChunkShuffle(2))
    batches = BatchSampler(sampler, 7, drop_last=False)
    batches.batch_size = size
    batches.__class__ = type(
        "Sizes", (BatchSampler,), {"__iter__": lambda self: iter([list(self.sampler)])}
    )
    loop = iter(globidx.DataLoader(range(len(SMALL)), batch_sampler=batches))
    assert next(loop).tolist() == expected(SMALL, Lanes(1, 1, 1))


def test_who_looks_at_an_untouched_epoch_changes_nothing():
    """One rank asks for a length, or draws, before it moves on; the others do not: their trails are one."""
    ranks = ranks_of(SMALL, 3, batch=4)
    assert len(ranks[1]) == 23
    next(iter(ranks[2]))
    for rank in ranks:
        rank.set_epoch(3)
        rank.commit(4)
    assert merge_states([rank.state_dict() for rank in ranks])["committed"] == 12


def test_a_peek_of_one_rank_at_an_epoch_that_nobody_reads_changes_nothing():
    """Only its loader has said how it reads by then; all ranks begin with another epoch."""
    ranks = [
        ResumableDistributedSampler(SMALL, 2, rank, order=ChunkShuffle(2)) for rank in range(2)
    ]
    loaders = [globidx.DataLoader(range(len(SMALL)), batch_size=4, sampler=rank) for rank in ranks]
    next(iter(loaders[0]))
    for rank in ranks:
        rank.set_epoch(1)
    loops = [iter(loader) for loader in loaders]
    for loop in loops:
        next(loop)
    assert merge_states([rank.state_dict() for rank in ranks])["committed"] == 8


def test_ranks_between_two_plans_merge():
    """One rank has ended the resumed epoch and stands in the next, planned anew; the others have not: one record."""
    first = ranks_of(SMALL, 4, workers=2, batch=3)
    for rank in first:
        rank.commit(6)
    record = merge_states([rank.state_dict() for rank in first])
    ranks = ranks_of(SMALL, 2, record, batch=4, tail="exact")
    streams = [list(rank) for rank in ranks]
    ranks[0].commit(len(streams[0]))
    ranks[1].commit(7)
    assert ranks[0].epoch == 1
    record = merge_states([rank.state_dict() for rank in ranks])
    assert (record["epoch"], record["order"]["plan"]["ranks"]) == (0, 4)
    alone = ranks_of(SMALL, 1, record, tail="exact")[0]
    assert list(alone) == streams[1][7:]


@pytest.mark.parametrize(
    ("order", "data", "told"),
    [
        (ChunkShuffle(4), SMALL, "order"),
        (Shuffle(), SMALL, "order"),
        (ChunkShuffle(2), Files(SMALL.lengths, [4, 4, 4, 4, 8]), "chunks"),
        (ChunkShuffle(2, chunk=4), SMALL, "order"),
    ],
)
def test_another_order_or_other_chunks_are_refused(order, data, told):
    """And nothing has moved; an epoch of which nothing was taken does not mind other chunks."""
    sampler = ranks_of(SMALL, 1)[0]
    fresh = sampler.state_dict()
    sampler.commit(5)
    other = ResumableDistributedSampler(data, 1, 0, order=order)
    before = other.state_dict()
    with pytest.raises(errors.RecordMismatchError, match=told) as error:
        other.load_state_dict(sampler.state_dict())
    assert error.value.field == "order"
    assert other.state_dict() == before
    if told == "chunks":
        other.load_state_dict(fresh)
        assert len(list(other)) == len(data)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ranks": 0}, "ranks must be an integer"),
        ({"workers": True}, "workers must be an integer"),
        ({"batch": "8"}, "batch must be an integer"),
        ({"batch": 2**50}, "batch must be an integer"),
        ({"chunking": 7}, "chunking must be a string"),
        ({"more": 1}, "unknown more"),
        ({"ranks": 2**17, "workers": 2**17}, "too many"),
        ("nothing", "must be an object"),
    ],
)
def test_a_plan_is_read_strictly(change, told):
    """What no globidx wrote is refused, before anything is computed from it."""
    sampler = ranks_of(SMALL, 1)[0]
    sampler.commit(5)
    state = sampler.state_dict()
    plan = change if isinstance(change, str) else {**state["order"]["plan"], **change}
    with pytest.raises(errors.RecordError, match=told):
        sampler.load_state_dict({**state, "order": {**state["order"], "plan": plan}})
    state["order"]["plan"].clear()  # the caller's own, whole
    assert sampler.state_dict()["order"]["plan"]["ranks"] == 1


def test_appended_files_wait_for_the_next_epoch():
    """A running epoch keeps its samples and their order; the next takes the new files."""
    ranks = ranks_of(SMALL, 2, batch=4, tail="exact")
    for rank in ranks:
        rank.commit(8)
    record = merge_states([rank.state_dict() for rank in ranks])
    grown = Files([*SMALL.lengths, 17, 3], [*SMALL.chunks, 4, 16])
    ranks = ranks_of(grown, 2, record, batch=4, tail="exact")
    old = expected(SMALL, Lanes(2, 1, 8))
    for r, rank in enumerate(ranks):
        ids = list(rank)
        assert ids == old[16 + r :: 2]
        rank.commit(len(ids))
    new = expected(grown, Lanes(2, 1, 8), epoch=1)
    assert [list(rank) for rank in ranks] == [new[r::2] for r in range(2)]


def test_ranks_between_two_datasets_merge():
    """One rank has ended the epoch and stands in the next, which has files that were appended; the others have not."""
    first = ranks_of(SMALL, 2, batch=4)
    for rank in first:
        rank.commit(8)
    grown = Files([*SMALL.lengths, 17], [*SMALL.chunks, 4])
    ranks = ranks_of(grown, 2, merge_states([rank.state_dict() for rank in first]), tail="exact")
    left = [list(rank) for rank in ranks]
    ranks[0].commit(len(left[0]))
    ranks[1].commit(len(left[1]) - 3)
    record = merge_states([rank.state_dict() for rank in ranks])
    assert list(ranks_of(grown, 1, record, tail="exact")[0]) == left[1][-3:]
    ranks[1].commit(3)
    assert merge_states([rank.state_dict() for rank in ranks])["epoch"] == 1


def test_chunks_of_appended_files_say_nothing_of_those_before():
    """Files without chunks are cut as the others are; an epoch that runs, only as those are that it began with."""
    first = ranks_of(Files([40, 30], [0, 0]), 1)[0]
    first.commit(9)
    grown = Files([40, 30, 600], [0, 0, 64])
    assert grown.chunking.chunks.tolist() == [40, 30, 64]
    assert list(ranks_of(grown, 1, first.state_dict())[0]) == list(first)


def test_an_iterator_of_another_plan_raises():
    """Made before the loader said how it reads, and not drawn from: its ids would stand elsewhere."""
    sampler = ranks_of(SMALL, 2)[0]
    early = iter(sampler)
    sampler._ledger.expect(workers=3, batch_size=8)
    assert list(sampler) == expected(SMALL, Lanes(2, 3, 16))[::2]
    with pytest.raises(errors.StaleIteratorError, match="anew"):
        next(early)


def test_skips_and_copies():
    """Skipped ids leave everything else where it was; a pickled sampler goes on in the same plan."""
    sampler = ranks_of(SMALL, 1, workers=2, batch=6)[0]
    order = expected(SMALL, Lanes(1, 2, 6))
    sampler.commit(10)
    sampler.skip(range(20, 40))
    resumed = pickle.loads(pickle.dumps(ranks_of(SMALL, 1, sampler.state_dict())[0]))
    again = ranks_of(SMALL, 1, resumed.state_dict())[0]
    assert list(again) == list(resumed) == [id for id in order[10:] if not 20 <= id < 40]


def write_files(folder):
    """Five files of 30 to 50 items in chunks of 8, zarr and HDF5."""
    for number, length in enumerate((30, 41, 50, 33, 47)):
        data = numbers(length, start=1000 * number + 1)
        write = write_hdf5 if number % 2 else write_zarr
        write(
            folder / f"{number}.{'h5' if number % 2 else 'zarr'}",
            data,
            chunk=8,
            **({} if number % 2 else {"key": "x"}),
        )
    return GlobalIndexManager(folder, key="x")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_tells_how_it_reads(tmp_path, workers):
    """Real files, real workers: the epoch is planned for them, saved in mid-epoch, and ended by another loader."""
    manager = write_files(tmp_path)
    dataset = FileCacheDataset(manager, with_id=True)
    assert dataset.chunking.chunks.tolist() == [8] * 5
    lengths, chunks = manager.lengths.tolist(), [8] * 5
    order = chunk_oracle.order(lengths, chunks, 2, Lanes(1, max(1, workers), 6), 3, 0)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=3, order=ChunkShuffle(2))
    loader = globidx.DataLoader(dataset, batch_size=6, sampler=sampler, num_workers=workers)
    keeper, got = CheckpointManager(tmp_path / "run", sampler), []
    for (items, ids), _ in zip(loader, range(5), strict=False):
        got += ids.tolist()
        assert items[0].shape == (3,)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=3, order=ChunkShuffle(2))
    keeper.save(1)
    resumed = CheckpointManager(tmp_path / "run", sampler)
    assert resumed.restore()["states"]["sampler"]["order"]["plan"]["workers"] == max(1, workers)
    got = got[: sampler.state_dict()["committed"]]
    for _, ids in globidx.DataLoader(dataset, batch_size=11, sampler=sampler):
        got += ids.tolist()
    assert got == order
    assert sampler.epoch == 1
    _, ids = next(iter(globidx.DataLoader(dataset, batch_size=11, sampler=sampler)))
    assert ids.tolist() == chunk_oracle.order(lengths, chunks, 2, Lanes(1, 1, 11), 3, 1)[:11]


def test_several_arrays_have_one_block(tmp_path):
    """Long chunks of small labels do not stretch the blocks of large images; unchunked files take the usual length."""
    data = {"image": numbers(64, (32, 32)), "label": numbers(64, ())}
    for name, chunk in (("a", 8), ("b", 8), ("c", None)):
        write_hdf5(tmp_path / f"{name}.h5", data, chunk=chunk)
    assert GlobalIndexManager(tmp_path, key=("image", "label")).now.chunking.chunks.tolist() == [
        8,
        8,
        8,
    ]


@pytest.mark.parametrize("bad", [range(10), [1, 2, 3]])
def test_data_without_chunks_is_refused_when_the_sampler_is_built(bad):
    """Not at the first batch."""
    with pytest.raises(TypeError, match="pass chunk="):
        ResumableDistributedSampler(bad, 1, 0, order=ChunkShuffle())
    assert sorted(ResumableDistributedSampler(bad, 1, 0, order=ChunkShuffle(chunk=2))) == list(
        range(len(bad))
    )
