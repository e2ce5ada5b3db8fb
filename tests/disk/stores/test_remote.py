"""Stores by URL: a real HTTP server on this machine, and fsspec's file system in memory."""

from __future__ import annotations

import http.server
import io
import multiprocessing
import os
import threading
import traceback
import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr
from files import numbers, write_hdf5, write_zarr
from servers import Server
from zipping import packed

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

from globidx import FileCacheDataset, GlobalIndexManager  # noqa: E402
from globidx.disk.reading import verify  # noqa: E402
from globidx.errors import BadFilesError, GlobidxError, MissingChunkError, NoFilesError, ReadError  # noqa: E402

STORES = {
    "v3": {},
    "v2": {"zarr_format": 2},
    "sharded": {"shard": 8},
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the server's folder, ranges of bytes too, and fails where it is told to."""

    def __init__(self, *arguments):
        super().__init__(*arguments, directory=arguments[2].folder)

    def send_head(self):
        """The file asked for."""
        self.server.asked.append(self.path)
        if self.server.broken in self.path:
            self.send_error(403)
            return None
        said = (self.headers.get("X-Secret"), self.path.partition("?")[2])
        if self.server.secret and self.server.secret not in said:
            self.send_error(403)
            return None
        path, wanted = self.translate_path(self.path), self.headers.get("Range")
        if wanted is None or not os.path.isfile(path):
            return super().send_head()
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        size = os.path.getsize(path)
        start = int(first) if first else max(0, size - int(last))
        stop = min(size, int(last) + 1) if first and last else size
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        with open(path, "rb") as file:
            return io.BytesIO(file.read()[start:stop])

    def log_message(self, *_):
        """Nothing."""


@pytest.fixture
def server(tmp_path):
    """A server of ``folder``; ``asked`` are the paths that were asked for."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.asked, server.broken = str(tmp_path / "served"), [], "\0"
    server.secret = None
    server.url = f"http://127.0.0.1:{server.server_port}"
    (tmp_path / "served").mkdir()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory():
    """A folder in fsspec's memory file system, gone afterwards."""
    files = fsspec.filesystem("memory")
    yield files
    files.store.clear()
    files.pseudo_dirs[:] = [""]


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """Caches of what lies elsewhere go to a folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def served(server, key=None, **options):
    """Three stores with 10, 0 and 7 items, their URLs, and all the data."""
    data = [numbers(n, (3,), start=start) for n, start in ((10, 1), (0, 1), (7, 100))]
    for name, items in zip("abc", data, strict=True):
        write_zarr(f"{server.folder}/{name}.zarr", items, key=key, **options)
    return [f"{server.url}/{name}.zarr" for name in "abc"], np.concatenate(data)


@pytest.mark.parametrize("key", [None, "deep/er/x"])
@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_every_kind_of_store_is_read_by_http(server, options, key):
    """The same lengths, fingerprint and samples as of the same stores on a local path."""
    urls, data = served(server, key, **options)
    manager = GlobalIndexManager(urls, key=key)
    local = GlobalIndexManager(server.folder, key=key)
    assert manager.lengths.tolist() == local.lengths.tolist() == [10, 0, 7]
    assert list(manager.paths) == urls and manager.locate(11) == (urls[2], 1)
    assert manager.fingerprint == local.fingerprint
    assert [manager.now.table.chunk_lengths[n, 0] for n in range(3)] == [
        local.now.table.chunk_lengths[n, 0] for n in range(3)
    ]
    dataset = FileCacheDataset(manager)
    np.testing.assert_array_equal(np.stack([dataset[id].numpy() for id in range(17)]), data)
    picked = [16, 0, 9, 10, 3, 3]
    np.testing.assert_array_equal(
        np.stack([item.numpy() for item in dataset.__getitems__(picked)]), data[picked]
    )


@pytest.mark.parametrize("named", ["/", "/*.zarr", "/a.zarr", "/[bc].zarr"])
def test_folders_and_globs_are_found_by_http(server, named):
    """Where the server lists its folders; what is no store in them is left out."""
    urls, _ = served(server)
    Path(server.folder, "d.txt").write_text("no store")
    wanted = {"/": urls, "/*.zarr": urls, "/a.zarr": urls[:1], "/[bc].zarr": urls[1:]}[named]
    assert list(GlobalIndexManager(server.url + named).paths) == wanted


@pytest.mark.parametrize("named", ["memory://data", "memory://data/*.zarr", "memory:///data/"])
def test_stores_in_memory_are_found_and_read(memory, named):
    """Another file system of fsspec's, which zarr has to wrap."""
    data = {"b": numbers(5), "a": numbers(3, start=50)}
    for name, items in data.items():
        write_zarr(f"memory://data/{name}.zarr", items, key="x")
    memory.pipe("/data/readme.txt", b"no store")
    manager = GlobalIndexManager(named, key="x")
    assert [path.rsplit("/", 1)[1] for path in manager.paths] == ["a.zarr", "b.zarr"]
    assert manager.lengths.tolist() == [3, 5]
    dataset = FileCacheDataset(manager)
    expected = np.concatenate([data["a"], data["b"]])
    np.testing.assert_array_equal(np.stack([dataset[id].numpy() for id in range(8)]), expected)


def _read(dataset, ids, queue):
    try:
        queue.put(np.stack([dataset[id].numpy() for id in ids]))
    except BaseException as error:
        queue.put(repr(error))
        raise


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded, use of fork:DeprecationWarning"
)  # Python 3.12 and later
def test_workers_read_what_their_parent_reads(server, start):
    """Two processes at once, started after the parent has read: connections and threads are not shared."""
    urls, data = served(server)
    dataset = FileCacheDataset(GlobalIndexManager(urls))
    np.testing.assert_array_equal(dataset[3].numpy(), data[3])
    context = multiprocessing.get_context(start)
    queues = [context.Queue() for _ in range(2)]
    workers = [
        context.Process(target=_read, args=(dataset, range(rank, 17, 2), queue), daemon=True)
        for rank, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    for rank, queue in enumerate(queues):
        np.testing.assert_array_equal(queue.get(timeout=60), data[rank::2])
    for worker in workers:
        worker.join()
    np.testing.assert_array_equal(dataset[16].numpy(), data[16])


@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_a_chunk_that_the_server_does_not_have_is_an_error(server, options):
    """Unless fill values are asked for; a chunk that was written full of them is none."""
    data = numbers(12, (2,))
    data[4:8] = 0  # a chunk of nothing but the fill value, written all the same
    path = f"{server.folder}/a.zarr"
    write_zarr(path, data, config={"write_empty_chunks": True}, **options)
    url = f"{server.url}/a.zarr"
    whole = FileCacheDataset(GlobalIndexManager(url))
    np.testing.assert_array_equal(whole[5].numpy(), data[5])
    chunk = zarr.open_array(path).metadata.encode_chunk_key(
        (1, 0) if "shard" in options else (2, 0)
    )
    os.unlink(os.path.join(path, chunk))
    with pytest.raises(MissingChunkError, match="is not in the store"):
        FileCacheDataset(GlobalIndexManager(url))[10]
    filled = FileCacheDataset(GlobalIndexManager(url), on_missing="fill")
    np.testing.assert_array_equal(filled[10].numpy(), [0, 0])
    absent = verify.check(GlobalIndexManager(url).now, decode=True, executor=None)
    assert [(one.absent, one.unreadable) for file in absent for one in file] == [(1, ())]


def test_chunks_with_data_in_them_are_not_asked_for_twice(server):
    """One request a chunk: whether it is there is asked only of what looks filled in."""
    urls, _ = served(server)
    dataset = FileCacheDataset(GlobalIndexManager(urls))
    server.asked.clear()
    for id in range(17):
        dataset[id]
    chunks = [path for path in server.asked if "/c/" in path]
    assert sorted(chunks) == sorted(set(chunks)) and len(chunks) == 5


def test_a_store_that_changed_is_seen_at_each_look(server):
    """No stamp proves anything of a URL: a refresh asks again, and a file opened for reading is compared."""
    urls, _ = served(server)
    manager = GlobalIndexManager(urls)
    assert not manager.refresh()
    zarr.open_array(f"{server.folder}/c.zarr", mode="r+").resize((9, 3))
    with pytest.raises(ReadError, match="changed since it was indexed"):
        FileCacheDataset(manager)[10]
    changes = manager.refresh()
    assert changes.grown == ("c.zarr",) and manager.lengths.tolist() == [10, 0, 9]


def test_what_cannot_be_had_is_told_by_url(server):
    """Servers that fail, stores that are not there, HDF5, and lists of both kinds."""
    urls, _ = served(server)
    server.broken = "b.zarr"
    with pytest.raises(BadFilesError, match=r"b\.zarr: .*403"):
        GlobalIndexManager(urls)
    server.broken = "c.zarr/c/"
    dataset = FileCacheDataset(GlobalIndexManager(urls))
    with pytest.raises(ReadError, match=r"item 1 of http.*c\.zarr: .*403"):
        dataset[11]
    with pytest.raises(BadFilesError, match="lost.zarr"):
        GlobalIndexManager([*urls[:1], f"{server.url}/lost.zarr"])
    with pytest.raises(NoFilesError, match=r"lost\.zarr"):
        GlobalIndexManager(f"{server.url}/lost.zarr")
    with pytest.raises(NoFilesError, match=r"there is nothing at .*a\.h5"):
        GlobalIndexManager(f"{server.url}/a.h5")
    with pytest.raises(BadFilesError, match=r"there is nothing at .*a\.h5"):
        GlobalIndexManager([f"{server.url}/a.h5"])
    with pytest.raises(ValueError, match="over local paths or over URLs, not both"):
        GlobalIndexManager([urls[0], f"{server.folder}/b.zarr"])
    with pytest.raises(NoFilesError, match="rotocol"):
        GlobalIndexManager("nosuch://a/b.zarr")


@pytest.fixture
def faulty(tmp_path):
    """A server that does wrong by plan, of a folder ``d`` with three stores; their URLs."""
    for name in "abc":
        write_zarr(f"{tmp_path}/served/d/{name}.zarr", numbers(4))
    with Server(tmp_path / "served") as server:
        yield server, [f"{server.url}/d/{name}.zarr" for name in "abc"]


BUSY = [{"kind": "status", "status": 503}, {"kind": "status", "status": 429}, {"kind": "reset"}]


@pytest.mark.parametrize("fault", BUSY, ids=lambda fault: str(fault.get("status", "reset")))
@pytest.mark.parametrize("named", ["/d/", "/d/*.zarr", "/d/b.zarr", "/*/b.zarr"])
def test_no_store_is_left_out_where_a_server_was_busy_for_a_moment(faulty, fault, named):
    """Neither one that is looked for, nor the folder that is listed; and none is told as removed."""
    server, urls = faulty
    wanted = [url for url in urls if url.endswith(named[-6:]) or "b.zarr" not in named]
    manager = GlobalIndexManager(server.url + named)
    assert list(manager.paths) == wanted
    server.take()
    GlobalIndexManager(server.url + named)
    asked = len(server.take()["asked"])
    for after in range(asked):
        server.plan({**fault, "times": 1, "after": after})
        assert list(GlobalIndexManager(server.url + named).paths) == wanted
    server.plan({**fault, "path": "b.zarr/zarr.json", "times": 1})
    assert not manager.refresh()


@pytest.mark.parametrize("named", ["/d/", "/d/*.zarr", "/d/b.zarr"])
def test_a_store_that_the_server_refuses_is_no_store_that_is_not_there(faulty, named):
    """An error names the URL that was asked for, and only what is not there is left out."""
    server, _ = faulty
    server.plan({"path": "b.zarr/zarr.json", "kind": "status", "status": 403})
    with pytest.raises(ReadError, match=r"d/b\.zarr/zarr\.json: .*403"):
        GlobalIndexManager(server.url + named)
    server.plan({"path": "b.zarr", "kind": "status", "status": 404})
    if "b.zarr" not in named:
        assert len(GlobalIndexManager(server.url + named).paths) == 2


def test_a_folder_that_the_server_refuses_to_list_is_an_error_with_its_url(faulty):
    """Not an empty one."""
    server, _ = faulty
    server.plan({"path": "/d", "kind": "status", "status": 403, "after": 3})
    with pytest.raises(ReadError, match=r"/d/\* cannot be listed: .*403"):
        GlobalIndexManager(server.url + "/d/*")


@pytest.mark.parametrize("path", ["/d//e/f.zarr", "/d/../d/b.zarr", "/./d/b.zarr", "/d/%62.zarr"])
@pytest.mark.parametrize("protocol", ["http", "HTTP"])
def test_what_is_indexed_is_read_however_its_url_is_written(faulty, protocol, path):
    """Also where obstore has no such paths; protocols are the same in capitals."""
    server, _ = faulty
    write_zarr(f"{server.folder}/d/e/f.zarr", numbers(4))
    manager = GlobalIndexManager(server.url.replace("http", protocol) + path)
    assert list(manager.paths) == [server.url + path]
    np.testing.assert_array_equal(FileCacheDataset(manager)[3], numbers(4)[3])


def test_a_store_behind_a_cache_is_not_left_out_without_a_word(faulty):
    """Nor where the chain's first link asks the server."""
    server, urls = faulty
    server.plan({"path": "b.zarr/zarr.json", "kind": "status", "status": 403})
    with pytest.raises(ReadError, match=r"b\.zarr/zarr\.json: .*403"):
        GlobalIndexManager(f"filecache::{server.url}/d/")
    server.plan({"path": "b.zarr/zarr.json", "kind": "status", "status": 503, "times": 1})
    wanted = [f"filecache::{url}" for url in urls]
    assert list(GlobalIndexManager(f"filecache::{server.url}/d/").paths) == wanted


# -- options of fsspec


SECRET = "hunter2-and-more"


@pytest.mark.parametrize("named", ["/", "/*.zarr", "/a.zarr"])
@pytest.mark.parametrize("options", STORES.values(), ids=STORES)
def test_options_reach_every_request(server, options, named, tmp_path):
    """A server that wants a header is listed, indexed, read and checked with it, and without it refuses."""
    urls, data = served(server, **options)
    server.secret = SECRET
    url = server.url + named
    with pytest.raises(GlobidxError):
        GlobalIndexManager(url, cache_dir=tmp_path)
    options = {"headers": {"X-Secret": SECRET}}
    manager = GlobalIndexManager(url, cache_dir=tmp_path, storage_options=options)
    assert list(manager.paths) == (urls[:1] if named == "/a.zarr" else urls)
    np.testing.assert_array_equal(FileCacheDataset(manager)[9], data[9])
    assert not manager.refresh()
    reports = verify.check(manager.now, decode=True, executor=None, storage_options=options)
    assert not any(one.unreadable or one.absent for file in reports for one in file)


def test_options_go_to_workers_and_nowhere_else(server, tmp_path):
    """A spawned process reads with them; they are in no cache file, fingerprint, message or repr."""
    urls, data = served(server)
    open_to_all = GlobalIndexManager(urls, cache_dir=tmp_path / "open").fingerprint
    server.secret = SECRET
    options = {"headers": {"X-Secret": SECRET}}
    manager = GlobalIndexManager(urls, cache_dir=tmp_path / "cache", storage_options=options)
    dataset = FileCacheDataset(manager)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_read, args=(dataset, range(17), queue), daemon=True)
    worker.start()
    np.testing.assert_array_equal(queue.get(timeout=60), data)
    worker.join()
    assert manager.fingerprint == open_to_all
    caches = list((tmp_path / "cache").iterdir())
    assert caches and not any(SECRET.encode() in path.read_bytes() for path in caches)
    assert not any(SECRET in repr(one) for one in (manager, dataset, manager.layout, manager._spec))
    server.broken = "c.zarr/c/"
    with pytest.raises(ReadError) as failure:
        dataset[11]
    assert SECRET not in str(failure.value)


@pytest.mark.parametrize("backend", ["auto", "library"])
def test_what_a_signed_url_says_is_an_option(server, backend, tmp_path):
    """In the URL it is refused, and not shown; as ``params`` it goes with each request, and nowhere else."""
    urls, data = served(server)
    for files in (
        f"{urls[0]}?sig={SECRET}",
        [f"{urls[0]}?sig={SECRET}"],
        f"s3://me:{SECRET}@bucket/*.zarr",
    ):
        with pytest.raises(ValueError, match="with a query or a password") as failure:
            GlobalIndexManager(files)
        assert SECRET not in str(failure.value)
    server.secret = f"sig={SECRET}"
    with pytest.raises(GlobidxError):
        GlobalIndexManager(urls)
    options = {"params": {"sig": SECRET}}
    manager = GlobalIndexManager(urls, cache_dir=tmp_path / "cache", storage_options=options)
    dataset = FileCacheDataset(manager, backend=backend)
    np.testing.assert_array_equal(np.stack([dataset[id] for id in range(17)]), data)
    assert not any(SECRET.encode() in path.read_bytes() for path in (tmp_path / "cache").iterdir())
    assert not any(
        SECRET in repr(one) or SECRET in str(one) for one in (manager, dataset, dataset.explain())
    )
    server.broken = "c.zarr/c/"
    with pytest.raises(ReadError) as failure:
        FileCacheDataset(manager, backend=backend).__getitems__([11, 12])
    assert SECRET not in "".join(traceback.format_exception(failure.value))


def test_options_of_a_chain_are_named_by_protocol(server, tmp_path):
    """As fsspec has them: each link gets its own."""
    urls, data = served(server)
    server.secret = SECRET
    options = {"http": {"headers": {"X-Secret": SECRET}}}
    options["simplecache"] = {"cache_storage": str(tmp_path / "kept")}
    manager = GlobalIndexManager(f"simplecache::{urls[0]}", storage_options=options)
    np.testing.assert_array_equal(FileCacheDataset(manager)[3], data[3])
    assert list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize("options", [3, [("anon", True)], {1: True}, "anon"])
def test_options_that_are_no_dict_by_name_are_refused(options):
    """Before anything is asked for."""
    with pytest.raises(TypeError, match="storage_options must be a dict"):
        GlobalIndexManager("memory://none", storage_options=options)


@pytest.mark.parametrize("kind", ["zarr", "h5", "zip"])
def test_many_files_are_looked_at_at_the_same_time(tmp_path, kind):
    """Their metadata are in flight together, as the server counts them."""
    (tmp_path / "far").mkdir()
    for number in range(16):
        path = tmp_path / f"far/{number:02d}.{kind}"
        if kind == "h5":
            write_hdf5(path, numbers(4))
        else:
            write_zarr(tmp_path / f"{number}" if kind == "zip" else path, numbers(4))
        if kind == "zip":
            packed(tmp_path / f"{number}", path)
    with Server(tmp_path / "far", delay=0.3) as server:
        urls = [f"{server.url}/{number:02d}.{kind}" for number in range(16)]
        assert len(GlobalIndexManager(urls, cache_dir=tmp_path / "index")) == 64
        assert server.take()["most"] >= 16


# -- chains of URLs, and what packages below fsspec raise


def zipped(folder, *names):
    """A ZIP file of stores in a folder ``in`` of it, and all the data."""
    data = []
    with zipfile.ZipFile(folder / "z.zip", "w") as archive:
        for number, name in enumerate(names):
            data.append(numbers(4, start=100 * number + 1))
            path = Path(write_zarr(folder / "stores/in" / f"{name}.zarr", data[-1], key="deep/x"))
            for file in sorted(path.rglob("*")):
                archive.write(file, file.relative_to(folder / "stores"))
    return folder / "z.zip", np.concatenate(data)


@pytest.mark.parametrize(
    "named", ["zip://in::{zip}", "zip://in/*.zarr::{zip}", "zip://in/::file://{zip}"]
)
def test_stores_in_an_archive_are_found_and_read(tmp_path, named):
    """A chain's path is that of its first link which has one, also for what lies below a store."""
    archive, data = zipped(tmp_path, "a", "b")
    manager = GlobalIndexManager(named.format(zip=archive), key="deep/x", cache_dir=tmp_path)
    assert [path.partition("::")[0] for path in manager.paths] == [
        "zip://in/a.zarr",
        "zip://in/b.zarr",
    ]
    np.testing.assert_array_equal(
        np.stack([FileCacheDataset(manager)[id] for id in range(8)]), data
    )


@pytest.mark.parametrize("named", ["", "/", "/*.zarr", "/a.zarr"])
@pytest.mark.parametrize("cache", ["simplecache", "filecache"])
def test_stores_behind_a_cache_are_found_and_read(server, cache, named):
    """As without the cache in front."""
    urls, data = served(server)
    manager = GlobalIndexManager(f"{cache}::{server.url}{named}")
    wanted = urls[:1] if "a.zarr" in named else urls
    assert list(manager.paths) == [f"{cache}::{url}" for url in wanted]
    np.testing.assert_array_equal(FileCacheDataset(manager)[9].numpy(), data[9])


def test_a_missing_chunk_in_an_archive_is_an_error(tmp_path):
    """It is looked for where it should lie in the archive."""
    archive, _ = zipped(tmp_path, "a")
    with zipfile.ZipFile(archive) as whole, zipfile.ZipFile(tmp_path / "less.zip", "w") as less:
        for name in whole.namelist():
            if not name.endswith("/c/0/0"):
                less.writestr(name, whole.read(name))
    manager = GlobalIndexManager(f"zip://in::{tmp_path}/less.zip", key="deep/x", cache_dir=tmp_path)
    with pytest.raises(MissingChunkError):
        FileCacheDataset(manager)[0]


@pytest.mark.parametrize(
    "url",
    [
        "zip://in::{here}/text",
        "zip://in::{here}/none.zip",
        "zip://in::{here}",
        "simplecache::nosuch://a",
        "nosuch://a/b",
        "memory://none",
        "zip://x/*::{here}/none",
    ],
)
def test_what_a_back_end_raises_is_one_of_our_errors(tmp_path, url):
    """Files that are no archive, protocols that nobody knows: the URL is named."""
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(GlobidxError, match=url.partition(":")[0]):
        GlobalIndexManager(url.format(here=tmp_path), cache_dir=tmp_path)


def test_errors_of_a_package_s_own_are_told_of_the_file(monkeypatch):
    """As botocore, gcsfs and paramiko have them: bases of their own below Exception."""

    class BackEndError(Exception):
        pass

    BackEndError.__module__ = "botocore.exceptions"

    class Failing(fsspec.AbstractFileSystem):
        protocol = "failing"

        def ls(self, path, detail=True, **options):
            raise BackEndError("no credentials")

        info = exists = ls

    fsspec.register_implementation("failing", Failing, clobber=True)
    with pytest.raises(ReadError, match="failing://bucket.*no credentials"):
        GlobalIndexManager("failing://bucket/a.zarr")
    with pytest.raises(BadFilesError, match="no credentials"):
        GlobalIndexManager(["failing://bucket/a.zarr"])
