"""A store behind a URL is read as the same store in a folder is."""

from __future__ import annotations

from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import zarr
from files import damaged, numbers, write_zarr
from servers import Server

pytest.importorskip("obstore")

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.line import Line
from globidx.disk.stores.zarr.containers import Folder
from globidx.disk.stores.zarr.far import TAIL, Far
from globidx.errors import MissingChunkError, ReadError


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of ``served``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as made:
        yield made


def test_both_containers_give_the_same(server):
    """Metadata, whole objects, parts of them, and what is not there."""
    path = Path(server.folder, "a.zarr")
    write_zarr(path, {"x": numbers(9, (3,)), "deep/y": numbers(9)})
    (path / "big").write_bytes(bytes(range(256)) * (TAIL // 64))
    (path / "empty").touch()
    line = Line()
    far, near = Far("u", *line.at(f"{server.url}/a.zarr")), Folder(str(path))
    for key in ("zarr.json", "x/zarr.json", "none", "x/c/0/0", "big", "empty"):
        assert far.read(key, 10**6) == near.read(key, 10**6) and far.has(key) == near.has(key)
        assert far.load(key) == near.load(key)
    assert far.read("big", 10) == near.read("big", 10)
    for key in ("none", "empty"):
        assert far.open(key) is None
    mine, its = far.open("big"), near.open("big")
    assert mine.size == its.size and mine.packed == 0
    for offset in (0, mine.size - 9, mine.size - TAIL - 4, mine.size // 2):
        for size in (8, 50_000):
            assert mine.read(size, offset) == its.read(size, offset)
    line.close()


def test_metadata_are_asked_for_at_the_same_time_and_once(server):
    """Also that something is not there."""
    write_zarr(Path(server.folder, "a.zarr"), {"x": numbers(9), "y": numbers(9)})
    line = Line()
    far = Far("u", *line.at(f"{server.url}/a.zarr"))
    server.delay(0.05)
    far.prime(["zarr.json", "x/zarr.json", "y/zarr.json", "none"])
    assert server.take()["most"] >= 3
    assert far.load("x/zarr.json") and far.load("none") is None
    assert server.take()["asked"] == []
    line.close()


def sharded(server, chunks=8):
    """One shard of ``chunks`` chunks, ten items each."""
    data = np.random.default_rng(0).integers(0, 2**16, (10 * chunks, 600), "u2")
    path = Path(server.folder, "s.zarr")
    zarr.create_array(path, data=data, chunks=(10, 600), shards=(10 * chunks, 600))
    return f"{server.url}/s.zarr", data


def test_of_a_shard_its_end_is_read_once_and_then_chunks(server):
    """A batch asks for the chunks that it takes, neighbours in one request."""
    url, data = sharded(server)
    dataset = FileCacheDataset(GlobalIndexManager(url), cache_bytes=0)
    server.take()
    ids = [5, 42, 55, 3]
    np.testing.assert_array_equal(np.stack(dataset.__getitems__(ids)), data[ids])
    ranges = [one[2] for one in server.take()["asked"] if "/c/" in one[1]]
    # chunks 0, 4 and 5 are near one another
    assert ranges[0] == f"bytes=-{TAIL}" and len(ranges) == 2
    np.testing.assert_array_equal(np.stack(dataset.__getitems__([70])), data[[70]])
    # it came with the end of the shard
    assert all(one[2] != f"bytes=-{TAIL}" for one in server.take()["asked"])


def test_a_shard_that_was_replaced_is_an_error(server):
    """Its index is that of another one."""
    url, data = sharded(server)
    dataset = FileCacheDataset(GlobalIndexManager(url), cache_bytes=0)
    np.testing.assert_array_equal(dataset[5], data[5])
    zarr.open_array(Path(server.folder, "s.zarr"), mode="r+")[:] = data[::-1]
    with pytest.raises(
        ReadError, match=r"sample id 15: item 15 of http.*was replaced while it was read"
    ):
        dataset[15]


@pytest.mark.parametrize("item", [5, 75], ids=["first", "last"])
@pytest.mark.parametrize("is_sharded", [False, True], ids=["chunks", "shard"])
def test_a_chunk_that_was_damaged_on_its_way_is_not_kept(server, tmp_path, is_sharded, item):
    """It is dropped when it cannot be decoded, and fetched once more: by this run, and by another one."""
    url, data = sharded(server)
    stored = Path(server.folder, "s.zarr", "c/0/0")
    if not is_sharded:
        zarr.create_array(f"{server.folder}/c.zarr", data=data, chunks=(10, 600))
        url, stored = f"{server.url}/c.zarr", Path(server.folder, "c.zarr", f"c/{item // 10}/0")

    def opened():
        manager = GlobalIndexManager(url, cache_dir=tmp_path / "index")
        return FileCacheDataset(manager, cache_bytes=0, local_cache=tmp_path / "cache")

    for reads_again in (True, False):
        dataset = opened()
        # the index of a shard has a checksum of its own
        told = pytest.raises(ReadError, match=f"sample id {item}: .* cannot be decoded")
        with damaged(stored, 0, -200 if is_sharded else None), told:
            dataset[item]
        # the end of a shard goes with a chunk of it, and is kept when it is asked for again
        for one in [dataset] * reads_again + [opened(), opened()]:
            np.testing.assert_array_equal(one[item], data[item])
        server.take()
        np.testing.assert_array_equal(opened()[item], data[item])
        assert [path for _, path, _ in server.take()["asked"] if "/c/" in path] == []
        LocalCache(tmp_path / "cache").clear()


def test_a_chunk_that_is_not_in_its_shard_is_missing(server):
    """As in a folder."""
    path = Path(server.folder, "m.zarr")
    array = zarr.create_array(path, shape=(40, 3), dtype="f4", chunks=(10, 3), shards=(40, 3))
    array[:10] = 1
    dataset = FileCacheDataset(GlobalIndexManager(f"{server.url}/m.zarr"))
    assert dataset[3].sum() == 3
    with pytest.raises(MissingChunkError, match="is not in its shard"):
        dataset[15]
    filled = FileCacheDataset(GlobalIndexManager(f"{server.url}/m.zarr"), on_missing="fill")
    assert filled[15].sum() == 0 and filled[3].sum() == 3


def test_files_of_a_batch_are_opened_at_the_same_time(server):
    """Not one after the other, each of which would take its requests."""
    data = numbers(12)
    for number in range(12):
        write_zarr(Path(server.folder, f"{number:02d}.zarr"), data[number : number + 1])
    manager = GlobalIndexManager([f"{server.url}/{number:02d}.zarr" for number in range(12)])
    # one chunk at a time: what is asked for at once are metadata
    dataset = FileCacheDataset(manager, prefetch_bytes=1)
    server.delay(0.05)
    server.take()
    np.testing.assert_array_equal(np.stack(dataset.__getitems__(list(range(12)))), data)
    assert server.take()["most"] >= 12


def test_names_that_urls_quote_are_read_as_they_are_listed(server, tmp_path):
    """Listings quote them, and a URL may be given either way."""
    names = ["a b.zarr", "a%20b.zarr", "a+b.zarr", "ü.zarr"]
    for number, name in enumerate(names):
        write_zarr(Path(server.folder, name), numbers(4, start=10 * number))
    manager = GlobalIndexManager(f"{server.url}/*.zarr", cache_dir=tmp_path / "index")
    dataset = FileCacheDataset(manager)
    firsts = {
        manager.locate(at).path.rpartition("/")[2]: int(dataset[at].flatten()[0])
        for at in (0, 4, 8, 12)
    }
    assert firsts == {"a%20b.zarr": 0, "a%2520b.zarr": 10, "a%2Bb.zarr": 20, "%C3%BC.zarr": 30}
    plain = GlobalIndexManager(f"{server.url}/a b.zarr", cache_dir=tmp_path / "other")
    assert (FileCacheDataset(plain)[1].numpy() == numbers(4, start=0)[1]).all()


@pytest.mark.parametrize("offset", [0, 10])
def test_a_chunk_without_bytes_is_not_asked_for(server, tmp_path, offset):
    """An index that says so is damaged; there is no such range."""
    path = Path(server.folder, "a.zarr")
    write_zarr(path, numbers(64, (1024,)), chunk=2, shard=32)
    manager = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "index")
    shard = next(path.glob("c/0/0*"))
    data = shard.read_bytes()
    index = np.frombuffer(data[-260:-4], "<u8").copy()
    index[:2] = offset, 0
    checksum = google_crc32c.value(index.tobytes()).to_bytes(4, "little")
    shard.write_bytes(data[:-260] + index.tobytes() + checksum)
    server.take()
    with pytest.raises(ReadError, match="cannot be decoded"):
        FileCacheDataset(manager)[0]
    ranges = [one[2] for one in server.take()["asked"] if "/c/" in one[1]]
    assert ranges == ["bytes=-16384"]
