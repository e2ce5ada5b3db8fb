"""Stores in zip files are what the same stores in folders are, and a damaged zip file is an error."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from fastpaths import Folder, arrays, check
from files import numbers, open_descriptors, settled_manager, watched_scans, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zipping import damage, packed, patched, without, zip_of

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.core.index.layout import Layout
from globidx.disk.reading import verify
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores
from globidx.disk.stores.zips.local import Zip
from globidx.errors import BadFilesError, MissingChunkError, NoFilesError, ReadError

METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]


# -- what is in them


@settings(max_examples=150)
@given(
    made=arrays(),
    zarr_format=st.sampled_from([2, 3]),
    sharded=st.booleans(),
    plain=st.booleans(),
    method=st.sampled_from(METHODS),
    below=st.sampled_from(["", "a.zarr", "größer"]),
    streamed=st.booleans(),
    front=st.sampled_from([b"", b"#!/bin/sh\n"]),
)
def test_a_store_in_a_zip_file_is_what_was_written(
    made, zarr_format, sharded, plain, method, below, streamed, front
):
    """Formats, shards, codecs or none; stored or deflated; at the root or below a folder."""
    data, chunks, axis = made
    compressors = (
        [None, [numcodecs.Zstd(1)]] if zarr_format == 2 else [[], [zarr.codecs.ZstdCodec(level=1)]]
    )
    shards = [2 * chunk for chunk in chunks] if sharded and zarr_format == 3 else None
    with Folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        array = zarr.create_array(
            folder / "a",
            shape=data.shape,
            chunks=chunks,
            shards=shards,
            dtype=data.dtype,
            zarr_format=zarr_format,
            compressors=compressors[not plain],
            fill_value=0,
        )
        array[...] = data
        # a file that begins with something else is no zip file by its first bytes
        name = "a.dat" if not front else "a.zip"
        path = packed(
            folder / "a",
            folder / name,
            below=below,
            method=method,
            streamed=streamed and not front,
            front=front,
        )
        if front:
            assert np.array_equal(_whole(Zip(str(path)), axis, data), np.moveaxis(data, axis, 0))
        else:
            check(path, data, axis)


def _whole(container, axis, data):
    from globidx.disk.stores.zarr.fast import ZarrSource

    marker = "zarr.json" if container.has("zarr.json") else ".zarray"
    source = ZarrSource(container, "", axis, marker)
    out = np.empty(np.moveaxis(data, axis, 0).shape, data.dtype.newbyteorder("="))
    source.read(0, len(out), out)
    return out


def test_what_zarr_writes_into_a_zip_file_is_read(tmp_path):
    """It appends what is written again: of members of one name the last one counts."""
    data = numbers(8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with zarr.storage.ZipStore(tmp_path / "a.zarr.zip", mode="w") as store:
            array = zarr.create_group(store).create_array(
                "x", shape=(8, 3), chunks=(4, 3), dtype="u2"
            )
            array[:] = 7
            array[:] = data
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path, key="x"))
    np.testing.assert_array_equal(np.stack([dataset[id] for id in range(8)]), data)


def test_members_of_zip64_are_read(tmp_path):
    """Their sizes and offsets stand in extra fields, of which the local header has its own."""
    data = numbers(8)
    folder = Path(write_zarr(tmp_path / "folder", data))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for member in sorted(path for path in folder.rglob("*") if path.is_file()):
            name = str(member.relative_to(folder))
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(member.read_bytes())
    check(tmp_path / "a.zip", data, 0)


def test_a_member_behind_four_gigabytes_is_read(tmp_path):
    """Its offset takes more than 32 bits; what lies before it is a hole in the file."""
    data = numbers(8)
    folder = Path(write_zarr(tmp_path / "folder", data))
    with (tmp_path / "a.zip").open("wb") as file:
        file.write(b"PK\x03\x04")
        file.seek(2**32 + 5)
        with zipfile.ZipFile(file, "w") as archive:
            for member in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(member, member.relative_to(folder))
    check(tmp_path / "a.zip", data, 0)


def episodes(folder, zarr_format=3):
    """A store with episodes as UMI writes them, and attributes."""
    group = zarr.create_group(folder, zarr_format=zarr_format, attributes={"robot": 3})
    group.create_array("data/x", data=numbers(20), chunks=(4, 3))
    group.create_array("meta/episode_ends", data=np.array([5, 12, 20]))
    return folder


@pytest.mark.parametrize("method", METHODS, ids=["stored", "deflated"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_sequences_and_constants_are_those_of_the_folder(tmp_path, zarr_format, method):
    """Episodes by their ends, windows over them, attributes: sample by sample the same."""
    (tmp_path / "folders").mkdir()
    (tmp_path / "zips").mkdir()
    folder = episodes(tmp_path / "folders/a.zarr", zarr_format)
    packed(folder, tmp_path / "zips/a.zarr", below="a.zarr", method=method)
    options = {
        "key": "data/x",
        "sequences": "meta/episode_ends",
        "window": Window(range(-1, 3), pad="edge"),
        "constants": {"robot": "@robot"},
    }
    one, other = (
        FileCacheDataset(GlobalIndexManager(tmp_path / name / "a.zarr", **options))
        for name in ("folders", "zips")
    )
    assert len(one) == len(other) == 20
    for id in range(20):
        assert one[id]["robot"] == other[id]["robot"] == 3
        np.testing.assert_array_equal(one[id]["data/x"], other[id]["data/x"])


def test_matches_and_layouts_find_the_groups_of_a_zip_file(tmp_path):
    """Groups that keys match are found by their metadata, as in the folder."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        group = zarr.create_group(tmp_path / "a")
        for name, length in (("demo_0", 3), ("demo_10", 2), ("demo_2", 4)):
            group.create_array(f"data/{name}/x", data=numbers(length, start=length))
    packed(tmp_path / "a", tmp_path / "a.zip")
    options = {"key": {"x": "data/*/x"}, "sequences": "match", "window": 1}
    one, other = (GlobalIndexManager(tmp_path / name, **options) for name in ("a", "a.zip"))
    assert list(other.sequences.names) == list(one.sequences.names)
    for id in range(len(one)):
        np.testing.assert_array_equal(FileCacheDataset(one)[id], FileCacheDataset(other)[id])


# -- finding them


def test_a_damaged_zip_file_is_told_by_its_name_however_it_was_named(tmp_path):
    """By itself too, where it could be a list of files as well."""
    group = zarr.open_group(tmp_path / "store", mode="w")
    group.create_array("x", data=np.arange(6))
    path = packed(tmp_path / "store", tmp_path / "a.zarr.zip")
    shutil.rmtree(tmp_path / "store")
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02")] ^= 1
    path.write_bytes(content)
    for files in (path, [path], tmp_path):
        with pytest.raises(BadFilesError, match=r"a\.zarr\.zip: the zip file is damaged"):
            GlobalIndexManager(files, key="x")


@pytest.mark.parametrize("document", ["[]", "{}", "3"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_metadata_of_no_node_are_told_as_such(tmp_path, document, is_zip):
    """In a zip file as well, which zarr cannot close before it opened it."""
    if is_zip:
        with zipfile.ZipFile(tmp_path / "a.zarr.zip", "w") as archive:
            archive.writestr("zarr.json", document)
    else:
        (tmp_path / "a.zarr").mkdir()
        (tmp_path / "a.zarr" / "zarr.json").write_text(document)
    with pytest.raises(BadFilesError, match=r"its zarr.json is damaged: it has no node_type"):
        GlobalIndexManager(tmp_path, key="x")


def test_zip_files_are_found_in_a_folder_a_glob_and_a_list(tmp_path):
    """As any other file; zip files of something else are passed over, but not where they are named."""
    paths = [zip_of(tmp_path, numbers(4, start=n), name=f"{n}.zarr.zip") for n in (1, 2)]
    folder = tmp_path / "zips"
    with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
        archive.writestr("photo.jpg", b"")
    for files in (folder, folder / "*.zarr.zip", paths):
        assert list(GlobalIndexManager(files).paths) == list(map(str, paths))
    with pytest.raises(BadFilesError, match="without a zarr store"):
        GlobalIndexManager(folder / "*.zip")
    with pytest.raises(NoFilesError, match="without a zarr store"):
        GlobalIndexManager(folder / "photos.zip")


def test_a_zip_file_with_several_stores_names_them(tmp_path):
    """None of them is meant more than another."""
    for name in "ab":
        write_zarr(tmp_path / "in" / f"{name}.zarr", numbers(4))
    packed(tmp_path / "in", tmp_path / "two.zip")
    with pytest.raises(BadFilesError, match=r"2 zarr stores in it \(a.zarr/, b.zarr/\)"):
        GlobalIndexManager([tmp_path / "two.zip"])


def test_a_store_beside_its_zip_file_is_refused(tmp_path):
    """Its samples would be trained on twice."""
    write_zarr(tmp_path / "a.zarr", numbers(4))
    packed(tmp_path / "a.zarr", tmp_path / "a.zarr.zip")
    with pytest.raises(NoFilesError, match="a.zarr and a.zarr.zip, which seem to be one store"):
        GlobalIndexManager(tmp_path)
    assert len(GlobalIndexManager(tmp_path / "*.zip")) == 4


# -- what is not there, and what changes


@pytest.mark.parametrize("shard", [None, 8])
def test_an_absent_member_is_an_absent_chunk(tmp_path, shard):
    """An error by default, fill values where these are asked for, and counted by a check."""
    data = numbers(12)
    path = zip_of(tmp_path, data, shard=shard)
    less = without(path, "c/0/0")
    manager = GlobalIndexManager([less])
    with pytest.raises(MissingChunkError, match="is not in the store"):
        FileCacheDataset(manager)[1]
    filled = FileCacheDataset(manager, on_missing="fill")
    np.testing.assert_array_equal(filled[1], np.zeros(3))
    np.testing.assert_array_equal(filled[11], data[11])
    [[report]] = verify.check(manager.now, decode=True, executor=None)
    assert report.absent == (2 if shard else 1) and not report.unreadable


def test_one_stamp_proves_that_nothing_changed(tmp_path, monkeypatch):
    """A zip file is not opened again until it is written again, and then samples are not mixed."""
    path = zip_of(tmp_path, numbers(12))
    seen = watched_scans(monkeypatch)
    manager = settled_manager([path])
    assert not manager.refresh() and seen == ["a.zarr.zip"]
    longer = zip_of(tmp_path / "more", numbers(14))
    os.replace(longer, path)
    with pytest.raises(ReadError, match="changed since it was indexed"):
        FileCacheDataset(manager)[0]
    assert manager.refresh().grown == ("a.zarr.zip",) and len(manager) == 14


def test_a_zip_file_that_changes_while_it_is_open_is_not_read_by_its_old_directory(tmp_path):
    """Members lie elsewhere in the new one."""
    path = zip_of(tmp_path, numbers(12))
    opened = Zip(str(path))
    shutil.copy(zip_of(tmp_path / "other", numbers(12, start=500)), path)
    with pytest.raises(ValueError, match="written to while it was open"):
        opened.read("c/0/0", 2**20)


# -- processes and descriptors


def _read(dataset, ids, queue):
    queue.put(np.stack([dataset[id].numpy() for id in ids]))


@pytest.mark.slow
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("codec", ["auto", [zarr.codecs.GzipCodec()]], ids=["zstd", "gzip"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_workers_read_what_their_parent_reads(tmp_path, start, codec):
    """At once, after the parent has read: no position in the file is shared."""
    data = numbers(200)
    path = zip_of(tmp_path, data, chunk=1, compressors=codec)
    dataset = FileCacheDataset(GlobalIndexManager([path]), cache_bytes=0)
    np.testing.assert_array_equal(dataset[3], data[3])
    context = multiprocessing.get_context(start)
    queues = [context.Queue() for _ in range(2)]
    workers = [
        context.Process(target=_read, args=(dataset, range(rank, 200, 2), queue), daemon=True)
        for rank, queue in enumerate(queues)
    ]
    for worker in workers:
        worker.start()
    np.testing.assert_array_equal(dataset[199], data[199])
    for rank, queue in enumerate(queues):
        np.testing.assert_array_equal(queue.get(timeout=60), data[rank::2])
    for worker in workers:
        worker.join()


def test_no_descriptor_stays_open(tmp_path):
    """Neither after a read, nor after an error, nor when zarr has read."""
    path = zip_of(tmp_path, numbers(12))
    before = open_descriptors()
    for backend in ("auto", "library"):
        dataset = FileCacheDataset(GlobalIndexManager([path]), backend=backend)
        dataset[3]
        dataset.close()
    with pytest.raises(MissingChunkError):
        FileCacheDataset(GlobalIndexManager([without(path, "c/0/0")]))[0]
    assert open_descriptors() == before


# -- damage


@settings(max_examples=300)
@given(
    method=st.sampled_from(METHODS),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(-1, 7),
)
def test_damage_to_a_zip_file_never_gives_other_data(method, place, bit):
    """Any bit flipped, and any cut (-1): an error, or the very data."""
    data = numbers(20)
    with Folder() as folder:
        write_zarr(folder / "a", data, compressors=None)
        path = packed(folder / "a", folder / "a.zip", method=method)
        damage(path, place, bit)
        try:
            entry = stores.scan(str(path), Layout(), 0)
            opened = OpenFile(str(path), entry, on_missing="error", backend="auto", forked=False)
            out = np.empty((len(data), *data.shape[1:]), data.dtype)
            if entry.length == len(out) and entry.arrays[0].item_shape == out.shape[1:]:
                opened.source(0).read(0, len(out), out)
                np.testing.assert_array_equal(out, data)
        except stores.UNREADABLE:
            return


@pytest.mark.parametrize(
    ("offset", "value", "told"), [(8, 1, "is encrypted"), (10, 12, "compressed by bzip2")]
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path, offset, value, told):
    """Encryption, and methods other than stored and deflated; the member is named."""
    path = zip_of(tmp_path, numbers(12))
    patched(path, b"c/0/0", offset, value)
    dataset = FileCacheDataset(GlobalIndexManager([path]))
    with pytest.raises(ReadError, match=f"member 'c/0/0' of the zip file .*{told}"):
        dataset[0]


@pytest.mark.parametrize("shard", [None, 8])
def test_a_member_that_would_inflate_to_far_more_costs_no_memory(tmp_path, shard):
    """A chunk of 24 bytes that claims to be 200 MB is refused before it is inflated."""
    path = zip_of(tmp_path, numbers(12), shard=shard, method=zipfile.ZIP_DEFLATED)
    bomb = without(path, "c/0/0")
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/0/0", bytes(200 * 10**6))
    dataset = FileCacheDataset(GlobalIndexManager([bomb]))
    tracemalloc.start()
    try:
        with pytest.raises(ReadError, match="200000000 bytes"):
            dataset[0]
        assert tracemalloc.get_traced_memory()[1] < 20 * 10**6
    finally:
        tracemalloc.stop()


def test_a_deflated_shard_is_inflated_once(tmp_path, monkeypatch):
    """And kept among what is cached, as decoded chunks are."""
    from globidx.disk.stores.zips import member

    calls = []
    real = member.inflate_raw
    path = zip_of(tmp_path, numbers(32), shard=32, method=zipfile.ZIP_DEFLATED)
    dataset = FileCacheDataset(settled_manager([path]))
    monkeypatch.setattr(member, "inflate_raw", lambda *args: calls.append(args) or real(*args))
    for id in range(0, 32, 4):
        np.testing.assert_array_equal(dataset[id], numbers(32)[id])
    # metadata, when it is opened, and the shard
    assert len(calls) == 2
