"""zarr stores as zarr-python opens them."""

from __future__ import annotations

import asyncio
import json
import os
import pickle
import shutil
import warnings
from functools import partial
from threading import Thread

import numcodecs
import numpy as np
import pytest
import zarr
from files import numbers, write_zarr
from servers import Server
from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import default_buffer_prototype

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index.layout import Layout, parse
from globidx.disk.remote.line import Line
from globidx.disk.remote.retries import Bounds
from globidx.disk.stores import base as stores
from globidx.disk.stores.zarr import library
from globidx.disk.stores.zarr.far import Far
from globidx.errors import MissingChunkError, ReadError


def test_a_bare_array_has_no_keys(tmp_path):
    """Asking a bare array for a name says to leave the key out."""
    with pytest.raises(ValueError, match="leave key and layout out"):
        stores.scan(write_zarr(tmp_path / "s.zarr", numbers(3)), parse(None, ["x"]), 0)


def test_a_zarr_store_moves_as_a_whole(tmp_path):
    """Nothing in a store depends on where it lies."""
    write_zarr(tmp_path / "a.zarr", numbers(5), key="x")
    before = stores.scan(str(tmp_path / "a.zarr"), Layout(), 0)
    shutil.move(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert stores.scan(str(tmp_path / "b.zarr"), Layout(), 0) == before


# -- arrays that zarr cannot open

#: Metadata of arrays that zarr-python opens none of: Python objects, and a data type of nobody's.
PICKLED = {
    "zarr_format": 2,
    "shape": [3],
    "chunks": [3],
    "dtype": "|O",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": [{"id": "pickle", "protocol": 5}],
}


def with_unreadable(folder, zarr_format):
    """A group with an array and a group that zarr opens, and one array that it does not."""
    group = zarr.create_group(folder, zarr_format=zarr_format)
    group.create_array("x", data=numbers(3))
    group.create_array("deep/y", data=numbers(3))
    (folder / "odd").mkdir()
    if zarr_format == 2:
        (folder / "odd" / ".zarray").write_text(json.dumps(PICKLED))
        # were it read, it would end this process
        (folder / "odd" / "0").write_bytes(b"cos\n_exit\n(I3\ntR.")
    else:
        document = json.loads((folder / "x" / "zarr.json").read_text())
        changed = document | {"data_type": "quaternion"}
        (folder / "odd" / "zarr.json").write_text(json.dumps(changed))
    return folder


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("keys", [("x",), ("deep/y", "x")])
def test_an_array_that_zarr_cannot_open_hides_no_other(tmp_path, zarr_format, keys):
    """Those that are named are indexed."""
    path = with_unreadable(tmp_path / "a.zarr", zarr_format)
    entry = library.scan(str(path), Layout(keys), 0)
    assert entry.length == 3 and tuple(info.path for info in entry.arrays) == keys


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("odd",), r"its array 'odd' cannot be opened: .*(pickle|quaternion)"),
        (("x", "odd"), r"its array 'odd' cannot be opened: .*(pickle|quaternion)"),
        (("z",), r"no array 'z'; there is 'deep/y' of \(3, 3\), 'odd' that cannot be opened \("),
        (None, r"it holds 3 arrays \('deep/y' of \(3, 3\), 'odd' that cannot be opened \("),
    ],
)
def test_an_array_that_zarr_cannot_open_is_named_with_the_reason(
    tmp_path, zarr_format, keys, message
):
    """Where a key asks for it, and where arrays are listed; nothing is unpickled."""
    path = with_unreadable(tmp_path / "a.zarr", zarr_format)
    with pytest.raises(ValueError, match=message):
        library.scan(str(path), Layout(keys), 0)


def test_floats_that_zarr_has_not_lie_beside_what_it_alone_reads(tmp_path):
    """bfloat16 and text in one group, with keys and without; of a path out of the store, nothing is read."""
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("e", data=np.array([0x3F80, 0x4000, 0x4040], "u2"))
    document = json.loads((tmp_path / "a.zarr" / "e" / "zarr.json").read_text())
    changed = json.dumps(document | {"data_type": "bfloat16"})
    (tmp_path / "a.zarr" / "e" / "zarr.json").write_text(changed)
    (info,) = library.scan(str(tmp_path / "a.zarr"), Layout(), 0).arrays
    assert (info.path, info.dtype) == ("e", "bfloat16")
    # fixed bytes have no specification in zarr 3 yet
    with warnings.catch_warnings(action="ignore"):
        group.create_array("t", data=np.array([b"a", b"bb", b"c"]))
    manager = GlobalIndexManager(tmp_path / "a.zarr", key=["e", "t"])
    sample = FileCacheDataset(manager)[2]
    assert sample["e"].item() == 3 and sample["t"] == b"c"
    zarr.create_group(tmp_path / "b.zarr").create_array("t", data=numbers(3))
    with pytest.raises(ValueError, match="no array"):
        library.scan(str(tmp_path / "b.zarr"), Layout(("../a.zarr/e", "t")), 0)


def test_rows_without_elements_of_floats_that_zarr_has_not_are_given(tmp_path):
    """There is nothing to read, which needs no library."""
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("e", shape=(3, 0), chunks=(1, 1), dtype="u2")
    document = json.loads((tmp_path / "a.zarr" / "e" / "zarr.json").read_text())
    changed = json.dumps(document | {"data_type": "bfloat16"})
    (tmp_path / "a.zarr" / "e" / "zarr.json").write_text(changed)
    sample = FileCacheDataset(GlobalIndexManager(tmp_path / "a.zarr", key="e"))[1]
    assert sample.shape == (0,) and str(sample.dtype) == "torch.bfloat16"


# -- what zarr itself reads by URL

#: What has zarr read a store: a codec that our own path does not know, a wish, and chunks that are
#: not there.
BY_ZARR = {"codec": {}, "asked": {"backend": "library"}, "fill": {"on_missing": "fill"}}


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of ``served``, which is asked again without a pause."""
    pytest.importorskip("aiohttp")
    monkeypatch.setattr("globidx.disk.remote.retries.pause", lambda tried, jitter: 0.0)
    (tmp_path / "served").mkdir()
    with Server(tmp_path / "served") as made:
        made.path = tmp_path / "served/a.zarr"
        yield made


def written(server, how, data):
    """The store at the server, and its rows; of one that is filled, the second half is not there."""
    folder = server.path
    if how == "codec":
        filters = [numcodecs.FixedScaleOffset(0, 1, data.dtype)]
        zarr.create_array(
            folder, data=data, chunks=(4, 3), zarr_format=2, filters=filters, overwrite=True
        )
        return data
    if how == "asked":
        zarr.create_array(folder, data=data, chunks=(4, 3), shards=(8, 3), overwrite=True)
        return data
    kept = data.copy()
    kept[8:] = 5
    made = zarr.create_array(
        folder, shape=data.shape, dtype=data.dtype, chunks=(4, 3), fill_value=5, overwrite=True
    )
    made[:8] = data[:8]
    return kept


def far_dataset(server, tmp_path, how, **settings):
    """The store of ``written``, read by URL."""
    manager = GlobalIndexManager(f"{server.url}/a.zarr", cache_dir=tmp_path / "index")
    return FileCacheDataset(manager, cache_bytes=0, **BY_ZARR[how], **settings)


@pytest.mark.parametrize("how", BY_ZARR)
@pytest.mark.parametrize("fault", [{"kind": "status", "status": 503}, {"kind": "reset"}])
def test_what_zarr_reads_by_url_is_asked_for_again(server, tmp_path, how, fault):
    """Whatever is asked for is refused at first; and where it stays refused, the error says so."""
    rows = written(server, how, numbers(16, (3,)))
    dataset = far_dataset(server, tmp_path, how)
    server.plan(*({**fault, "path": path, "times": 1} for path in ("zarr.json", ".z", "zarr/")))
    np.testing.assert_array_equal(dataset.__getitems__(range(16)), rows)
    chunk = {**fault, "path": "a.zarr/3" if how == "codec" else "a.zarr/c"}
    # of what our own path has asked for first, zarr asks afterwards
    for after in range(3):
        server.plan({**chunk, "times": 1, "after": after})
        np.testing.assert_array_equal(dataset[12], rows[12])
    server.plan(chunk)
    with pytest.raises(ReadError, match=r"sample id 12: .*a\.zarr/.* cannot be had; asked 7 times"):
        dataset[12]


def test_zarr_waits_for_a_server_no_longer_than_a_request_is_given(server):
    """An answer that stops in its middle is asked for again, and told."""
    written(server, "asked", numbers(16, (3,)))
    line = Line(Bounds(tries=2, timeout=0.5))
    far = Far("u", *line.at(f"{server.url}/a.zarr"))
    store = library.open_store(f"{server.url}/a.zarr", 0, on_missing="error", far=far)
    assert store.describe("").shape == (16, 3)
    server.plan({"kind": "stall", "path": "/c/"})
    with pytest.raises(ReadError, match=r"a\.zarr/c/0/0 cannot be had; asked twice|asked 2 times"):
        store.read("", 0, 1)
    line.close()


@pytest.mark.parametrize("how", ["codec", "asked"])
def test_an_object_that_is_replaced_while_zarr_reads_is_an_error(server, tmp_path, how):
    """As where our own path reads it; a new look takes it as it is."""
    data = written(server, how, numbers(16, (3,)))
    dataset = far_dataset(server, tmp_path, how)
    np.testing.assert_array_equal(dataset[0], data[0])
    written(server, how, data[::-1].copy())
    with pytest.raises(ReadError, match="sample id 1: .*was replaced while it was read"):
        dataset[1]
    again = far_dataset(server, tmp_path, how)
    np.testing.assert_array_equal(again[1], data[::-1][1])


@pytest.mark.parametrize("how", BY_ZARR)
def test_what_zarr_has_read_is_kept_for_when_the_server_is_gone(server, tmp_path, how):
    """That a chunk is not there, too; and the server is left alone after it was asked in vain."""
    rows = written(server, how, numbers(16, (3,)))
    dataset = far_dataset(server, tmp_path, how, local_cache=tmp_path / "kept")
    np.testing.assert_array_equal(dataset.__getitems__(range(16)), rows)
    other = pickle.loads(pickle.dumps(dataset))
    server.plan({"kind": "status", "status": 503})
    for one in (dataset, other):
        np.testing.assert_array_equal(one.__getitems__(range(16)), rows)
        server.take()
        np.testing.assert_array_equal(one.__getitems__(range(16)), rows)
        assert server.take()["asked"] == []


@pytest.mark.parametrize("how", BY_ZARR)
def test_so_it_is_for_what_zarr_reads_of_a_zip_file(server, tmp_path, how):
    """Asked for again, kept for when the server is gone, and an error where it was replaced."""
    data = numbers(16, (3,))

    def packed(data):
        rows = written(server, how, data)
        shutil.make_archive(str(server.path.with_name("b")), "zip", server.path)
        return rows

    rows = packed(data)
    manager = GlobalIndexManager(f"{server.url}/b.zip", cache_dir=tmp_path / "index")
    settings = BY_ZARR[how] | {"cache_bytes": 0, "local_cache": tmp_path / "kept"}
    dataset = FileCacheDataset(manager, **settings)
    for after in range(4):
        server.plan({"kind": "status", "status": 503, "times": 1, "after": after})
        some = slice(4 * after, 4 * after + 4)
        np.testing.assert_array_equal(dataset.__getitems__(range(16)[some]), rows[some])
    server.plan({"kind": "status", "status": 503})
    np.testing.assert_array_equal(dataset.__getitems__(range(16)), rows)
    server.plan()
    dataset = FileCacheDataset(manager, **settings | {"local_cache": None})
    np.testing.assert_array_equal(dataset[0], rows[0])
    packed(data[::-1].copy())
    # a shard that was inflated is kept whole
    other = 9 if how == "asked" else 5
    with pytest.raises(ReadError, match=f"sample id {other}: .*was replaced while it was read"):
        dataset[other]


def test_a_chunk_that_zarr_would_fill_in_is_missing_by_url(server, tmp_path):
    """Though it is zarr that is asked; one that holds nothing but fill values is not."""
    written(server, "fill", numbers(16, (3,)))
    with zarr.config.set({"array.write_empty_chunks": True}):
        zarr.open_array(server.path, mode="r+")[8:12] = 5
    dataset = far_dataset(server, tmp_path, "asked")
    assert dataset[8].tolist() == [5, 5, 5]
    with pytest.raises(MissingChunkError, match="chunk c/3/0 of the array is not in the store"):
        dataset[12]


def test_zarr_has_the_same_bytes_by_url_as_from_a_folder(server):
    """All of an object, and parts of it; and what is not there."""
    server.path.mkdir()
    (server.path / "x").write_bytes(bytes(range(200)))
    (server.path / "empty").touch()
    line, near = Line(), zarr.storage.LocalStore(server.path, read_only=True)
    objects = Far("u", *line.at(f"{server.url}/a.zarr"))
    far = library._ByLine(partial(library._part_of_object, objects), lambda: near)
    parts = [None, RangeByteRequest(3, 9), RangeByteRequest(190, 300), OffsetByteRequest(150)]
    prototype = default_buffer_prototype()

    async def compare():
        for part in [*parts, SuffixByteRequest(7), SuffixByteRequest(200)]:
            ours, theirs = [await store.get("x", prototype, part) for store in (far, near)]
            assert ours.to_bytes() == theirs.to_bytes()
        wanted = [("x", part) for part in parts]
        many = [await store.get_partial_values(prototype, wanted) for store in (far, near)]
        ours, theirs = ([one.to_bytes() for one in found] for found in many)
        assert ours == theirs and await far.get("none", prototype) is None
        for key in ("x", "empty", "none"):
            assert await far.exists(key) == await near.exists(key)
        assert (await far.get("empty", prototype)).to_bytes() == b""
        assert sorted([name async for name in far.list_dir("")]) == ["empty", "x"]
        for write in (far.set("x", None), far.delete("x")):
            with pytest.raises(ValueError, match="read-only"):
                await write

    asyncio.run(compare())
    line.close()


def test_those_that_fetch_may_wait_for_zarr(server, tmp_path):
    """All hands of a line read by zarr at once, and so do other threads."""
    data = written(server, "asked", numbers(16, (3,)))
    line = Line(Bounds(requests=2))
    far = Far("u", *line.at(f"{server.url}/a.zarr"))
    store = library.open_store(f"{server.url}/a.zarr", 0, on_missing="error", far=far)
    read = line.map(lambda at: store.read("", at, at + 1)[0], range(16))
    np.testing.assert_array_equal(read, data)
    line.close()
    dataset, found = far_dataset(server, tmp_path, "asked"), {}
    threads = [Thread(target=lambda at=at: found.update({at: dataset[at]})) for at in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal([found[at] for at in range(16)], data)


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_reads_by_zarr_though_its_parent_has(server, tmp_path):
    """It has none of the threads that ask."""
    data = written(server, "codec", numbers(16, (3,)))
    dataset = far_dataset(server, tmp_path, "codec")
    np.testing.assert_array_equal(dataset[0], data[0])
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = dataset[1].tolist() == data[1].tolist()
        finally:
            os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(dataset[5], data[5])
