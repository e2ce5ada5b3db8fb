"""The laws over files by URL: what is delivered and committed is what it would be on a disk, only sooner.

A server in a process of its own, real workers, and faults on the line.
"""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
from collections import Counter

import numpy as np
import pytest
import torch
import zarr
from files import numbers, write_zarr
from processes import clean_environment
from servers import Server

pytest.importorskip("obstore")
pytest.importorskip("aiohttp")

import globidx
from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.core.generator import Moment
from globidx.errors import ReadError
from globidx.orders import ChunkShuffle
from globidx.torch.loops.moments import DatedIds

# Python 3.12 and later
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

FILES, ITEMS = 3, 40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three stores: chunks of one item, of four, and shards; and all samples."""
    folder = tmp_path_factory.mktemp("far")
    rows = np.random.default_rng(1).integers(0, 2**16, (FILES * ITEMS, 40), "u2")
    for number, (chunk, shard) in enumerate([(4, None), (4, 20), (4, None)]):
        some = rows[number * ITEMS : (number + 1) * ITEMS]
        zarr.create_array(
            folder / f"{number}.zarr",
            data=some,
            chunks=(chunk, 40),
            shards=shard and (shard, 40),
            zarr_format=2 if number == 2 else 3,
        )
    with Server(folder) as server:
        yield server, rows


@pytest.fixture
def server(data, tmp_path, monkeypatch):
    """The server with nothing planned, and caches of this test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data[0].plan()
    data[0].delay(0)
    data[0].take()
    return data[0]


def urls(server):
    return [f"{server.url}/{number}.zarr" for number in range(FILES)]


def loaded(dataset, sampler, **options):
    return DataLoader(dataset, sampler=sampler, **{"batch_size": 7, **options})


def delivered(loader, most=None):
    """The batches, as lists of (id, sample), of as many steps."""
    batches = []
    for batch in loader:
        samples, ids = batch
        batches.append(
            [(int(id), sample.numpy().copy()) for id, sample in zip(ids, samples, strict=True)]
        )
        if len(batches) == most:
            break
    return batches


def ids_of(batches):
    return [id for batch in batches for id, _ in batch]


def require_right(batches, rows):
    for batch in batches:
        for id, sample in batch:
            np.testing.assert_array_equal(sample, rows[id])


CASES = [
    ({}, 0, {}),
    ({"prefetch_bytes": 300}, 0, {"batch_size": 3}),
    ({"requests": 2, "cache_bytes": 0}, 0, {"drop_last": True}),
    ({}, 2, {}),
    ({"requests": 3}, 1, {"batch_size": 5, "prefetch_factor": 3}),
]


@pytest.mark.parametrize("order", [None, ChunkShuffle()], ids=["shuffle", "chunks"])
@pytest.mark.parametrize(("reading", "workers", "loading"), CASES)
def test_batches_are_those_of_local_files(server, data, reading, workers, loading, order):
    """The same ids in the same batches, and their samples; each once."""
    near = FileCacheDataset(GlobalIndexManager(server.folder), with_id=True)
    far = FileCacheDataset(GlobalIndexManager(urls(server)), with_id=True, **reading)
    assert far.fingerprint == near.fingerprint
    runs = []
    for dataset in (near, far):
        sampler = ResumableDistributedSampler(dataset, 1, 0, order=copy.copy(order))
        loader = loaded(dataset, sampler, num_workers=workers, **loading)
        runs.append((delivered(loader), sampler.state_dict()))
    (expected, record), (got, same) = runs
    assert [[id for id, _ in batch] for batch in got] == [
        [id for id, _ in batch] for batch in expected
    ]
    assert record == same
    require_right(got, data[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_resumed_on_other_ranks_reads_each_sample_once(server, data, workers):
    """What was drawn ahead was not delivered, and is not in the record."""
    manager = GlobalIndexManager(urls(server))
    dataset = FileCacheDataset(manager, with_id=True)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=3)
    first = delivered(loaded(dataset, sampler, num_workers=workers), most=4)
    record = sampler.state_dict()
    # the batch that the loop was left in is delivered again
    done = ids_of(first)[: 3 * 7]
    rest = []
    for rank in range(2):
        other = FileCacheDataset(manager, with_id=True)
        own = ResumableDistributedSampler(other, 2, rank, seed=3, tail="exact")
        own.load_state_dict(record)
        rest += delivered(loaded(other, own, batch_size=5, num_workers=workers))
    require_right(first + rest, data[1])
    assert sorted(done + ids_of(rest)) == list(range(FILES * ITEMS))


FAULTS = [
    {"kind": "status", "status": 503},
    {"kind": "reset"},
    {"kind": "truncate"},
    {"kind": "shift"},
]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_line_that_breaks_again_and_again_changes_nothing(server, data, workers):
    """Errors of all kinds, all through the epoch."""
    dataset = FileCacheDataset(GlobalIndexManager(urls(server)), with_id=True, cache_bytes=0)
    server.plan(
        *(
            {**fault, "path": "/c/" if n else ".zarr", "after": 5 + 3 * n, "times": 2}
            for n, fault in enumerate(FAULTS)
        )
    )
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    batches = delivered(loaded(dataset, sampler, num_workers=workers))
    require_right(batches, data[1])
    assert sorted(ids_of(batches)) == list(range(FILES * ITEMS))


def test_a_chunk_that_cannot_be_had_is_told_and_nothing_else_is_lost(server, data):
    """The error names file and id; a new loop over the mended line delivers what was left."""
    dataset = FileCacheDataset(GlobalIndexManager(urls(server)), with_id=True, cache_bytes=0)
    sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    server.plan({"path": "0.zarr/c/5", "kind": "status", "status": 403})
    first = []
    with pytest.raises(ReadError, match=r"sample id 20.*0\.zarr.*403"):
        for samples, ids in loaded(dataset, sampler, batch_size=4):
            first.append([(int(id), one.numpy()) for id, one in zip(ids, samples, strict=True)])
    server.plan()
    done = list(range(20))
    assert ids_of(first) == done
    rest = delivered(loaded(dataset, sampler, batch_size=4))
    assert sorted(set(done + ids_of(rest))) == list(range(FILES * ITEMS))
    require_right(first + rest, data[1])


KILLED = """
import multiprocessing, os, signal, sys
from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler

def main(urls):
    dataset = FileCacheDataset(GlobalIndexManager(urls), with_id=True)
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    committed, held = [], []
    try:
        for step, (_, ids) in enumerate(DataLoader(dataset, 2, sampler=sampler, num_workers=2)):
            committed, held = committed + held, ids.tolist()
            if step == 3:
                for worker in multiprocessing.active_children():
                    os.kill(worker.pid, signal.SIGKILL)
    # torch's own, or that of a pipe whose end is gone
    except (RuntimeError, EOFError, OSError):
        # it had come back for the next batch
        committed += held
        print("failed", flush=True)
    left = sampler.remaining
    rest = [int(id) for _, ids in DataLoader(dataset, 5, sampler=sampler) for id in ids]
    print("left", left, len(rest), sorted(committed + rest) == list(range(len(dataset))), flush=True)

if __name__ == "__main__":
    main(sys.argv[1:])
"""


def test_workers_that_are_killed_lose_nothing(server, tmp_path):
    """By SIGKILL, with requests under way: the loop fails at once, and is gone on with."""
    (tmp_path / "killed.py").write_text(KILLED)
    server.delay(0.01)
    done = subprocess.run(
        [sys.executable, tmp_path / "killed.py", *urls(server)],
        env=clean_environment(XDG_CACHE_HOME=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    # on stderr there may be more: torch raises in whatever the main thread does at the signal
    assert done.returncode == 0 and done.stdout.startswith("failed\n"), (done.stdout, done.stderr)
    _, word, left, delivered_then, is_exact = done.stdout.split()
    assert (word, left, is_exact) == ("left", delivered_then, "True")


def test_requests_are_in_flight_while_the_loop_holds_a_batch(server):
    """In one process: the next batches' chunks arrive without being asked for by the loop."""
    dataset = FileCacheDataset(GlobalIndexManager(urls(server)), with_id=True)
    loader = loaded(
        dataset, ResumableDistributedSampler(dataset, 1, 0, shuffle=False), batch_size=4
    )
    batches = iter(loader)
    next(batches)
    ahead = dataset._reader.line.ahead
    with ahead._changed:
        assert ahead._changed.wait_for(lambda: ahead.nbytes and not ahead._flying, timeout=30)
    server.take()
    next(batches)
    assert [one for one in server.take()["asked"] if "0.zarr/c/1/" in one[1]] == []


def test_the_bounds_are_validated_and_explained(server):
    """And an index of local files has no line."""
    manager = GlobalIndexManager(urls(server))
    for wrong in (
        {"requests": 0},
        {"requests": 1.5},
        {"prefetch_bytes": 0},
        {"prefetch_bytes": "1G"},
    ):
        with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
            FileCacheDataset(manager, **wrong)
    dataset = FileCacheDataset(manager, requests=5, prefetch_bytes=2**20)
    dataset[0]
    told = dataset.explain().splitlines()[-1]
    assert (
        told == "by URL: obstore (http); at most 5 requests in flight, 1 MiB fetched ahead"
        or "fsspec (http" in told
    )
    assert "by URL" not in FileCacheDataset(GlobalIndexManager(server.folder)).explain()
    assert globidx.FileCacheDataset(manager).foresight > 0


@pytest.mark.parametrize("path", ["zarr.json", "/c/"])
def test_what_cannot_be_had_is_waited_for_twice_and_no_more(tmp_path, monkeypatch, path):
    """Once ahead of time and once where it is read, however many samples of the batch want it."""
    write_zarr(tmp_path / "a.zarr", numbers(64), chunk=2, shard=32)
    monkeypatch.setattr("globidx.disk.remote.retries.pause", lambda tried, jitter: 0.0)
    with Server(tmp_path) as server:
        manager = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "index")
        dataset = FileCacheDataset(manager)
        server.plan({"kind": "status", "status": 500, "path": path})
        server.take()
        with pytest.raises(ReadError, match="asked 7 times"):
            dataset.__getitems__(range(32))
        asked = [one for one in server.take()["asked"] if path in one[1]]
        assert len(asked) <= 14
        dataset.close()


def cropped(rng, shape):
    """A quarter of an image."""
    top, left = rng.integers(0, 9, 2)
    return {1: slice(int(top), int(top) + 8), 2: slice(int(left), int(left) + 8)}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """A store with a field of each kind that is not read by whole chunks of rows, behind a server."""
    folder = tmp_path_factory.mktemp("kinds")
    rng, count = np.random.default_rng(5), 24
    root = zarr.open_group(folder / "a.zarr", mode="w")
    root.create_array("image", data=rng.integers(1, 99, (count, 16, 16)), chunks=(2, 8, 8))
    dense = rng.integers(1, 9, (count, 30)) * (rng.random((count, 30)) < 0.3)
    matrix = root.create_group("X")
    matrix.attrs.update({"encoding-type": "csr_matrix", "shape": [count, 30]})
    ends = np.concatenate([[0], np.cumsum((dense > 0).sum(axis=1))])
    for name, values in (
        ("indptr", ends),
        ("indices", np.nonzero(dense)[1]),
        ("data", dense[dense > 0]),
    ):
        matrix.create_array(
            name, data=values, chunks=(9,), shards=(18,) if name == "data" else None
        )
    runs = np.concatenate([[0], np.cumsum(rng.integers(1, 6, count))])
    root.create_array("offsets", data=runs, chunks=(5,))
    root.create_array("points", data=rng.random((int(runs[-1]), 3)), chunks=(4, 3))
    obs = root.create_group("obs/cell")
    obs.attrs["encoding-type"] = "categorical"
    obs.create_array("codes", data=rng.integers(0, 3, count).astype("i1"), chunks=(3,))
    obs.create_array("categories", data=np.array([10, 20, 30]), chunks=(3,))
    with Server(folder) as server:
        yield server


KINDS = {
    "crops": ({"key": "image"}, {"select": cropped}),
    "a part": ({"key": "image"}, {"select": {1: slice(0, 8)}, "part": (1, 2)}),
    "sparse": ({"key": "X", "layout": "anndata"}, {}),
    "sparse rows": ({"key": "X", "layout": "anndata"}, {"sparse": "row"}),
    "ragged": ({"key": "points[offsets]"}, {}),
    "codes": ({"key": "obs/cell", "layout": "anndata"}, {}),
}


def numbers_of(sample):
    """A sample as lists: of a sparse row, its columns and values."""
    parts = sample if isinstance(sample, tuple) else (sample,)
    return [np.asarray(part).tolist() for part in parts]


@pytest.mark.parametrize("cache", [2**20, 0], ids=["cache", "no cache"])
@pytest.mark.parametrize("ahead", [True, False], ids=["ahead", "a batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_field_is_asked_for_at_once_and_ahead(kinds, tmp_path, kind, ahead, cache):
    """Each chunk once in a batch, however many samples take a part of it, after what tells where they lie."""
    where, how = KINDS[kind]
    near, far = (
        FileCacheDataset(
            GlobalIndexManager(f"{root}/a.zarr", cache_dir=tmp_path / name, **where),
            **how,
            cache_bytes=cache,
        )
        for name, root in (("near", kinds.folder), ("far", kinds.url))
    )
    sampler = ResumableDistributedSampler(far, 1, 0, seed=2)
    batches = list(torch.utils.data.BatchSampler(iter(sampler), 12, drop_last=False))
    moments = [DatedIds(ids, Moment(2, 0)) for ids in batches]
    expected = [numbers_of(sample) for ids in moments for sample in near.__getitems__(ids)]
    # the file is open, and what was closed is read again
    far[0]
    far.close()
    far[0]
    kinds.delay(0.05)
    kinds.take()
    if ahead:
        loader = loaded(far, sampler, batch_size=12, collate_fn=list)
        got = [numbers_of(sample) for batch in loader for sample in batch]
    else:
        got = [numbers_of(sample) for sample in far.__getitems__(moments[0])]
        expected = expected[:12]
    taken = kinds.take()
    kinds.delay(0)
    assert got == expected
    asked = Counter((path, span) for _, path, span in taken["asked"] if "/c/" in path)
    # what one batch has taken may be gone before another is planned
    assert ahead or [one for one, times in asked.items() if times > 1] == []
    assert taken["most"] >= min(len(asked), 12) // 2


def test_forked_workers_read_s3_whether_their_parent_has_or_not(tmp_path, monkeypatch):
    """Rust's threads are not in them if it has: they ask by s3fs."""
    pytest.importorskip("s3fs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    rows = np.arange(3 * ITEMS).reshape(-1, 3)
    (tmp_path / "data/bucket").mkdir(parents=True)
    zarr.create_array(tmp_path / "data/bucket/a.zarr", data=rows, chunks=(4, 3))
    with Server(tmp_path / "data") as server:
        options = {"key": "any", "secret": "any", "endpoint_url": server.url}
        options["client_kwargs"] = {"region_name": "us-east-1"}
        dataset = FileCacheDataset(
            GlobalIndexManager("s3://bucket/a.zarr", storage_options=options)
        )
        loader = DataLoader(
            dataset,
            8,
            sampler=ResumableDistributedSampler(dataset, 1, 0),
            num_workers=2,
            multiprocessing_context="fork",
        )
        for _ in range(2):
            assert sorted(torch.cat(list(loader)).tolist()) == rows.tolist()
            # before the second pass, its parent has
            assert dataset[7].tolist() == rows[7].tolist()


def test_a_file_that_a_reader_opens_does_not_keep_those_waiting_that_fetch_it(
    tmp_path, monkeypatch
):
    """However few there are: here one, while a batch of that file and another one is planned."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for number in range(2):
        write_zarr(tmp_path / f"{number}.zarr", numbers(4), chunk=2, zarr_format=2)
    with Server(tmp_path) as server:
        manager = GlobalIndexManager([f"{server.url}/{number}.zarr" for number in range(2)])
        dataset = FileCacheDataset(manager, requests=1)
        reader, opening, touched = dataset._reader, threading.Event(), threading.Event()
        opened, touch = reader.open, reader._touch

        def slow_open(key):
            if not opening.is_set():
                opening.set()
                assert touched.wait(30)
            return opened(key)

        def seen_touch(now, file):
            if opening.is_set():
                touched.set()
            return touch(now, file)

        monkeypatch.setattr(reader, "open", slow_open)
        monkeypatch.setattr(reader, "_touch", seen_touch)
        results = []
        threads = [
            threading.Thread(target=lambda ids=ids: results.append(dataset.__getitems__(ids)))
            for ids in ([0], [1, 5])
        ]
        threads[0].start()
        assert opening.wait(30)
        threads[1].start()
        for thread in threads:
            thread.join(30)
        assert sorted(map(len, results)) == [1, 2]
        dataset.close()


def test_what_was_fetched_ahead_of_a_refresh_is_not_read_after_it(tmp_path):
    """In mid-epoch: the next batch has the rows that its chunk has now."""
    rows = numbers(32, (16,)).astype("i4")
    path = tmp_path / "far" / "a.zarr"
    write_zarr(path, rows, chunk=4)
    with Server(tmp_path / "far") as far:
        manager = GlobalIndexManager(f"{far.url}/a.zarr", cache_dir=tmp_path / "index")
        dataset = FileCacheDataset(manager)
        sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
        batches = iter(loaded(dataset, sampler, batch_size=4))
        assert (next(batches).numpy() == rows[:4]).all()
        ahead = dataset._reader.line.ahead
        with ahead._changed:
            assert ahead._changed.wait_for(lambda: ahead.nbytes and not ahead._flying, timeout=30)
        rows[4:] += 1
        zarr.open_array(path)[4:] = rows[4:]
        manager.refresh()
        rest = [batch.numpy() for batch in batches]
        assert (np.concatenate(rest) == rows[4:]).all() and len(sampler) == 32
        dataset.close()
