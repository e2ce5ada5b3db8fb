"""Epochs over windows: exactly once on any ranks, records that know their window, chunks decoded about once."""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Epoch
from torch.utils.data import DataLoader as PlainLoader
from window_worlds import KINDS, make

from globidx import (
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    Window,
    errors,
    merge_states,
)
from globidx.core.reading.estimate import estimate
from globidx.orders import ChunkShuffle, Shuffle

WORLDS = (4, 3, 8, 5)


def ranks_of(dataset, world_size, record=None, **arguments):
    """One sampler a rank, as after a start on ``world_size`` ranks from ``record``."""
    samplers = [
        ResumableDistributedSampler(dataset, world_size, rank, **arguments)
        for rank in range(world_size)
    ]
    for sampler in samplers:
        if record is not None:
            sampler.load_state_dict(json.loads(json.dumps(record)))
    return samplers


def legs_of(dataset, shares, **arguments):
    """The ids that were committed by runs on 4, 3, 8 and 5 ranks, each killed at its share, and their records."""
    record, committed, records = None, [], []
    for world_size, share in zip(WORLDS, [*shares, 1.0], strict=True):
        samplers = ranks_of(dataset, world_size, record, **arguments)
        for sampler in samplers:
            stream = list(sampler)
            count = int(share * len(stream))
            committed += stream[:count]
            if count:
                sampler.commit(count)
            elif share == 1.0 and sampler.epoch == 0 and not stream:
                sampler.finish_epoch()
        record = merge_states([sampler.state_dict() for sampler in samplers])
        records.append(record)
        if record["epoch"]:
            break
    return committed, records


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    shares=st.lists(st.floats(0, 0.6), min_size=3, max_size=3),
    shuffle=st.sampled_from([Shuffle(), ChunkShuffle(2)]),
)
def test_each_anchor_is_committed_once(tmp_path_factory, kind, seed, shares, shuffle):
    """4, 3, 8, then 5 ranks read each window once: by id, and so by sequence and anchor, on both sides of a split."""
    folder = tmp_path_factory.mktemp("epochs")
    world = make(np.random.default_rng(seed), folder / "data", kind, "hdf5")
    expected = [(number, anchor) for number, anchor, _ in world.samples()]
    if not expected:
        return
    manager = GlobalIndexManager(world.files, cache_dir=folder / "cache", **world.options)
    committed, records = legs_of(FileCacheDataset(manager), shares, order=shuffle, seed=seed % 100)
    assert records[-1]["epoch"] == 1
    read = [manager.where(id) for id in committed]
    if "tail" not in records[-1]:
        assert sorted({(where.sequence, where.anchor) for where in read}) == expected
    for side in manager.split(0.5, seed=seed % 7):
        if len(side):
            committed, records = legs_of(
                FileCacheDataset(side), shares, order=shuffle, tail="exact", seed=1
            )
            assert sorted(committed) == list(range(len(side)))


@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=6),
    stride=st.integers(1, 3),
    pad=st.sampled_from([None, "edge"]),
    shares=st.lists(st.floats(0, 0.9), min_size=3, max_size=3),
)
@settings(max_examples=25)
def test_anchors_are_dealt_as_the_ids_of_any_dataset(
    tmp_path_factory, lengths, stride, pad, shares
):
    """The streams of each rank are those of the naive epoch, and a record is as long as that of a plain index."""
    folder = tmp_path_factory.mktemp("dealt")
    ends = np.cumsum(lengths)
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"], file["ends"] = np.arange(ends[-1]), ends
    window = Window(range(-1, 3), stride=stride, pad=pad)
    try:
        manager = GlobalIndexManager(folder, key="x", sequences="ends", window=window)
    except ValueError:
        return
    n = len(manager)
    if not n:
        return
    dataset = FileCacheDataset(manager)
    epoch = Epoch(Shuffle().bind(n, seed=3, epoch=0).take(range(n)).tolist())
    record = None
    for world_size, share in zip(WORLDS, [*shares, 1.0], strict=True):
        samplers = ranks_of(dataset, world_size, record, seed=3, tail="exact")
        assert [list(sampler) for sampler in samplers] == epoch.deal(world_size, "exact")
        counts = [int(share * len(hand)) for hand in epoch.real(world_size)]
        for sampler, count in zip(samplers, counts, strict=True):
            if count:
                sampler.commit(count)
        record = merge_states([sampler.state_dict() for sampler in samplers])
        epoch.commit(world_size, counts)
        plain = ranks_of(range(n), world_size, seed=3, tail="exact")[0].state_dict()
        assert len(json.dumps(record)) < len(json.dumps(plain)) + 600
    assert record["epoch"] == 1
    assert sorted(epoch.committed) == list(range(n))


def buffer(path, lengths, start=1):
    """One file with many episodes in it."""
    rows = int(np.sum(lengths))
    with h5py.File(path, "a") as file:
        for name, values in (("x", np.arange(start, start + rows)), ("ends", np.cumsum(lengths))):
            if name not in file:
                file.create_dataset(name, (0,), "i8", maxshape=(None,), chunks=(16,))
            file[name].resize((len(values),))
            file[name][...] = values


def opened(folder, **options):
    options = {"key": "x", "sequences": "ends", "window": range(3)} | options
    return FileCacheDataset(GlobalIndexManager(folder, cache_dir=folder / "c", **options))


@pytest.mark.parametrize("order", [Shuffle(), ChunkShuffle(2)])
def test_a_running_epoch_keeps_its_ids_while_the_files_grow(tmp_path, order):
    """Rows and episodes that come in the middle of an epoch are samples of the next one; other ends end it."""
    buffer(tmp_path / "a.h5", [10, 20, 15])
    dataset = opened(tmp_path)
    n = len(dataset)
    meant = {id: dataset[id].tolist() for id in range(n)}
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=order, tail="exact")
    first = iter(sampler)
    ids = [next(first) for _ in range(9)]
    sampler.commit(9)
    dataset.close()  # a writer locks the file
    buffer(tmp_path / "a.h5", [10, 20, 19, 12])
    assert dataset.index_manager.refresh().keep_ids
    assert len(dataset) > n
    ids += list(first)
    assert sorted(ids) == list(range(n))
    assert {id: dataset[id].tolist() for id in ids} == meant
    record = sampler.state_dict()
    resumed = ResumableDistributedSampler(dataset, 1, 0, order=order, tail="exact")
    resumed.load_state_dict(record)
    assert list(resumed) == ids[9:]
    resumed.commit(n - 9)
    assert resumed.epoch == 1
    assert sorted(resumed) == list(range(len(dataset)))


@pytest.mark.parametrize(
    ("change", "is_accepted"),
    [
        ({}, True),
        ({"window": range(4)}, False),
        ({"window": Window(range(3), stride=2)}, False),
        ({"window": Window(range(3), pad="edge")}, False),
        ({"window": Window(range(3), pad="zero", before=0, after=0)}, False),
        ({"window": (0, 2, 1)}, False),
        ({"sequences": "file"}, False),
        ({"sequences": "chain"}, False),
        ({"only": ["0", "1"]}, False),
        ({"only": ["0", "2"]}, False),
        ({"only": lambda name: True}, True),
        ({"missing": [3]}, False),
        ({"missing": [39]}, False),
        ({"key": {"y": "x"}}, False),
        ({"key": {"x": "x"}}, True),
        ({"constants": {"ends": "ends"}}, True),
        ({"lengths": [10, 21, 14]}, False),
        ({"lengths": [10, 20, 16]}, True),
        ({"lengths": [10, 20, 15, 1]}, True),
        ({"lengths": [10, 20, 15, 30]}, True),
        ({"lengths": [10, 20]}, False),
        ({"lengths": [0, 10, 20, 15]}, False),
    ],
)
def test_a_record_is_taken_over_the_same_samples_and_more_alone(tmp_path, change, is_accepted):
    """Another window or other sequences are refused by name; growth is not."""
    buffer(tmp_path / "a.h5", [10, 20, 15])
    sampler = ResumableDistributedSampler(opened(tmp_path), 1, 0, tail="exact")
    list(sampler)
    sampler.commit(5)
    record = sampler.state_dict()
    options = dict(change)
    if "lengths" in options:
        (tmp_path / "a.h5").unlink()
        buffer(tmp_path / "a.h5", options.pop("lengths"))
    other = ResumableDistributedSampler(opened(tmp_path, **options), 1, 0, tail="exact")
    if is_accepted:
        other.load_state_dict(record)
        assert other.remaining == sampler.remaining
        return
    with pytest.raises(errors.RecordMismatchError):
        other.load_state_dict(record)


SIXTEEN = Window(range(16))


def long_sequences(kind, folder, rng):
    """Files with sequences of some hundred rows in chunks of 16, of this kind; options of an index over them."""
    folder.mkdir()
    options = {"sequences": kind}
    rows = np.arange(1, 4 * 640 + 1, dtype="i4").reshape(4, 640)
    for number in range(4):
        with h5py.File(folder / f"{number}.h5", "w") as file:

            def put(name, values, file=file):
                file.create_dataset(
                    name,
                    data=values,
                    chunks=(16,) if values.ndim == 1 else (1, 16),
                    compression="gzip",
                )

            if kind == "match":
                for place in range(3):
                    put(f"data/d{place}/x", rows[number][: 640 - 7 * place])
                options["key"] = {"x": "data/*/x"}
            elif kind == "axis":
                put("x", rows)
            else:
                put("x", rows[number])
                file["ends"] = np.array([200, 411, 640])
                file["first"], file["count"] = np.array([400, 7, 213]), np.array([240, 200, 187])
    options["key"] = options.get("key", {"x": "x"})
    named = {"ends": "ends", "runs": ("first", "count")}
    return options | {"sequences": named.get(kind, kind)}


@pytest.mark.parametrize(
    "window", [SIXTEEN, Window(range(16), pad="edge"), Window(range(16), stride=4)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_chunk_is_decoded_about_once(tmp_path, kind, window):
    """With ChunkShuffle at window 16, chunk 16: at most 1.3 times an epoch; the estimate agrees with the counters."""
    options = long_sequences(kind, tmp_path / "data", None)
    manager = GlobalIndexManager(tmp_path / "data", window=window, cache_dir=tmp_path, **options)
    batch, order = 32, ChunkShuffle(4)
    cache = 4096  # a third of the chunks
    counts, chunks = {}, None
    for order_, name in ((order, "chunks"), (Shuffle(), "all")):
        dataset = FileCacheDataset(manager, cache_bytes=cache)
        sampler = ResumableDistributedSampler(dataset, 1, 0, order=order_, tail="exact")
        sampler._ledger.expect(workers=0, batch_size=batch)
        ids = list(sampler)
        for start in range(0, len(ids), batch):
            dataset.__getitems__(ids[start : start + batch])
        told = dataset.counters()
        found = estimate(
            manager.now.table,
            order_,
            batch_size=batch,
            cache_bytes=cache,
            samples=manager.now.samples,
        )
        assert found.samples == len(ids) == len(manager)
        assert found.decodes == pytest.approx(told.decodes, rel=0.05)
        assert sum(told.decodes_of.values()) == told.decodes
        counts[name], chunks = told.decodes, found.chunks
        dataset.close()
    assert counts["chunks"] <= 1.3 * chunks
    assert counts["all"] > 2 * chunks


@pytest.mark.parametrize("order", [ChunkShuffle(2), Shuffle()])
def test_windows_of_tokens_count_chunks_of_tokens(tmp_path, order):
    """A chunk of 40 tokens is 4 items of 10: blocks and estimate go by these."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(40_000), chunks=(40,), compression="gzip")
    manager = GlobalIndexManager(
        tmp_path, key="x", layout="tokens:10", sequences="file", window=range(4)
    )
    dataset = FileCacheDataset(manager, cache_bytes=80 * 320)
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=order, tail="exact")
    sampler._ledger.expect(workers=0, batch_size=16)
    ids = list(sampler)
    for start in range(0, len(ids), 16):
        dataset.__getitems__(ids[start : start + 16])
    found = estimate(
        manager.now.table, order, batch_size=16, cache_bytes=80 * 320, samples=manager.now.samples
    )
    assert found.chunks == 1000
    assert found.decodes == pytest.approx(dataset.counters().decodes, rel=0.05)
    assert isinstance(order, Shuffle) or found.decodes <= 1300


@pytest.mark.parametrize(("image", "state"), [(1, 16), (4, 16), (16, 5), (None, 16)])
def test_fields_cost_only_the_rows_that_they_ask_for(tmp_path, image, state):
    """One image at the anchor beside 16 actions is one image, whatever the chunks of each are; each field is counted."""
    rows = 2000
    with h5py.File(tmp_path / "a.h5", "w") as file:
        images = np.ones((rows, 8, 8), "u1")
        chunks = None if image is None else (image, 8, 8)
        file.create_dataset("image", data=images, chunks=chunks)
        for name, length in (("action", 16), ("state", state)):
            file.create_dataset(name, data=np.ones((rows, 7), "f4"), chunks=(length, 7))
    window = Window({"image": 0, "action": range(16), "state": (-1, 0)}, pad="edge")
    names = ["image", "action", "state"]
    manager = GlobalIndexManager(tmp_path, key=names, sequences="file", window=window)
    order = ChunkShuffle(4)
    dataset = FileCacheDataset(manager, cache_bytes=2**16)
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=order, tail="exact")
    sampler._ledger.expect(workers=0, batch_size=32)
    ids = list(sampler)
    for start in range(0, len(ids), 32):
        dataset.__getitems__(ids[start : start + 32])
    told = dataset.counters()
    stored = {"image": image, "action": 16, "state": state}
    for name, length in stored.items():
        chunks = 0 if length is None else -(-rows // length)
        assert told.decodes_of.get(name, 0) <= 1.3 * chunks
    assert told.bytes_useful == rows * (64 + 16 * 28 + 2 * 28)
    if image in (1, None):
        assert told.bytes_read <= rows * 64 + 1.3 * 2 * rows * 28 + 32 * 28
    found = estimate(
        manager.now.table, order, batch_size=32, cache_bytes=2**16, samples=manager.now.samples
    )
    assert found.decodes == pytest.approx(told.decodes, rel=0.05)
    for name, length in stored.items():
        if length is not None:
            real = told.decodes_of[name] / -(-rows // length)
            assert found.decodes_of[name] == pytest.approx(real, rel=0.05)


def test_the_cache_needs_no_more_than_a_window_of_blocks(tmp_path):
    """The same with a cache that holds a twentieth of the chunks: it is the order that keeps neighbours together."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.ones((16_000, 16), "i4"), chunks=(16, 16))
    manager = GlobalIndexManager(tmp_path, key="x", sequences="file", window=SIXTEEN)
    dataset = FileCacheDataset(manager, cache_bytes=50 * 1024)
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=ChunkShuffle(4), tail="exact")
    sampler._ledger.expect(workers=0, batch_size=32)
    ids = list(sampler)
    for start in range(0, len(ids), 32):
        dataset.__getitems__(ids[start : start + 32])
    assert dataset.counters().decodes <= 1300


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", KINDS)
def test_workers_read_the_same(tmp_path, kind, method):
    """Processes that are forked from an open dataset, or get a pickled one, read what this one does."""
    if method == "spawn" and kind not in ("match", "chain"):
        return
    options = long_sequences(kind, tmp_path / "data", None)
    manager = GlobalIndexManager(
        tmp_path / "data",
        window=Window(range(-2, 3), stride=37, pad="zero", mask=True),
        cache_dir=tmp_path,
        constants={"say": "ends"} if kind in ("file", "chain", "ends", "runs") else None,
        **options,
    )
    dataset = FileCacheDataset(manager, with_id=True)
    here = [dataset[id] for id in range(len(dataset))]
    loader = PlainLoader(
        dataset, batch_size=5, num_workers=2, collate_fn=list, multiprocessing_context=method
    )
    there = [sample for batch in loader for sample in batch]
    assert len(here) == len(there)
    for (one, id), (other, same) in zip(here, there, strict=True):
        assert id == same
        assert one.keys() == other.keys()
        assert all(one[name].equal(other[name]) for name in one)
