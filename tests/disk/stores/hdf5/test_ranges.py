"""HDF5 files by URL: what is read is what a copy of the file holds, by few requests, of one version."""

import os
import pickle
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
from files import damaged, numbers, run_python
from processes import clean_environment
from servers import Server

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.local_cache.cached_objects import CachedObjects
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.line import Line
from globidx.disk.remote.retries import Bounds
from globidx.disk.stores.hdf5 import chunk_table, ranges
from globidx.disk.stores.hdf5.ranges import RangeFile
from globidx.errors import BadFilesError, NoFilesError, ReadError

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp")

ROWS = 60


def write(path, *, start=0, attributes=0):
    """A file with arrays that are stored in as many ways."""
    data = numbers(ROWS, (6, 5), start=start).astype("u2")
    with h5py.File(path, "w") as file:
        for number in range(attributes):
            file[f"padding/{number}"] = np.zeros(64)
        packed = {"chunks": (4, 6, 5), "compression": "gzip", "shuffle": True, "fletcher32": True}
        file.create_dataset("packed", data=data, **packed)
        file.create_dataset("raw", data=data, chunks=(7, 3, 5))
        file.create_dataset("plain", data=data)
        file.create_dataset("swapped", data=data.astype(">i4"))
        file.create_dataset("across", data=np.moveaxis(data, 0, 1), chunks=(6, 9, 5))
        file.create_dataset("lzf", data=data, chunks=(8, 6, 5), compression="lzf")
        file.create_dataset("text", data=[f"row {row}" for row in range(ROWS)])
    return data


WAYS = ["packed", "raw", "plain", "swapped"]


@pytest.fixture
def far(tmp_path):
    """A server over a folder of two files."""
    folder = tmp_path / "far"
    folder.mkdir()
    write(folder / "a.h5")
    write(folder / "b.hdf5", start=10_000)
    with Server(folder) as server:
        server.path = folder
        yield server


def both(far, tmp_path, key, **options):
    """The samples of a copy of the files, and a dataset of them by URL."""
    cache = options.pop("local_cache", None)
    kept = {} if cache is None else {"local_cache": cache, "local_bytes": 2**28}
    local = FileCacheDataset(
        GlobalIndexManager(far.path, key=key, cache_dir=tmp_path / "index", **options)
    )
    manager = GlobalIndexManager(far.url, key=key, cache_dir=tmp_path / "far-index", **options)
    assert len(manager) == len(local)
    return local, FileCacheDataset(manager, **kept)


def assert_same(local, by_url, ids=None):
    ids = np.random.default_rng(0).permutation(len(local)).tolist() if ids is None else ids
    for start in range(0, len(ids), 16):
        some = ids[start : start + 16]
        for one, other in zip(local.__getitems__(some), by_url.__getitems__(some), strict=True):
            pairs = zip(one.values(), other.values()) if isinstance(one, dict) else [(one, other)]  # noqa: B905
            for first, second in pairs:
                assert first == second if isinstance(first, str) else (first == second).all()


@pytest.mark.parametrize("cached", [False, True])
def test_arrays_are_those_of_a_copy(far, tmp_path, cached):
    """However they are stored; those that HDF5 itself must read take a local cache."""
    cache = tmp_path / "cache" if cached else None
    keys = [*WAYS, "lzf", "text"] if cached else WAYS
    local, by_url = both(far, tmp_path, keys, local_cache=cache)
    assert_same(local, by_url)
    assert by_url.explain().split("at most")[0].count("by URL") == len(keys)
    if cached:
        assert (
            "filter lzf; by URL, so all of the file is fetched into the local cache"
            in by_url.explain()
        )
    by_url.close()


def test_items_along_another_axis_and_windows(far, tmp_path):
    """Pieces are those of the rows that a field takes."""
    assert_same(*both(far, tmp_path, "across", axis=1))
    assert_same(*both(far, tmp_path, ["packed", "plain"], sequences="file", window=[-2, 0, 5]))
    assert_same(*both(far, tmp_path, ["raw", "plain"], sequences="axis"))


def test_a_part_of_each_sample(far, tmp_path):
    """Of chunks, and of contiguous rows."""
    local, by_url = both(far, tmp_path, ["raw", "plain"])
    select = {"raw": {1: [0, 4]}, "plain": {1: slice(1, 3)}}
    assert_same(*(FileCacheDataset(one.index_manager, select=select) for one in (local, by_url)))


def test_what_hdf5_must_read_is_refused_without_a_local_cache(far, tmp_path):
    """By one sentence that names the file and says what to do; explain() says so before."""
    _, by_url = both(far, tmp_path, "lzf")
    assert "filter lzf; by URL, which takes local_cache=" in by_url.explain()
    with pytest.raises(
        ReadError, match=r"item 3 of http.*a\.h5.*give FileCacheDataset a local_cache="
    ):
        by_url[3]


def test_a_batch_is_a_few_requests(far, tmp_path):
    """Metadata are pages, and chunks that lie beside one another are one range."""
    with h5py.File(far.path / "a.h5", "w") as file:
        file.create_dataset("x", data=numbers(512, (32,)), chunks=(2, 32))
    (far.path / "b.hdf5").unlink()
    manager = GlobalIndexManager(f"{far.url}/a.h5", key="x", cache_dir=tmp_path / "index")
    dataset = FileCacheDataset(manager)
    far.take()
    dataset.__getitems__(list(range(200)))
    asked = far.take()["asked"]
    assert len(asked) <= 6 and all(span for _, _, span in asked)


def test_an_epoch_is_asked_for_once(far, tmp_path):
    """With a local cache the next one, of this process or another, asks for versions alone, and not while files are open."""
    local, by_url = both(far, tmp_path, [*WAYS, "lzf"], local_cache=tmp_path / "cache")
    assert_same(local, by_url)
    again = pickle.loads(pickle.dumps(by_url))
    far.take()
    by_url._reader.cached.clear()
    assert_same(local, by_url, list(range(len(local))))
    assert far.take()["asked"] == []
    assert_same(local, again, list(range(len(local))))
    assert {span for _, _, span in far.take()["asked"]} == {"bytes=0-0"}


_ANOTHER = """
import sys
import numpy as np
from globidx import DataLoader, FileCacheDataset, GlobalIndexManager
if __name__ == "__main__":
    url, index, rows = sys.argv[1:]
    dataset = FileCacheDataset(GlobalIndexManager(url, key="x", cache_dir=index))
    np.save(rows, np.concatenate([batch.numpy() for batch in DataLoader(dataset, 50, num_workers=2)]))
"""


def test_another_process_asks_for_no_metadata(tmp_path):
    """Nor do its workers: what was read to find chunks is kept beside the index, by the version of the file."""
    (tmp_path / "far").mkdir()
    path, data = tmp_path / "far/a.h5", numbers(2000, (16,))
    with h5py.File(path, "w") as file:
        for number in range(200):
            file.create_dataset(f"padding/{number}", data=np.zeros(64), chunks=(8,))
        x = file.create_dataset("x", data=data, chunks=(1, 16), maxshape=(None, 16))
        infos = [x.id.get_chunk_info(number) for number in range(2000)]
    begins = {info.byte_offset for info in infos}
    ends = {info.byte_offset + info.size - 1 for info in infos}

    def metadata():
        """The ranges that were asked for, less those of data."""
        asked = [tuple(map(int, one[2][6:].split("-"))) for one in far.take()["asked"]]
        about = [one for one in asked if not (one[0] in begins and one[1] in ends)]
        assert len(about) < len(asked)
        return about

    def read():
        """The rows that this process has, as if it had just begun."""
        chunk_table._kept.clear()
        manager = GlobalIndexManager(f"{far.url}/a.h5", key="x", cache_dir=tmp_path / "index")
        return np.stack(FileCacheDataset(manager).__getitems__(list(range(2000))))

    with Server(tmp_path / "far") as far:
        np.testing.assert_array_equal(read(), data)
        # the first page, and many others
        asked = metadata()
        assert (0, ranges.PAGE - 1) in asked and sum(b - a for a, b in asked) > 3 * ranges.PAGE
        rows = tmp_path / "rows.npy"
        run_python(_ANOTHER, f"{far.url}/a.h5", tmp_path / "index", rows)
        np.testing.assert_array_equal(np.load(rows), data)
        # its version: to find it, to index it, and to open it in each worker
        assert sorted(metadata()) == [(0, 0)] + 3 * [(0, ranges.PAGE - 1)]
        # of another version, nothing counts that was kept
        with h5py.File(path, "r+") as file:
            file["x"][:] = data[::-1]
        np.testing.assert_array_equal(read(), data[::-1])
        assert sum(b - a for a, b in metadata()) > 3 * ranges.PAGE


_OFFLINE = """
import pickle, sys
import numpy as np
with open(sys.argv[1], "rb") as file:
    dataset = pickle.load(file)
rows = dataset.__getitems__(list(range(len(dataset))))
np.save(sys.argv[2], np.stack([row["packed"] for row in rows]))
"""


def test_a_filled_cache_serves_without_a_server(tmp_path):
    """A process that starts when the server is gone, with a dataset that was pickled before."""
    folder = tmp_path / "far"
    folder.mkdir()
    data = write(folder / "a.h5")
    with Server(folder) as far:
        manager = GlobalIndexManager(
            f"{far.url}/a.h5", key=["packed", "lzf"], cache_dir=tmp_path / "i"
        )
        dataset = FileCacheDataset(manager, local_cache=tmp_path / "cache", local_bytes=2**28)
        dataset.__getitems__(list(range(ROWS)))
        dataset._reader.bounds = dataset._reader.bounds._replace(tries=1)
        (tmp_path / "dataset").write_bytes(pickle.dumps(dataset))
        dataset.close()
    done = subprocess.run(
        [sys.executable, "-c", _OFFLINE, tmp_path / "dataset", tmp_path / "rows.npy"],
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert (np.load(tmp_path / "rows.npy") == data).all() and "is not asked" in done.stderr


@pytest.mark.parametrize("cached", [False, True])
def test_a_file_that_is_replaced_is_an_error(far, tmp_path, cached):
    """No chunk of a new file is read by the index of the old one."""
    cache = tmp_path / "cache" if cached else None
    _, by_url = both(far, tmp_path, "packed", local_cache=cache)
    by_url.__getitems__([0, 1])
    write(far.path / "a.h5", start=500)
    with pytest.raises(ReadError, match=r"a\.h5.*was replaced while it was read"):
        by_url.__getitems__([40])
    by_url.close()
    # opened anew, it is the new one, whose shapes are those of the index
    data = write(far.path / "a.h5", start=500)
    _, later = both(far, tmp_path, "packed", local_cache=cache)
    assert (later[41].numpy() == data[41]).all() and (later[0].numpy() == data[0]).all()
    later.close()


def test_a_file_without_a_version_is_read_by_its_own_chunks(far, tmp_path):
    """Not by those of an older one of as many bytes, once it is looked at anew; with a cache or without."""
    pytest.importorskip("obstore")
    path, rows = far.path / "rows.h5", np.repeat(np.arange(8, dtype="f4")[:, None], 64, 1)
    far.plan({"kind": "untold"})
    for order, offset in ((range(8), 0), (range(7, -1, -1), 10), (range(8), 20)):
        with h5py.File(path, "w") as file:
            made = file.create_dataset("x", rows.shape, "f4", chunks=(1, 64))
            for row in order:
                made.id.write_direct_chunk((row, 0), (rows[row] + offset).tobytes())
        manager = GlobalIndexManager(f"{far.url}/rows.h5", cache_dir=tmp_path / "index")
        for kept in ({}, {"local_cache": tmp_path / "cache", "local_bytes": 2**24}):
            dataset = FileCacheDataset(manager, **kept)
            samples = np.stack(dataset.__getitems__(list(range(8))))
            np.testing.assert_array_equal(samples, rows + offset)
            dataset.close()


def test_a_file_of_another_shape_is_told(far, tmp_path):
    """As of a local file: it changed since it was indexed."""
    _, by_url = both(far, tmp_path, "packed")
    with h5py.File(far.path / "a.h5", "w") as file:
        file["packed"] = np.zeros((3, 6, 5), "u2")
    with pytest.raises(ReadError, match="it changed since it was indexed"):
        by_url[0]


@pytest.mark.parametrize(
    "name", ["", "/a.h5", "/*.h5", "/[ab].h*"], ids=lambda name: name or "folder"
)
def test_files_are_found_by_url(far, tmp_path, name):
    """A folder, a glob, a file."""
    (far.path / "notes.txt").write_text("no file of data")
    manager = GlobalIndexManager(far.url + name, key="packed", cache_dir=tmp_path / "index")
    expected = {"": 2, "/[ab].h*": 2}.get(name, 1)
    assert len(manager.paths) == expected and len(manager) == expected * ROWS
    FileCacheDataset(manager)[ROWS - 1]


def test_what_is_no_file_is_told(far, tmp_path):
    """One that is not there, and one that is no HDF5."""
    with pytest.raises(NoFilesError, match="there is nothing at"):
        GlobalIndexManager(f"{far.url}/c.h5", cache_dir=tmp_path)
    (far.path / "c.h5").write_bytes(b"x" * 5000)
    (far.path / "d.h5").write_bytes(b"")
    with pytest.raises(BadFilesError, match=r"c\.h5.*OSError.*signature not found"):
        GlobalIndexManager(f"{far.url}/c.h5", cache_dir=tmp_path)
    with pytest.raises(BadFilesError, match=r"d\.h5"):
        GlobalIndexManager([f"{far.url}/d.h5"], cache_dir=tmp_path)


def test_no_file_of_this_machine_is_read_for_one_by_url(far, tmp_path, monkeypatch):
    """External links, virtual datasets and raw storage name files beside theirs, which is not here."""
    monkeypatch.chdir(tmp_path)
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = np.ones(ROWS)
    (tmp_path / "secret.raw").write_bytes(np.ones(ROWS).tobytes())
    layout = h5py.VirtualLayout((ROWS,), float)
    layout[:] = h5py.VirtualSource("secret.h5", "x", (ROWS,))
    with h5py.File(far.path / "a.h5", "w") as file:
        file["link"] = h5py.ExternalLink("secret.h5", "x")
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("raw", (ROWS,), float, external=[("secret.raw", 0, h5py.h5f.UNLIMITED)])
    for key in ("link", "virtual", "raw"):
        for allow in (False, True):
            with pytest.raises(BadFilesError, match="no other file is opened for one by URL"):
                GlobalIndexManager(
                    f"{far.url}/a.h5", key=key, cache_dir=tmp_path / "index", allow_external=allow
                )


def test_a_virtual_dataset_over_its_own_file_is_read(far, tmp_path):
    """Which takes HDF5, and so the local cache."""
    with h5py.File(far.path / "a.h5", "w") as file:
        file["x"] = numbers(ROWS, (3,))
        layout = h5py.VirtualLayout((ROWS, 3), file["x"].dtype)
        layout[:30], layout[30:] = (
            h5py.VirtualSource(file["x"])[30:],
            h5py.VirtualSource(file["x"])[:30],
        )
        file.create_virtual_dataset("virtual", layout)
    (far.path / "b.hdf5").unlink()
    assert_same(*both(far, tmp_path, "virtual", local_cache=tmp_path / "cache"))


def test_damaged_addresses_are_no_bytes_of_other_chunks(far, tmp_path):
    """A file that was cut: what is beyond its end is told by item, and asked of nobody."""
    path = far.path / "a.h5"
    manager = GlobalIndexManager(f"{far.url}/a.h5", key="plain", cache_dir=tmp_path / "index")
    with h5py.File(path) as file:
        end = file["plain"].id.get_offset() + file["plain"].nbytes
    data = path.read_bytes()
    dataset = FileCacheDataset(manager)
    path.write_bytes(data[: end - 5])
    with pytest.raises(ReadError, match=r"a\.h5"):
        dataset[ROWS - 1]


def test_faults_of_the_line_change_nothing(far, tmp_path):
    """Errors, resets, cut bodies and wrong ranges, once each: the same samples."""
    local, by_url = both(far, tmp_path, WAYS)
    kinds = ["reset", "truncate", "shift", "status"]
    far.plan(*({"kind": kind, "status": 503, "times": 2, "path": ".h"} for kind in kinds))
    assert_same(local, by_url)


class Counting:
    """Objects that count what is asked of them."""

    def __init__(self, objects):
        self.objects, self.url, self.asked = objects, objects.url, []

    def get(self, piece):
        self.asked.append([piece])
        return self.objects.get(piece)

    def get_many(self, pieces):
        self.asked.append(list(pieces))
        return self.objects.get_many(pieces)


def test_pages_are_read_ahead_and_bounded(far):
    """Twice as many at a time where the file is read on and on; few of them stay in memory."""
    path = far.path / "large"
    path.write_bytes(os.urandom(100 * ranges.PAGE + 77))
    objects, key = Line(scans=True).at(f"{far.url}/large")
    counting = Counting(objects)
    file, data = RangeFile(counting, key), path.read_bytes()
    got = b"".join(iter(lambda: file.read(5000), b""))
    assert got == data and [len(one) for one in counting.asked[:6]] == [1, 2, 4, 8, 16, 16]
    assert len(file._pages) <= 32
    before = len(counting.asked)
    for at in range(len(data) - 20, 0, -3 * ranges.PAGE - 11):
        file.seek(at)
        assert file.read(10) == data[at : at + 10]
    # scattered reads fetch no more than their page
    assert all(len(one) == 1 for one in counting.asked[before:])
    file.seek(-7, os.SEEK_END)
    assert file.read() == data[-7:] and file.tell() == len(data)
    file.seek(3)
    assert file.read(ranges.PAGE * 5) == data[3 : 3 + ranges.PAGE * 5]
    assert counting.asked[-1][0][1:] == (3, 3 + ranges.PAGE * 5)


def test_pages_that_are_not_side_by_side_are_fetched_by_the_thread_that_reads(far, tmp_path):
    """It holds HDF5's lock, and all hands may wait for that; here the only one does."""
    path = far.path / "large"
    path.write_bytes(os.urandom(12 * ranges.PAGE))
    line = Line(Bounds(requests=1), scans=True)
    kept = CachedObjects(line.at(f"{far.url}/large")[0], LocalCache(tmp_path / "cache", 2**26))
    file, lock, begun = RangeFile(kept, "large"), threading.Lock(), threading.Event()
    # as if another process had written these in the moment after they were looked for
    for number in (4, 5):
        kept.get(file._piece(number))
    kept.has = lambda piece: False

    class Waits:
        def make(self):
            begun.set()
            with lock:
                pass

    with lock:
        line.hands.put(Waits())
        assert begun.wait(30)
        got = b"".join(iter(lambda: file.read(5000), b""))
    assert got == path.read_bytes()
    line.close()


def test_a_file_is_of_the_version_of_its_first_page(far):
    """Also where nobody else compares versions, as after a long time of reading from a cache."""
    path = far.path / "a.h5"
    file = RangeFile(*Line(scans=True).at(f"{far.url}/a.h5"))
    assert file.fetch(5, 9) == path.read_bytes()[5:9]
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(ReadError, match="was replaced while it was read"):
        file.fetch(5, 9)
    path.unlink()
    with pytest.raises(ReadError, match="and is no longer"):
        file.fetch(5, 9)


def test_rows_are_kept_in_the_same_blocks_whatever_is_read(far, tmp_path):
    """Of contiguous rows, in any batches: as many entries as there are blocks."""
    _, by_url = both(far, tmp_path, "plain", local_cache=tmp_path / "cache")
    for start in range(60):
        by_url.__getitems__([start, start + 60])
    by_url.close()
    # of each file: its version, pages of metadata, and one block of all rows
    assert LocalCache(tmp_path / "cache").info().entries[far.url] <= 2 * 4


@pytest.mark.parametrize(("bound", "most"), [(2**28, 8), (2**23, 256)])
def test_rows_come_with_those_around_them_where_all_find_room(far, tmp_path, bound, most):
    """In a file of 4 MiB: few requests for rows in any sequence, or one for each; from the disk, all are right."""
    data = numbers(256, (4096,)).astype("i4")
    with h5py.File(far.path / "a.h5", "w") as file:
        file["x"] = data
    manager = GlobalIndexManager(f"{far.url}/a.h5", key="x", cache_dir=tmp_path / "index")
    by_url = FileCacheDataset(
        manager, local_cache=tmp_path / "cache", local_bytes=bound, cache_bytes=0
    )
    far.take()
    draw = np.random.default_rng(0)
    for epoch in range(8):
        for row in draw.permutation(256).tolist():
            assert (by_url[row] == data[row]).all(), (epoch, row)
    asked = far.take()["asked"]
    assert most / 4 <= len(asked) <= 4 * most
    by_url.close()


def test_rows_come_alone_where_one_file_finds_room_and_all_do_not(far, tmp_path):
    """Else each would bring those around it, which had to go before they were wanted."""
    for number in range(8):
        with h5py.File(far.path / f"rows{number}.h5", "w") as file:
            file["x"] = np.full((64, 4096), number, "i4")
    manager = GlobalIndexManager(f"{far.url}/rows*.h5", key="x", cache_dir=tmp_path / "index")
    kept = {"local_cache": tmp_path / "cache", "local_bytes": 2**22}
    for dataset in (one := FileCacheDataset(manager, **kept), pickle.loads(pickle.dumps(one))):
        far.take()
        assert [int(dataset[64 * number][0]) for number in range(8)] == list(range(8))
        spans = [one[2].removeprefix("bytes=").split("-") for one in far.take()["asked"]]
        # a page of metadata is the most
        assert max(int(stop) - int(start) for start, stop in spans) < ranges.PAGE
        dataset.close()


def test_threads_that_open_files_do_not_wait_for_one_another(far, tmp_path):
    """HDF5's lock is held while it reads, and threads that fetch may wait for it: none waits in a circle."""
    for number in range(12):
        write(far.path / f"{number}.h5", start=number, attributes=300)
    local, by_url = both(far, tmp_path, ["packed", "plain"], local_cache=tmp_path / "cache")
    far.delay(0.01)
    by_url._reader.bounds = by_url._reader.bounds._replace(requests=3)
    failed = []

    def work(seed):
        try:
            ids = np.random.default_rng(seed).permutation(len(local)).tolist()[:128]
            assert_same(local, by_url, ids)
        except BaseException as error:  # noqa: BLE001 - told by the main thread
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,), daemon=True) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()
    assert failed == []
    by_url.close()


def test_the_cache_holds_pages_and_chunks(far, tmp_path):
    """Each under the URL of its server, without what signs it."""
    _, by_url = both(far, tmp_path, "packed", local_cache=tmp_path / "cache")
    by_url.__getitems__(list(range(ROWS)))
    by_url.close()
    info = LocalCache(tmp_path / "cache").info()
    assert list(info.entries) == [far.url] and info.entries[far.url] >= ROWS // 4


@pytest.mark.parametrize("reads_again", [True, False])
def test_a_chunk_that_was_damaged_on_its_way_is_not_kept(far, tmp_path, reads_again):
    """It is dropped when its checksum is another one, and fetched once more: by this run, and by another one."""
    local, by_url = both(far, tmp_path, "packed", local_cache=tmp_path / "cache")
    with h5py.File(far.path / "a.h5") as file:
        chunk = file["packed"].id.get_chunk_info_by_coord((8, 0, 0))
    stop = chunk.byte_offset + chunk.size
    told = pytest.raises(ReadError, match=r"sample id 9: .* cannot be decoded")
    with damaged(far.path / "a.h5", chunk.byte_offset, stop), told:
        by_url[9]
    if reads_again:
        assert_same(local, by_url, [9])
    _, later = both(far, tmp_path, "packed", local_cache=tmp_path / "cache")
    assert_same(local, later, [9])
    far.take()
    _, last = both(far, tmp_path, "packed", local_cache=tmp_path / "cache")
    assert_same(local, last, [9])
    span = f"bytes={chunk.byte_offset}-{stop - 1}"
    assert span not in [one[2] for one in far.take()["asked"]]
