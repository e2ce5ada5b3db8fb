"""A run over URLs with a cache on local disk: each sample once, each chunk asked for once, in as many runs as it takes."""

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
import zarr
from files import numbers, write_hdf5, write_zarr
from processes import clean_environment
from servers import Server

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.errors import ReadError
from globidx.orders import ChunkShuffle

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

ITEMS, CHUNK = 96, 4


@pytest.fixture(params=["zarr", "sharded", "hdf5"])
def far(request, tmp_path):
    """A server over two files, and the items of both."""
    folder = tmp_path / "far"
    folder.mkdir()
    rows = []
    for number in range(2):
        # 4 KiB an item, so that chunks are no neighbours of metadata
        data = numbers(ITEMS, (1024,), start=100_000 * number).astype("i4")
        if request.param == "hdf5":
            write_hdf5(folder / f"{number}.h5", data, chunk=CHUNK)
        else:
            more = {"shard": 16} if request.param == "sharded" else {}
            write_zarr(folder / f"{number}.zarr", data, key="x", chunk=CHUNK, **more)
        rows.append(data)
    with Server(folder) as server:
        server.data = np.concatenate(rows)
        yield server


def leg(far, tmp_path, workers, state=None, stop=None):
    """Ids of the batches of a leg of a run, whose values are checked, and the state behind it."""
    manager = GlobalIndexManager(far.url, key="x", cache_dir=tmp_path / "index")
    dataset = FileCacheDataset(
        manager, with_id=True, local_cache=tmp_path / "cache", local_bytes=2**26
    )
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=ChunkShuffle(4), seed=3)
    if state is not None:
        sampler.load_state_dict(state)
    far.take()
    ids = []
    for number, (rows, some) in enumerate(
        DataLoader(dataset, 8, sampler=sampler, num_workers=workers)
    ):
        some = [int(one) for one in some]
        assert (rows.numpy() == far.data[some]).all()
        ids += some
        # in the loop, where the batch counts
        state = sampler.state_dict()
        if number + 1 == stop:
            break
    dataset.close()
    return ids, state


def ranges_of_data(asked):
    """The requests for chunks, without those for metadata and versions."""
    names = ("zarr.json", ".zarray", ".zattrs", ".zgroup")
    return [one for one in asked if not one[1].endswith(names) and one[2] != "bytes=0-0"]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resume_asks_for_what_is_lacking_and_an_epoch_later_for_nothing(far, tmp_path, workers):
    """Over legs on any number of workers, each sample once; what was kept is not asked for again."""
    first, state = leg(far, tmp_path, workers, stop=5)
    one = len(ranges_of_data(far.take()["asked"]))
    second, state = leg(far, tmp_path, workers, state)
    far.take()
    assert sorted(first + second) == list(range(2 * ITEMS))
    again, _ = leg(far, tmp_path, workers, state)
    assert sorted(again) == list(range(2 * ITEMS)) and one
    assert ranges_of_data(far.take()["asked"]) == []


_EPOCH = """
import sys
from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler

url, folder = sys.argv[1:]
manager = GlobalIndexManager(url, key="x", cache_dir=folder + "/index")
dataset = FileCacheDataset(manager, with_id=True, local_cache=folder + "/cache", local_bytes=2**18)
sampler = ResumableDistributedSampler(dataset, 1, 0)
for rows, ids in DataLoader(dataset, 8, sampler=sampler, num_workers=2):
    print(*[int(one) for one in ids], *[int(row[0]) for row in rows], flush=True)
"""


@pytest.mark.parametrize("far", ["sharded"], indirect=True)
def test_workers_that_are_killed_leave_a_cache_that_serves(far, tmp_path):
    """A job killed with all its workers at any batch; the next one has right samples, each once."""
    for kill_after in (5, None):
        job = subprocess.Popen(
            [sys.executable, "-c", _EPOCH, far.url, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env=clean_environment(),
            start_new_session=True,
        )
        seen = Counter()
        for number, line in enumerate(iter(job.stdout.readline, "")):
            ids, values = np.array(line.split(), int).reshape(2, -1)
            assert (far.data[ids, 0] == values).all()
            seen.update(ids.tolist())
            if number + 1 == kill_after:
                os.killpg(job.pid, signal.SIGKILL)
        job.stdout.close()
        job.wait(timeout=60)
    assert seen == Counter(range(2 * ITEMS)) and job.returncode == 0


@pytest.mark.parametrize("backend", ["auto", "library"])
def test_the_part_of_the_data_that_fits_is_found_in_each_epoch(tmp_path, backend):
    """What an epoch has had goes first; by age alone, most of what comes next would have gone."""
    folder, count = tmp_path / "far", 400
    folder.mkdir()
    write_zarr(folder / "0.zarr", numbers(count, (512,)), key="x", chunk=1, compressors=None)
    with Server(folder) as far:
        manager = GlobalIndexManager(far.url, key="x", cache_dir=tmp_path / "index")
        dataset = FileCacheDataset(
            manager,
            local_cache=tmp_path / "cache",
            local_bytes=count // 2 * 4096,
            cache_bytes=0,
            backend=backend,
        )
        hits = []
        for epoch in range(3):
            before = dataset._reader.kept_on_disk.hits
            ids = np.random.default_rng(epoch).permutation(count).tolist()
            for start in range(0, count, 25):
                dataset.__getitems__(ids[start : start + 25])
            hits.append(dataset._reader.kept_on_disk.hits - before)
        dataset.close()
    # some entries are under way, and some places are those of versions; zarr reads metadata again
    assert hits[0] == (backend == "library") and min(hits[1:]) > 0.7 * count // 2


def test_a_shard_that_was_replaced_is_not_read_by_the_index_that_was_kept(tmp_path):
    """The process that reads has never asked the server for the old one, and the error heals with the index."""
    data = numbers(64, (1024,)).astype("f4")
    (tmp_path / "far").mkdir()
    path = tmp_path / "far" / "a.zarr"
    write_zarr(path, data, chunk=2, shard=32)
    with Server(tmp_path / "far") as server:
        manager = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "index")
        for _ in range(2):
            dataset = FileCacheDataset(manager, local_cache=tmp_path / "cache")
            assert (dataset[0].numpy() == data[0]).all()
        shutil.rmtree(path)
        write_zarr(path, data + 1, chunk=2, shard=32)
        with pytest.raises(ReadError, match="was replaced while it was read"):
            dataset[20]
        manager.refresh()
        for row in (0, 20):
            assert (dataset[row].numpy() == data[row] + 1).all()


def test_a_later_run_knows_of_a_refresh_of_an_earlier_one(tmp_path):
    """Also for a chunk that the earlier one has not read since."""
    data = numbers(64, (1024,)).astype("i4")
    path = tmp_path / "far" / "a.zarr"
    path.parent.mkdir()
    write_zarr(path, data, chunk=2)
    with Server(tmp_path / "far") as server:

        def run():
            manager = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "index")
            return manager, FileCacheDataset(manager, local_cache=tmp_path / "cache")

        run()[1].__getitems__(range(64))
        zarr.open_array(path)[8:10] = -data[8:10]
        assert (run()[1][9].numpy() == data[9]).all()
        manager, dataset = run()
        manager.refresh()
        assert (dataset[0].numpy() == data[0]).all()
        assert (run()[1][9].numpy() == -data[9]).all()


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (1, False), (1, True)])
def test_after_a_refresh_chunks_are_those_of_now(tmp_path, workers, persistent, is_plain):
    """A chunk of a store that was rewritten in place; of the others a byte is asked for, some at a time.

    Workers that outlive an epoch are begun anew.
    """
    data = numbers(64, (1024,)).astype("i4")
    path = tmp_path / "far" / "a.zarr"
    path.parent.mkdir()
    write_zarr(path, data, chunk=2)
    with Server(tmp_path / "far") as server:
        manager = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "index")
        dataset = FileCacheDataset(manager, local_cache=tmp_path / "cache")
        sampler = None
        if not is_plain:
            sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
        # a worker that is spawned is sent the time of the refresh
        context = "spawn" if workers else None
        loader = DataLoader(
            # a wrapper does not hide that the index was refreshed
            torch.utils.data.Subset(dataset, range(64)) if persistent else dataset,
            16,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=persistent,
            multiprocessing_context=context,
        )

        def epoch():
            server.take()
            return np.concatenate([rows.numpy() for rows in loader]), server.take()

        assert (epoch()[0] == data).all()
        before = data.copy()
        data[8:10] += 1
        zarr.open_array(path)[8:10] = data[8:10]
        found, taken = epoch()
        assert (found == before).all() and not ranges_of_data(taken["asked"])
        manager.refresh()
        server.delay(0.01)
        found, taken = epoch()
        assert (found == data).all() and taken["most"] > 2
        (whole,) = ranges_of_data(taken["asked"])
        assert whole[1].endswith("c/4/0") and len(taken["asked"]) > 32
        found, taken = epoch()
        assert (found == data).all() and not ranges_of_data(taken["asked"])
        assert len(taken["asked"]) < 8
        dataset.close()
