"""Threads that read one index: the same values to the last bit, and each chunk decoded once."""

import gc
import random
import threading

import h5py
import numcodecs
import numpy as np
import pytest
from files import numbers, write_hdf5, write_zarr
from threads import in_threads

from globidx import GlobalIndexManager
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.reader import Reader

THREADS, LENGTH, CHUNK, SHAPE = 8, 96, 16, (32, 32)
#: By name: how a file is written, and whether its chunks are kept.
LAYOUTS = {
    "zarr": (lambda path, data: write_zarr(f"{path}.zarr", data, chunk=CHUNK), True),
    "shards": (
        lambda path, data: write_zarr(f"{path}.zarr", data, chunk=CHUNK, shard=3 * CHUNK),
        True,
    ),
    "blosc": (
        lambda path, data: write_zarr(
            f"{path}.zarr",
            data,
            chunk=CHUNK,
            zarr_format=2,
            compressors=numcodecs.Blosc("zstd", 1, numcodecs.Blosc.BITSHUFFLE),
        ),
        True,
    ),
    "gzip": (
        lambda path, data: write_hdf5(
            f"{path}.h5", data, chunk=CHUNK, compression="gzip", shuffle=True, fletcher32=True
        ),
        True,
    ),
    "lzf, by the library": (
        lambda path, data: write_hdf5(f"{path}.h5", data, chunk=CHUNK, compression="lzf"),
        True,
    ),
    "contiguous": (lambda path, data: write_hdf5(f"{path}.h5", data), False),
}


@pytest.fixture(params=LAYOUTS)
def written(request, tmp_path):
    """(files, all items in a row, whether chunks are kept) of two files of a layout."""
    write, is_chunked = LAYOUTS[request.param]
    data = [numbers(LENGTH, SHAPE, "u4", start=1 + 10**6 * number) for number in range(2)]
    for number, items in enumerate(data):
        write(tmp_path / str(number), items)
    return tmp_path, np.concatenate(data), is_chunked


def reader_of(folder, cache_bytes, **options):
    settings = {"max_open_files": None, "on_missing": "error", "backend": "auto"} | options
    return Reader(GlobalIndexManager(folder), [FieldSpec(0)], cache_bytes=cache_bytes, **settings)


def read_in_threads(reader, expected, batches):
    """Read batches of ids in threads at once, and compare each value."""

    def work(number):
        for ids in batches(number):
            values = reader.read(ids)
            for (value,), id in zip(values, ids, strict=True):
                np.testing.assert_array_equal(value, expected[id])

    in_threads(THREADS, work)


def drawn(number):
    """Batches of any ids, others in each thread."""
    dice = random.Random(number)
    for _ in range(12):
        yield [dice.randrange(2 * LENGTH) for _ in range(dice.randint(1, 24))]


@pytest.mark.parametrize("cache", ["roomy", "a chunk and a half", "none"])
def test_each_thread_reads_what_is_stored(written, cache):
    """Eight threads over twelve chunks of two files, one of which is open at a time, whatever is kept."""
    folder, expected, _ = written
    chunk = CHUNK * 4 * int(np.prod(SHAPE))
    cache_bytes = {"roomy": 2**26, "a chunk and a half": 3 * chunk // 2, "none": 0}[cache]
    read_in_threads(reader_of(folder, cache_bytes, max_open_files=1), expected, drawn)


@pytest.mark.parametrize("written", ["zarr", "gzip"], indirect=True)
def test_threads_share_the_libraries_too(written):
    """zarr-python and h5py, where all is left to them."""
    folder, expected, _ = written
    read_in_threads(reader_of(folder, 2**16, backend="library"), expected, drawn)


def test_no_chunk_is_decoded_twice_at_once(written):
    """Where all are kept, threads that want the same at the same moment decode each chunk once in all."""
    folder, expected, is_chunked = written
    reader = reader_of(folder, 2**26)
    everything = list(range(len(expected)))
    read_in_threads(reader, expected, lambda number: [everything[::-1], everything])
    counters = reader.counters()
    assert counters.decodes == (2 * LENGTH // CHUNK if is_chunked else 0)
    assert counters.bytes_useful == THREADS * 2 * expected.nbytes
    if is_chunked:
        assert counters.hits == THREADS * 2 * (2 * LENGTH // CHUNK) - counters.decodes


def test_closing_while_threads_read_takes_no_file_from_them(written):
    """A close in the midst of reads: they end well, and what is read afterwards is opened anew."""
    folder, expected, _ = written
    reader = reader_of(folder, 2**20)
    is_over = threading.Event()

    def work(number):
        if not number:
            while not is_over.is_set():
                reader.close()
            return
        try:
            for turn in range(60):
                ids = [(turn * 7 + number * 31 + step) % len(expected) for step in range(9)]
                for (value,), id in zip(reader.read(ids), ids, strict=True):
                    np.testing.assert_array_equal(value, expected[id])
        finally:
            is_over.set()

    in_threads(4, work)
    reader.close()
    assert len(reader.handles) == 0


@pytest.mark.parametrize("written", ["gzip", "contiguous"], indirect=True)
def test_a_thread_reads_while_another_is_in_hdf5(written):
    """Bytes of plain datasets are read and decoded without h5py, whose one lock is for the whole process."""
    folder, expected, _ = written
    reader = reader_of(folder, 0)
    ids = list(range(0, len(expected), 7))
    # what is looked up once
    reader.read(ids)
    read = threading.Thread(
        target=read_in_threads, args=(reader, expected, lambda _: [ids]), daemon=True
    )
    # what the thread would free of other tests may be h5py's, which waits for its lock
    gc.collect()
    gc.disable()
    try:
        with h5py._objects.phil:
            read.start()
            read.join(30)
            assert not read.is_alive()
    finally:
        gc.enable()
