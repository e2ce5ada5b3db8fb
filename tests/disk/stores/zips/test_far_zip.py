"""A store in a zip file behind a URL is read as the same zip file on a disk is, by few requests."""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
import zarr
from fastpaths import Folder
from files import numbers, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Server
from zipping import damage, packed, patched, with_extra, without, zip_of

pytest.importorskip("obstore")

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.reading import verify
from globidx.disk.remote.line import Line
from globidx.disk.stores import base as stores
from globidx.disk.stores.zarr.far import TAIL
from globidx.disk.stores.zarr.fast import ZarrSource
from globidx.disk.stores.zips.far_zip import FarZip
from globidx.disk.stores.zips.local import Zip
from globidx.errors import BadFilesError, MissingChunkError, NoFilesError, ReadError

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
#: Bytes at the end of a zip file that are read first.
END = 2**16 + 2**10


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of ``zips``."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    (tmp_path / "zips").mkdir()
    with Server(tmp_path / "zips") as made:
        yield made


def large(tmp_path, *, method=zipfile.ZIP_STORED, shard=None, count=40):
    """A zip file of a store with chunks of 100 KB, which do not compress and are not joined with others."""
    data = np.random.default_rng(0).integers(0, 2**16, (count, 50_000), "u2")
    zip_of(tmp_path, data, name="large.zip", method=method, chunk=1, shard=shard, compressors=None)
    return data


def spans(server):
    """What was asked for, in the sequence of the ranges' beginnings."""
    asked = [one[2].removeprefix("bytes=") for one in server.take()["asked"]]
    return sorted(asked, key=lambda span: (not span.startswith("-"), int(span.split("-")[0] or 0)))


# -- what is in them


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("method", "shard", "written"),
    [
        (zipfile.ZIP_STORED, None, {}),
        (zipfile.ZIP_DEFLATED, None, {"below": "größer"}),
        (zipfile.ZIP_STORED, 8, {"below": "a.zarr", "streamed": True}),
        (zipfile.ZIP_DEFLATED, 8, {"streamed": True}),
    ],
)
def test_samples_are_those_of_the_same_file_on_a_disk(
    server, tmp_path, zarr_format, method, shard, written
):
    """Formats, shards, deflated or not, at the root or below a folder, sizes before or behind a member."""
    data = {"x": numbers(21), "deep/y": numbers(21, (2, 2), start=500)}
    options = {"zarr_format": zarr_format}
    shard = shard if zarr_format == 3 else None
    folder = tmp_path / "folder"
    write_zarr(folder, data, shard=shard, **options)
    path = packed(folder, tmp_path / "zips/a.zarr.zip", method=method, **written)
    options = {"key": ["x", "deep/y"], "cache_dir": tmp_path / "index"}
    near = FileCacheDataset(GlobalIndexManager([path], **options))
    for url in (f"{server.url}/a.zarr.zip", f"zip://::{server.url}/a.zarr.zip"):
        far = FileCacheDataset(GlobalIndexManager(url, **options))
        assert far.fingerprint == near.fingerprint
        ids = [20, 3, 4, 11, 0]
        for backend in ("auto", "library"):
            far = FileCacheDataset(far.index_manager, backend=backend)
            for one, other in zip(far.__getitems__(ids), near.__getitems__(ids), strict=True):
                assert all((one[key] == other[key]).all() for key in data)
        assert "read by its library (as asked)" in far.explain()
    told = FileCacheDataset(far.index_manager).explain()
    assert told.count("in a zip file, by URL") == 2 and f"zip{zarr_format}" in told


@pytest.mark.parametrize(("method", "shard", "is_told"), [(0, 8, 0), (8, 8, 1), (8, None, 0)])
def test_what_is_fetched_whole_is_explained(server, tmp_path, method, shard, is_told):
    """A deflated shard, of which no part can be had; whoever has the file at hand need not fetch it."""
    path = zip_of(tmp_path, numbers(20), method=method, shard=shard)
    for files in (f"{server.url}/a.zarr.zip", [path]):
        told = FileCacheDataset(GlobalIndexManager(files, cache_dir=tmp_path / "index")).explain()
        count = told.count("by URL; shards are fetched whole, since they are deflated there")
        assert count == (is_told and files != [path])


def test_both_containers_give_the_same(server, tmp_path):
    """Metadata, whole members, parts of them, groups, and what is not there."""
    folder = tmp_path / "folder"
    write_zarr(folder, {"x": numbers(9, (3,)), "deep/y": numbers(9)})
    (folder / "big").write_bytes(bytes(range(256)) * (TAIL // 64))
    (folder / "empty").touch()
    for method in METHODS:
        path = packed(folder, tmp_path / "zips/a.zip", method=method)
        line = Line()
        far, near = FarZip("u", *line.at(f"{server.url}/a.zip")), Zip(str(path))
        for key in ("zarr.json", "x/zarr.json", "none", "x/c/0/0", "big", "empty"):
            assert far.read(key, 10**6) == near.read(key, 10**6) and far.has(key) == near.has(key)
            assert far.load(key) == near.load(key)
        assert far.read("big", 10) == near.read("big", 10) == (b"", 256 * (TAIL // 64))
        assert far.groups("") == near.groups("") and far.groups("deep") == ["y"]
        assert far.open("none") is far.open("empty") is None
        mine, its = far.open("big"), near.open("big")
        assert (mine.size, mine.packed) == (its.size, its.packed)
        for offset in (0, mine.size - 9, mine.size - TAIL - 4, mine.size // 2):
            for size in (8, 50_000):
                assert mine.read(size, offset) == its.read(size, offset)
        its.close()
        line.close()


@pytest.mark.parametrize("comment", [b"", b"c" * 65_535])
@pytest.mark.parametrize("is_zip64", [False, True])
def test_the_end_of_a_zip_file_may_be_long(tmp_path, monkeypatch, comment, is_zip64):
    """With the record of zip64 in front of the last one, and the longest comment behind it."""
    data = numbers(20)
    path = zip_of(tmp_path, data)
    if is_zip64:
        # as if it had more members than the last record can count
        monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 1)
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = comment
        archive.writestr("more", b"")
    assert (b"PK\x06\x06" in path.read_bytes()) == is_zip64
    np.testing.assert_array_equal(read_by_url(path), data)


# -- by which requests


def test_a_directory_takes_two_requests_and_all_chunks_of_a_batch_go_at_once(server, tmp_path):
    """Then a chunk is one, for its header and its bytes; what is near is one for many."""
    data = large(tmp_path)
    with zipfile.ZipFile(tmp_path / "zips/large.zip", "a") as archive:
        for number in range(1000):
            archive.writestr(f"notes/of/somebody/{number:06d}", b"")
    manager = GlobalIndexManager(f"{server.url}/large.zip", cache_dir=tmp_path / "index")
    size = (tmp_path / "zips/large.zip").stat().st_size
    with zipfile.ZipFile(tmp_path / "zips/large.zip") as archive:
        begin = archive.start_dir
    asked = spans(server)
    directory = f"{begin}-{size - END - 1}"
    assert asked.count(f"-{END}") == asked.count(directory) == 1
    dataset = FileCacheDataset(manager, cache_bytes=0)
    # long enough for a busy machine to have sent them all
    server.delay(0.5)
    # no two of them side by side: c/2/0 is in front of c/20/0
    ids = list(range(4, 40, 2))
    np.testing.assert_array_equal(np.stack(dataset.__getitems__(ids)), data[ids])
    told = server.take()
    assert told["most"] == len(ids)
    # the directory is kept, so that its end is all that is asked for, which tells the version
    assert ["GET", "/large.zip", f"bytes=-{END}"] in told["asked"]
    assert len(told["asked"]) == len(ids) + 1
    dataset.__getitems__([5, 6, 7])
    assert len(server.take()["asked"]) == 1


def test_of_a_shard_its_ends_are_read_once_and_then_chunks(server, tmp_path):
    """Its header says where it begins, and its index where chunks are."""
    data = large(tmp_path, shard=20)
    dataset = FileCacheDataset(GlobalIndexManager(f"{server.url}/large.zip"), cache_bytes=0)
    dataset[0]
    server.take()
    np.testing.assert_array_equal(dataset[7], data[7])
    assert len(spans(server)) == 1
    server.delay(0.3)
    np.testing.assert_array_equal(
        np.stack(dataset.__getitems__([3, 5, 25, 37])), data[[3, 5, 25, 37]]
    )
    told = server.take()
    # of the other shard header and index, then a chunk each
    assert told["most"] == 4 and len(told["asked"]) == 6


@pytest.mark.parametrize("shard", [None, 4])
@pytest.mark.parametrize("method", METHODS, ids=["stored", "deflated"])
def test_an_epoch_is_asked_for_once_with_a_local_cache(server, tmp_path, method, shard):
    """Opened again, the version of the zip file is all that is asked for."""
    data = large(tmp_path, method=method, shard=shard, count=8)
    manager = GlobalIndexManager(f"{server.url}/large.zip", cache_dir=tmp_path / "index")
    options = {"local_cache": tmp_path / "cache", "local_bytes": 2**28, "cache_bytes": 0}
    # the second knows from the first where stored shards begin, and asks for their indexes alone
    for attempt in range(3):
        dataset = FileCacheDataset(manager, **options)
        server.take()
        np.testing.assert_array_equal(np.stack(dataset.__getitems__(list(range(8)))), data)
        dataset.close()
        if attempt == 2:
            assert spans(server) == ["0-0"]


def test_a_deflated_shard_is_one_entry_of_a_local_cache(server, tmp_path):
    """Whether it is known where it begins or not."""
    large(tmp_path, method=zipfile.ZIP_DEFLATED, shard=4, count=4)
    url = f"{server.url}/large.zip"
    manager = GlobalIndexManager(url, cache_dir=tmp_path / "index")
    server.take()
    for _ in range(2):
        dataset = FileCacheDataset(manager, local_cache=tmp_path / "cache", cache_bytes=0)
        assert len(dataset[0])
        dataset.close()
    ends = [one.split("-") for one in spans(server) if one[0] != "-"]
    assert sum(int(stop) - int(start) > 350_000 for start, stop in ends) == 1


def test_shards_of_two_files_of_one_size_and_version_are_two(server, tmp_path):
    """Servers make versions of size and time alone, which files that were copied together share."""
    deflated = {"method": zipfile.ZIP_DEFLATED, "chunk": 1, "shard": 4, "compressors": None}
    for number in range(2):
        data = np.full((4, 8), number + 1)
        path = zip_of(tmp_path, data, name=f"{number}.zip", **deflated)
        os.utime(path, (10**9, 10**9))
    assert path.stat().st_size == path.with_name("0.zip").stat().st_size
    manager = GlobalIndexManager(f"{server.url}/*.zip", cache_dir=tmp_path / "index")
    samples = FileCacheDataset(manager).__getitems__([0, 4, 1, 5])
    assert [int(sample[0]) for sample in samples] == [1, 2, 1, 2]


# -- finding them


def test_zip_files_are_found_as_other_files_are(server, tmp_path):
    """A folder, a glob, a list; of something else they are passed over, but not where they are named."""
    for number in (1, 2):
        zip_of(tmp_path, numbers(4, start=number), name=f"{number}.zarr.zip")
    with zipfile.ZipFile(tmp_path / "zips/photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"")
    urls = [f"{server.url}/{number}.zarr.zip" for number in (1, 2)]
    index = {"cache_dir": tmp_path / "index"}
    for files in (f"{server.url}/*.zarr.zip", urls):
        assert list(GlobalIndexManager(files, **index).paths) == urls
    with pytest.raises(BadFilesError, match=r"photos\.zip: a zip file without a zarr store"):
        GlobalIndexManager(f"{server.url}/*.zip", **index)
    with pytest.raises(NoFilesError, match="there is nothing at"):
        GlobalIndexManager(f"{server.url}/none.zip", **index)
    with pytest.raises(BadFilesError, match=r"none\.zip: FileNotFoundError: there is nothing at"):
        GlobalIndexManager([f"{server.url}/none.zip"], **index)


def test_a_store_of_several_is_named_by_its_folder(server, tmp_path):
    """None of them is meant more than another; the directory of the file is read once for all."""
    data = [numbers(4, start=100 * number) for number in range(5)]
    for number, one in enumerate(data):
        write_zarr(tmp_path / "in" / f"deep/{number}.zarr", one)
    packed(tmp_path / "in", tmp_path / "zips/two.zip")
    index = {"cache_dir": tmp_path / "index"}
    with pytest.raises(BadFilesError, match="without a zarr store at its root"):
        GlobalIndexManager(f"{server.url}/two.zip", **index)
    manager = GlobalIndexManager(f"zip://deep/*.zarr::{server.url}/two.zip", **index)
    assert len(manager) == 20
    dataset = FileCacheDataset(manager)
    np.testing.assert_array_equal(
        np.stack(dataset.__getitems__(list(range(20)))), np.concatenate(data)
    )
    assert "in a zip file, by URL" in dataset.explain()


def test_a_chain_to_a_file_on_a_disk_is_read_there(tmp_path):
    """By its offsets, without a line."""
    data = numbers(8)
    folder = Path(write_zarr(tmp_path / "in/deep/er/a.zarr", data))
    path = packed(folder.parents[2], tmp_path / "a.zip")
    for named in (f"zip://deep/er/a.zarr::{path}", f"zip://deep/er/a.zarr::file://{path}"):
        dataset = FileCacheDataset(GlobalIndexManager(named, cache_dir=tmp_path / "index"))
        np.testing.assert_array_equal(np.stack(dataset.__getitems__(list(range(8)))), data)
        assert "(zstd, in a zip file);" in dataset.explain()


def test_options_reach_the_server_whoever_reads(tmp_path, monkeypatch):
    """A secret that each request must have; and it is not told."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    data = numbers(8)
    zip_of(tmp_path, data)
    with Server(tmp_path / "zips", secret="word") as server:
        url = f"{server.url}/a.zarr.zip"
        for options in ({"headers": {"X-Secret": "word"}}, {"http": {"params": {"sig": "word"}}}):
            manager = GlobalIndexManager(url, storage_options=options)
            for backend in ("auto", "library"):
                dataset = FileCacheDataset(manager, backend=backend)
                np.testing.assert_array_equal(dataset[5], data[5])
        with pytest.raises(ReadError, match="403"):
            GlobalIndexManager(url)


# -- what is not there, and what changes


@pytest.mark.parametrize("shard", [None, 8])
def test_an_absent_member_is_an_absent_chunk(server, tmp_path, shard):
    """An error by default, fill values where these are asked for, and counted by a check."""
    data = numbers(12)
    without(zip_of(tmp_path, data, shard=shard), "c/0/0")
    manager = GlobalIndexManager(f"{server.url}/less-a.zarr.zip")
    server.take()
    with pytest.raises(MissingChunkError, match="is not in the store"):
        FileCacheDataset(manager)[1]
    # the directory says so
    assert spans(server) == [f"-{END}"]
    filled = FileCacheDataset(manager, on_missing="fill")
    np.testing.assert_array_equal(filled[1], np.zeros(3))
    np.testing.assert_array_equal(filled[11], data[11])
    [[report]] = verify.check(manager.now, decode=True, executor=None)
    assert report.absent == 1 and not report.unreadable


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("shard", [None, 4])
def test_a_zip_file_that_was_replaced_is_an_error(server, tmp_path, cached, shard):
    """Members lie elsewhere in the new one; opened anew, it is that."""
    data = large(tmp_path, count=8, shard=shard)
    manager = GlobalIndexManager(f"{server.url}/large.zip", cache_dir=tmp_path / "index")
    kept = {"local_cache": tmp_path / "cache", "local_bytes": 2**28} if cached else {}
    dataset = FileCacheDataset(manager, cache_bytes=0, **kept)
    np.testing.assert_array_equal(dataset[0], data[0])
    shutil.rmtree(tmp_path / "folder")
    zip_of(tmp_path, data[::-1], name="large.zip", chunk=1, shard=shard, compressors=None)
    with pytest.raises(ReadError, match=r"large\.zip.*was replaced while it was read"):
        dataset[7]
    dataset.close()
    np.testing.assert_array_equal(FileCacheDataset(manager, **kept)[7], data[0])


@pytest.mark.parametrize("shard", [None, 8])
def test_members_are_of_the_version_of_the_directory(server, tmp_path, shard):
    """Also where nobody else compares versions, as when much was read since."""
    path = zip_of(tmp_path, numbers(12), shard=shard)
    line = Line(scans=True)
    far = FarZip("u", *line.at(f"{server.url}/a.zarr.zip"))

    def read():
        return far.open("c/0/0").read(8, 0) if shard else far.read("c/0/0", 10**6)

    assert read()
    path.write_bytes(zip_of(tmp_path / "other", numbers(12, start=70), shard=shard).read_bytes())
    line.forget()
    with pytest.raises(ReadError, match="was replaced while it was read"):
        read()
    path.unlink()
    line.forget()
    if shard:
        assert read() == b""
    else:
        with pytest.raises(ReadError, match="and is no longer"):
            read()


def test_a_file_system_that_tells_no_versions_is_asked_anew_at_each_look(tmp_path):
    """Sizes that fsspec has told are forgotten with all else that was known of objects."""
    files = fsspec.filesystem("memory")
    url = "memory://far-zips/a.zip"
    short, long = numbers(8), numbers(80, start=300)
    files.pipe(url, zip_of(tmp_path, short).read_bytes())
    manager = GlobalIndexManager(url, cache_dir=tmp_path / "index")
    dataset = FileCacheDataset(manager)
    np.testing.assert_array_equal(dataset[7], short[7])
    files.pipe(url, zip_of(tmp_path / "more", long).read_bytes())
    assert manager.refresh()
    np.testing.assert_array_equal(np.stack(dataset.__getitems__([0, 79])), long[[0, 79]])
    files.rm("memory://far-zips", recursive=True)


# -- damage


def read_by_url(path):
    """All rows of the store in a zip file that fsspec reads for us, and its metadata."""
    line = Line()
    try:
        far = FarZip("u", *line.at(f"local://{path}"))
        source = ZarrSource(far, "", 0, "zarr.json")
        out = np.empty(source._array.shape, source._array.dtype.newbyteorder("="))
        source.read(0, len(out), out)
        return out
    finally:
        line.close()


@settings(max_examples=60, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    shard=st.sampled_from([None, 8]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(-1, 7),
)
def test_damage_to_a_zip_file_never_gives_other_data(method, shard, place, bit):
    """Any bit flipped, and any cut (-1): an error, or the very data."""
    data = numbers(20)
    with Folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # of a chunk in a shard its own checksum tells, of any other that of the zip file
        codec = zarr.codecs.GzipCodec() if shard else None
        write_zarr(folder / "a", data, shard=shard, compressors=codec)
        path = packed(folder / "a", folder / "a.zip", method=method)
        damage(path, place, bit)
        try:
            out = read_by_url(path)
        except stores.UNREADABLE:
            return
        if out.shape == data.shape and out.dtype == data.dtype:
            np.testing.assert_array_equal(out, data)


@pytest.mark.parametrize("shard", [None, 8])
@pytest.mark.parametrize("method", METHODS, ids=["stored", "deflated"])
@pytest.mark.parametrize("extra", [4, 252, 300, 20_000, 65_535])
def test_a_local_header_may_be_longer_than_the_directory_says(tmp_path, extra, method, shard):
    """Where bytes begin it alone tells; what came with the guess is not taken for them."""
    data = numbers(20)
    path = with_extra(zip_of(tmp_path, data, shard=shard, method=method), "c/0/0", extra)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
    np.testing.assert_array_equal(read_by_url(path), data)


def header_of(path, name):
    with zipfile.ZipFile(path) as archive:
        return archive.getinfo(name).header_offset


def with_longer_header(path):
    """Let the extra field in the header of a member end behind the member."""
    data = bytearray(path.read_bytes())
    data[header_of(path, "c/0/0") + 28] = 200
    path.write_bytes(data)


HOSTILE = {
    "behind a header that is too long": (with_longer_header, "others begin at"),
    "encrypted": (lambda path: patched(path, b"c/0/0", 8, 1), "is encrypted"),
    "of a method that is not read": (
        lambda path: patched(path, b"c/0/0", 10, 12),
        "compressed by bzip2",
    ),
    "over the next one": (
        lambda path: [patched(path, b"c/0/0", at, 250, "<I") for at in (20, 24)],
        "others begin at",
    ),
    "beyond the end": (
        lambda path: patched(path, b"c/0/0", 42, 2**31, "<I"),
        "the zip file is damaged",
    ),
    "at another's place": (
        lambda path: patched(path, b"c/0/0", 42, header_of(path, "c/1/0"), "<I"),
        "is not that of member",
    ),
    "of another checksum": (
        lambda path: patched(path, b"c/0/0", 16, 7, "<I"),
        "they were damaged",
    ),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_member_that_lies_is_one_clear_error(server, tmp_path, how):
    """Encrypted, overlapping, outside: its name is told, and no other member suffers."""
    spoil, told = HOSTILE[how]
    data = numbers(12)
    path = zip_of(tmp_path, data, compressors=None)
    spoil(path)
    dataset = FileCacheDataset(GlobalIndexManager(f"{server.url}/a.zarr.zip"))
    with pytest.raises(ReadError, match=rf"a\.zarr\.zip.*{told}"):
        dataset[0]
    np.testing.assert_array_equal(dataset[11], data[11])


def end_patched(path, offset, value):
    """Set a number of the record at the end of a zip file."""
    data = bytearray(path.read_bytes())
    data[-22 + offset : -18 + offset] = value.to_bytes(4, "little")
    path.write_bytes(data)


@pytest.mark.parametrize(("offset", "value"), [(12, 2**31), (12, 30), (16, 2**31), (16, 0)])
def test_a_directory_that_is_elsewhere_is_one_clear_error(server, tmp_path, offset, value):
    """Larger than the file, cut, or beyond its end."""
    path = zip_of(tmp_path, numbers(12))
    end_patched(path, offset, value)
    with pytest.raises(BadFilesError, match=r"a\.zarr\.zip: the zip file is damaged"):
        GlobalIndexManager(f"{server.url}/a.zarr.zip", cache_dir=tmp_path / "index")


def test_a_directory_that_claims_a_gigabyte_is_not_fetched(server, tmp_path):
    """Of a file that has as many bytes, all zeros."""
    path = zip_of(tmp_path, numbers(12))
    data = path.read_bytes()
    with path.open("wb") as file:
        file.truncate(2**28 + 2**20)
        file.seek(0, 2)
        file.write(data[-22:])
    end_patched(path, 12, 2**28 + 2**19)
    objects, key = Line(scans=True).at(f"local://{path}")
    with pytest.raises(ValueError, match="its directory would take"):
        FarZip("u", objects, key)
    assert server.take()["asked"] == []


def test_a_member_that_claims_to_be_far_larger_is_not_fetched(server, tmp_path):
    """A chunk of 24 bytes in 200 MB of zeros, deflated."""
    bomb = without(zip_of(tmp_path, numbers(12), method=zipfile.ZIP_DEFLATED), "c/0/0")
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/0/0", bytes(20 * 10**6))
    far = FarZip("u", *Line(scans=True).at(f"{server.url}/{bomb.name}"))
    server.take()
    assert far.read("c/0/0", 10**6) == (b"", 20 * 10**6)
    assert server.take()["asked"] == []
    dataset = FileCacheDataset(GlobalIndexManager(f"{server.url}/{bomb.name}"))
    with pytest.raises(ReadError, match="20000000 bytes"):
        dataset[0]


def test_a_stored_member_that_is_far_too_large_is_not_fetched(server, tmp_path):
    """Neither ahead of time nor where it is read: the directory says how large it is."""
    large = without(zip_of(tmp_path, numbers(12)), "c/0/0")
    with zipfile.ZipFile(large, "a") as archive:
        archive.writestr("c/0/0", bytes(3 * 10**6))
    far = FarZip("u", *Line(scans=True).at(f"{server.url}/{large.name}"))
    source = ZarrSource(far, "", 0, "zarr.json")
    server.take()
    sizes = [one.piece.stop - one.piece.start for one in source.pieces(0, 12)]
    assert len(sizes) == 2 and max(sizes) < 10**3
    with pytest.raises(ReadError, match="3000000 bytes"):
        source.read(0, 1, np.empty((1, 3), "u2"))
    assert server.take()["asked"] == []
