"""What a read costs is bounded by the cache and the result, whatever the files claim and however they are cut."""

from __future__ import annotations

import bz2
import gc
import gzip
import json
import lzma
import os
import struct
import sys
import threading
import zlib
from pathlib import Path

import google_crc32c
import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from files import run_python, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager

MIB = 2**20
LIMIT = 64 * MIB

READ_ALONE = """
import os, resource, sys
import globidx.disk.stores.hdf5.library, globidx.disk.stores.zarr.fast, google_crc32c
from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.reader import Reader
from globidx.disk.stores.codecs import codec_of, inflater
for name in ("zstd", "blosc", "lz4"):
    codec_of(name, {})
inflater()
path, more, cache, *ids = sys.argv[1:]
manager = GlobalIndexManager(path, cache_dir=path + ".cache")
options = dict(max_open_files=None, cache_bytes=int(cache), on_missing="error", backend="auto")
reader = Reader(manager, [FieldSpec(column) for column in range(len(manager.arrays))], **options)
used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
resource.setrlimit(resource.RLIMIT_AS, (used + int(more), used + int(more)))
try:
    print("read", *[int(sample.reshape(-1)[0]) for sample, in reader.read([int(id) for id in ids])])
except Exception as error:
    print(type(error).__name__, error)
"""


def read_alone(path, *ids, more, cache=0):
    """What a process of its own says of reading, with ``more`` bytes of address space than it has before."""
    return run_python(
        READ_ALONE, path, str(more), str(cache), *map(str, ids), env={"OMP_NUM_THREADS": "1"}
    ).stdout


# -- chunks that inflate to far more than belongs


def zeros(compress, flush, size):
    block = bytes(MIB)
    return b"".join([compress(block) for _ in range(size // MIB)]) + flush()


def zstd_without_size(size, kind):
    """A frame that does not say how much it holds, of blocks that repeat a byte (1), or of compressed ones (2)."""
    literals = (1 | 3 << 2 | 2**17 << 4).to_bytes(3, "little") + b"\0"  # one byte, 2**17 times
    block = b"\0" if kind == 1 else literals + b"\0"  # and no sequences
    length = 2**17 if kind == 1 else len(block)
    count = size // 2**17
    heads = [
        (length << 3 | kind << 1 | (number == count - 1)).to_bytes(3, "little")
        for number in range(count)
    ]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(head + block for head in heads)


def gzip_bomb():
    made = zlib.compressobj(9, zlib.DEFLATED, 31)
    return zeros(made.compress, made.flush, LIMIT)


def bz2_bomb():
    made = bz2.BZ2Compressor(9)
    return zeros(made.compress, made.flush, LIMIT)


def lzma_bomb():
    made = lzma.LZMACompressor(preset=1)
    return zeros(made.compress, made.flush, LIMIT)


BOMBS = {
    "gzip": lambda: ("gzip", gzip_bomb()),
    "gzip members": lambda: ("gzip", gzip.compress(bytes(1000)) + gzip_bomb()),
    "zlib": lambda: ("zlib", zlib.compress(bytes(LIMIT), 9)),
    "bz2": lambda: ("bz2", bz2_bomb()),
    "lzma": lambda: ("lzma", lzma_bomb()),
    "zstd": lambda: ("zstd", bytes(numcodecs.Zstd(1).encode(np.zeros(LIMIT, "u1")))),
    "zstd frames": lambda: (
        "zstd",
        bytes(numcodecs.Zstd(1).encode(np.zeros(LIMIT // 8, "u1"))) * 8,
    ),
    "zstd repeats": lambda: ("zstd", zstd_without_size(LIMIT, 1)),
    "zstd without size": lambda: ("zstd", zstd_without_size(LIMIT, 2)),
    "zstd two without size": lambda: ("zstd", zstd_without_size(LIMIT, 2) * 2),
    "lz4": lambda: ("lz4", bytes(numcodecs.LZ4().encode(np.zeros(LIMIT, "u1")))),
    "blosc": lambda: ("blosc", bytes(numcodecs.Blosc("zstd", 9).encode(np.zeros(LIMIT, "u1")))),
    "gzip of gzip": lambda: ("gzip gzip", gzip.compress(gzip_bomb(), 9)),
    "gzip of zstd": lambda: ("gzip zstd", zstd_without_size(LIMIT, 2)),
}
#: Two MiB belong in each, so that no bomb is refused for its stored size already.
ROOM = 2 * MIB


def write_chunk(path, codecs, stored):
    """A zarr 2 array of one chunk of ``ROOM`` bytes, stored as given; zarr 3 where there are two codecs."""
    names = codecs.split()
    os.makedirs(path)
    if len(names) == 1:
        codec = {"id": names[0], **({"format": 1, "filters": None} if names == ["lzma"] else {})}
        metadata = {
            "zarr_format": 2,
            "shape": [8, ROOM // 8],
            "chunks": [8, ROOM // 8],
            "dtype": "|u1",
            "order": "C",
        }
        Path(path, ".zarray").write_text(
            json.dumps(metadata | {"compressor": codec, "fill_value": 0, "filters": None})
        )
        Path(path, "0.0").write_bytes(stored)
        return
    codecs = [
        {"name": "bytes"},
        *({"name": name, "configuration": {"level": 1, "checksum": False}} for name in names),
    ]
    for codec in codecs[1:]:
        if codec["name"] == "gzip":
            codec["configuration"] = {"level": 1}
    grid = {"name": "regular", "configuration": {"chunk_shape": [8, ROOM // 8]}}
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8, ROOM // 8],
        "data_type": "uint8",
        "attributes": {},
    }
    metadata |= {
        "chunk_grid": grid,
        "chunk_key_encoding": {"name": "default"},
        "fill_value": 0,
        "codecs": codecs,
    }
    Path(path, "zarr.json").write_text(json.dumps(metadata))
    Path(path, "c/0").mkdir(parents=True)
    Path(path, "c/0/0").write_bytes(stored)


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_chunk_that_inflates_to_far_more_costs_no_more_than_a_good_one(tmp_path, bomb):
    """32 times what belongs is refused where there is memory for five times that."""
    codecs, stored = BOMBS[bomb]()
    write_chunk(tmp_path / "a.zarr", codecs, stored)
    told = read_alone(tmp_path / "a.zarr", 0, more=5 * ROOM + 16 * MIB)
    assert told.startswith("ReadError") and "MemoryError" not in told
    assert "belong" in told or "too small" in told


def test_an_hdf5_chunk_that_inflates_to_far_more_costs_no_more_than_a_good_one(tmp_path):
    """The same of HDF5's deflate."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset(
            "x", (8, ROOM // 8), "u1", chunks=(8, ROOM // 8), compression="gzip"
        )
        dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(LIMIT), 9))
    told = read_alone(tmp_path / "a.h5", 0, more=5 * ROOM + 16 * MIB)
    assert told.startswith("ReadError") and "MemoryError" not in told


@pytest.mark.parametrize("codec", ["gzip", "zlib", "bz2", "lzma", "zstd", "lz4", "blosc"])
def test_a_good_chunk_is_read_in_that_memory(tmp_path, codec):
    """So that the limit of the others is none that nothing could keep."""
    made = {
        "gzip": numcodecs.GZip(1),
        "zlib": numcodecs.Zlib(1),
        "bz2": numcodecs.BZ2(1),
        "zstd": numcodecs.Zstd(1),
    }
    made |= {"lzma": numcodecs.LZMA(preset=1), "lz4": numcodecs.LZ4(), "blosc": numcodecs.Blosc()}
    data = np.random.default_rng(0).integers(1, 60, (8, ROOM // 8)).astype("u1")
    zarr.create_array(
        tmp_path / "a.zarr", data=data, chunks=data.shape, zarr_format=2, compressors=made[codec]
    )
    assert read_alone(tmp_path / "a.zarr", 0, more=5 * ROOM + 16 * MIB) == f"read {data[0, 0]}\n"


# -- rows of chunks that no cache holds


@pytest.mark.parametrize("write", ["zarr", "sharded", "hdf5"])
def test_items_of_a_row_of_chunks_that_fits_no_cache_cost_a_chunk(tmp_path, write):
    """64 MiB in 64 chunks through all items: three items are read in the room of a few chunks, each decoded once."""
    data = np.broadcast_to(np.arange(1, 1025, dtype="u2")[:, None, None], (1024, 256, 128))
    if write == "hdf5":
        with h5py.File(tmp_path / "a", "w") as file:
            file.create_dataset(
                "x", data=data, chunks=(1024, 32, 16), compression="gzip", compression_opts=1
            )
    else:
        shards = {"shards": (1024, 128, 128)} if write == "sharded" else {}
        made = zarr.create_array(
            tmp_path / "a", shape=data.shape, chunks=(1024, 32, 16), dtype="u2", **shards
        )
        made[...] = data
    assert read_alone(tmp_path / "a", 5, 900, 6, more=24 * MIB, cache=8 * MIB) == "read 6 901 7\n"


@pytest.mark.parametrize("options", [{}, {"shard": 8}, {"order": "F", "zarr_format": 2}])
@pytest.mark.parametrize("cache", [0, 100, 10**6])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_read_does_not_depend_on_the_cache(tmp_path, cache, axis, options):
    """Ids that repeat, leap and lie in one chunk, over rows of several chunks, cached or not."""
    data = np.arange(1, 11 * 5 * 3 + 1, dtype="u2").reshape(11, 5, 3)
    stored = np.moveaxis(data, 0, axis)
    sizes = {"chunks": tuple(4 if place == axis else 2 for place in range(3))}
    options = dict(options)
    if options.pop("shard", None):
        sizes["shards"] = tuple(2 * size for size in sizes["chunks"])
    zarr.create_array(tmp_path / "a.zarr", data=stored, fill_value=0, **sizes, **options)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=stored, chunks=sizes["chunks"], compression="gzip")
    for path in ("a.zarr", "a.h5"):
        for backend in ("auto", "library"):
            manager = GlobalIndexManager(tmp_path / path, axis=axis, cache_dir=tmp_path / "cache")
            dataset = FileCacheDataset(manager, cache_bytes=cache, backend=backend)
            ids = [10, 0, 3, 1, 1, 7, 8, 0]
            for _ in range(2):
                found = dataset.__getitems__(ids)
                np.testing.assert_array_equal(
                    np.stack(found), data[ids], err_msg=f"{path} {backend}"
                )


def test_a_chunk_that_no_cache_holds_is_decoded_once_a_batch(tmp_path):
    """As counted, and by the bytes that were taken."""
    data = np.random.default_rng(0).integers(1, 99, (64, 8, 8))
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(64, 4, 4), compressors=None)
    dataset = FileCacheDataset(
        GlobalIndexManager(tmp_path / "a.zarr", cache_dir=tmp_path), cache_bytes=0
    )
    found = dataset.__getitems__([1, 60, 30, 2])
    np.testing.assert_array_equal(np.stack(found), data[[1, 60, 30, 2]])
    assert dataset.counters().decodes == 1 and dataset.counters().bytes_read == data.nbytes


# -- costs that may not grow with how much there is


def shard_of(path, chunks, *, flip=None):
    """A store with one shard of raw chunks of eight bytes each, written without zarr."""
    zarr.create_array(
        path, shape=(chunks, 8), chunks=(1, 8), shards=(chunks, 8), dtype="u1", compressors=None
    )
    places = np.stack([np.arange(chunks) * 8, np.full(chunks, 8)], 1).astype("<u8").tobytes()
    index = bytearray(places + struct.pack("<I", google_crc32c.value(places)))
    if flip is not None:
        index[flip] ^= 1
    (path / "c/0").mkdir(parents=True)
    body = np.repeat((np.arange(chunks) % 251 + 1).astype("u1"), 8).tobytes()
    (path / "c/0/0").write_bytes(body + index)
    return path


@pytest.fixture
def calls(monkeypatch):
    """Names and bytes of the system calls that reading makes in this thread, as they are made."""
    seen, reading = [], threading.get_ident()

    def counted(name, real):
        def call(*arguments, **options):
            result = real(*arguments, **options)
            # the loop of zarr, which wrote the files, lives on in a thread of its own
            if threading.get_ident() == reading:
                seen.append((name, len(result) if isinstance(result, bytes) else 0))
            return result

        return call

    for name in ("open", "pread", "preadv", "read", "fstat", "stat", "close", "listdir", "scandir"):
        monkeypatch.setattr(os, name, counted(name, getattr(os, name)))
    return seen


def steps(work):
    """How many functions ``work`` calls, in Python and below: a clock that no other process disturbs."""
    count = 0

    def note(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    gc.collect()  # what is freed on the way calls functions, too
    gc.disable()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


def cost(dataset, ids, calls):
    """(calls of functions, system calls, bytes they read) for these ids, once each was read before."""
    for id in ids:
        dataset[id]
    gc.collect()  # what is freed may close files
    calls.clear()
    functions = steps(lambda: [dataset[id] for id in ids])
    return functions, len(calls), sum(size for _, size in calls)


@pytest.mark.parametrize("cache", [0, 64 * MIB])
def test_an_item_of_a_shard_costs_the_same_however_many_chunks_it_has(tmp_path, calls, cache):
    """Ten chunks or 300,000, whose index takes 5 MB: it is not read again, whether it is kept or not."""
    costs = []
    for chunks in (10, 300_000):
        path = shard_of(tmp_path / f"{chunks}.zarr", chunks)
        manager = GlobalIndexManager(path, cache_dir=tmp_path, settled_after=0)
        dataset = FileCacheDataset(manager, cache_bytes=cache)
        ids = [0, chunks // 2, chunks - 1]
        assert [int(dataset[id][0]) for id in ids] == [id % 251 + 1 for id in ids]
        costs.append(cost(dataset, ids, calls))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("format", [2, 3])
def test_an_item_costs_the_same_however_many_chunks_the_array_has(tmp_path, calls, format):
    """A thousand chunks or ten million, of which those that are read are there."""
    costs = []
    for chunks in (10**3, 10**7):
        path = tmp_path / f"{chunks}.zarr"
        settings = {"chunks": (1, 8), "dtype": "u1", "zarr_format": format, "compressors": None}
        array = zarr.create_array(path, shape=(chunks, 8), **settings)
        ids = [0, chunks // 2, chunks - 1]
        for id in ids:
            array[id] = 7
        manager = GlobalIndexManager(path, cache_dir=tmp_path, settled_after=0)
        costs.append(cost(FileCacheDataset(manager), ids, calls))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("open_files", [1, 64])
def test_an_item_costs_the_same_however_many_files_there_are(tmp_path, calls, open_files):
    """Four files or 400, each read item in a file of its own, opened anew or kept open."""
    costs = []
    for files in (4, 400):
        folder = tmp_path / str(files)
        folder.mkdir()
        first = write_zarr(folder / "0000.zarr", np.full((2, 3), 7, "u1"), chunk=1)
        for number in range(1, files):
            (folder / f"{number:04}.zarr").mkdir()
            for name in ("zarr.json", "c"):
                (folder / f"{number:04}.zarr" / name).symlink_to(Path(first, name))
        for number in range(1, files):
            (folder / f"{number:04}.zarr/zarr.json").unlink()
            (folder / f"{number:04}.zarr/zarr.json").write_bytes(
                Path(first, "zarr.json").read_bytes()
            )
        dataset = FileCacheDataset(
            GlobalIndexManager(folder, cache_dir=tmp_path, settled_after=0),
            max_open_files=open_files,
        )
        costs.append(cost(dataset, [0, files, 2 * files - 1], calls))
    assert costs[0] == costs[1]


@pytest.mark.parametrize("cache", [0, 64 * MIB])
@pytest.mark.parametrize("place", ["near", "far"])
def test_a_damaged_index_is_an_error_wherever_it_is_damaged(tmp_path, cache, place):
    """The checksum is verified also where an index is not kept, and over all of its pieces."""
    chunks = 200_000
    path = shard_of(tmp_path / "a.zarr", chunks, flip=3 if place == "near" else 16 * chunks - 1)
    dataset = FileCacheDataset(GlobalIndexManager(path, cache_dir=tmp_path), cache_bytes=cache)
    for _ in range(2):
        with pytest.raises(OSError, match="index of chunk c/0/0.*damaged"):
            dataset[chunks // 2]


def test_the_index_of_a_shard_that_is_not_kept_takes_little_memory(tmp_path):
    """One of 48 MB is verified piece by piece."""
    path = shard_of(tmp_path / "a.zarr", 3_000_000)
    assert read_alone(path, 2_999_999, more=12 * MIB, cache=MIB) == f"read {2_999_999 % 251 + 1}\n"


def test_a_shard_that_was_written_again_has_its_index_read_again(tmp_path):
    """What is remembered of a shard is remembered of that file."""
    data = np.arange(1, 65, dtype="u1").reshape(16, 4)
    array = zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(1, 4), shards=(16, 4))
    dataset = FileCacheDataset(
        GlobalIndexManager(tmp_path / "a.zarr", cache_dir=tmp_path), cache_bytes=300
    )
    assert int(dataset[3][0]) == 13
    array[...] = np.random.default_rng(0).integers(1, 255, data.shape)
    for id in (2, 7):
        np.testing.assert_array_equal(dataset[id], array[id])


def test_hdf5_and_zarr_hold_no_more_than_the_cache_and_what_is_asked(tmp_path):
    """The room of a block is made before it is decoded, so that two never stand side by side."""
    write_zarr(tmp_path / "a.zarr", np.full((64, MIB), 3, "u1"), chunk=8)
    assert read_alone(
        tmp_path / "a.zarr", *range(0, 64, 8), more=(8 + 9 + 12) * MIB, cache=9 * MIB
    ).startswith("read 3")
    write_hdf5(
        tmp_path / "a.h5",
        np.full((64, MIB), 3, "u1"),
        chunk=8,
        compression="gzip",
        compression_opts=1,
    )
    assert read_alone(
        tmp_path / "a.h5", *range(0, 64, 8), more=(8 + 9 + 12) * MIB, cache=9 * MIB
    ).startswith("read 3")
