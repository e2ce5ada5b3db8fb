"""The reader over real files: chunks decoded once, rows that make items, counters, damage, forks, descriptors."""

from __future__ import annotations

import gc
import os
import random
import threading
from importlib.util import find_spec
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from cached import CHUNK, LENGTH, SHAPE, data_bytes, dataset_of
from files import numbers, open_descriptors, run_python, write_hdf5, write_zarr
from servers import Server

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.generator import START
from globidx.errors import MissingChunkError, ReadError

# -- what is decoded, and what is counted


@pytest.mark.parametrize("write", [write_zarr, write_hdf5])
@pytest.mark.parametrize("backend", ["auto", "library"])
def test_each_chunk_is_decoded_once_while_the_cache_holds_it(tmp_path, write, backend):
    """All ids, shuffled, in batches: as many decodes as there are chunks, a hit for every later look, every byte used."""
    dataset, data = dataset_of(tmp_path, write, backend=backend)
    ids = random.Random(1).sample(range(len(data)), len(data))
    for start in range(0, len(ids), 8):
        for id, sample in zip(
            ids[start : start + 8], dataset.__getitems__(ids[start : start + 8]), strict=True
        ):
            assert sample.tolist() == data[id].tolist()
    counters = dataset.counters(reset=True)
    assert (counters.decodes, counters.opens) == (2 * LENGTH // CHUNK, 2)
    assert counters.bytes_useful == data.nbytes and counters.hits > 0
    dataset[0]
    assert dataset.counters().decodes == 0 and dataset.counters().hits == 1
    dataset.close()


def test_refreshes_that_cross_keep_their_chunks_apart(tmp_path):
    """Of two at once, both count from the same look on: a chunk of one's first file is not one of the other's."""
    dataset, data = dataset_of(tmp_path, files=2)
    manager, look = dataset.index_manager, dataset.index_manager._look

    def crossed(*arguments, **settings):
        found = look(*arguments, **settings)
        manager._look = look
        write_zarr(tmp_path / ".zarr", data[:LENGTH] + 1000, chunk=CHUNK)
        (tmp_path / ".zarr").rename(tmp_path / "-.zarr")  # sorts before the others
        manager.refresh()
        assert dataset[0].tolist() == (data[0] + 1000).tolist()
        return found

    manager._look = crossed
    manager.refresh()
    assert len(dataset) == 2 * LENGTH and dataset[0].tolist() == data[0].tolist()
    dataset.close()


def test_bytes_read_are_the_bytes_of_the_chunk_files(tmp_path):
    """What the fast path counts is what lies on disk."""
    dataset, data = dataset_of(tmp_path, files=1)
    dataset.__getitems__(range(len(data)))
    stored = sum(
        file.stat().st_size for file in (tmp_path / "0.zarr/c").rglob("*") if file.is_file()
    )
    assert dataset.counters().bytes_read == stored
    dataset.close()
    (tmp_path / "h").mkdir()
    dataset, data = dataset_of(tmp_path / "h", write_hdf5, files=1, options={"compression": "gzip"})
    dataset.__getitems__(range(len(data)))
    with h5py.File(tmp_path / "h/0.h5") as file:
        assert dataset.counters().bytes_read == file["x"].id.get_storage_size()
    dataset.close()


# -- data that is not there, or not whole


def chunk_file(store):
    """The file with item 0 in it."""
    return next(path for path in (store / "c/0/0/0", store / "0.0.0") if path.exists())


STORES = {
    "raw": {"compressors": None},
    "zstd": {},
    "gzip": {"compressors": zarr.codecs.GzipCodec(level=1)},
    "blosc": {"compressors": zarr.codecs.BloscCodec(cname="lz4")},
    "crc32c": {"compressors": [zarr.codecs.ZstdCodec(), zarr.codecs.Crc32cCodec()]},
    "shard": {"chunk": 2, "shard": 4},
    "zarr2-zlib": {"zarr_format": 2, "compressors": numcodecs.Zlib()},
    "zarr2-lz4": {"zarr_format": 2, "compressors": numcodecs.LZ4()},
    "zarr2-blosc": {"zarr_format": 2, "compressors": numcodecs.Blosc("zstd", shuffle=2)},
    "zarr2-bz2": {"zarr_format": 2, "compressors": numcodecs.BZ2()},
    "zarr2-lzma": {"zarr_format": 2, "compressors": numcodecs.LZMA()},
}


@pytest.mark.parametrize("layout", STORES)
def test_a_chunk_cut_anywhere_is_an_error_with_file_item_and_id(tmp_path, layout):
    """No length of what is left decodes to anything; of nothing left, zarr would read fill value."""
    dataset, data = dataset_of(tmp_path, files=1, options=STORES[layout], cache_bytes=0)
    file = chunk_file(tmp_path / "0.zarr")
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(
            ReadError, match=r"sample id 1: item 1 of .*0\.zarr: (the index of )?chunk "
        ) as error:
            dataset[1]
        assert isinstance(error.value, MissingChunkError) == (length == 0)
    file.write_bytes(whole)
    assert dataset[1].tolist() == data[1].tolist()


@pytest.mark.parametrize("layout", STORES)
def test_a_chunk_of_another_size_is_an_error(tmp_path, layout):
    """A chunk that decodes, but to more or less than its shape, gives no items: neither padded nor cut."""
    right = STORES[layout].get("chunk", CHUNK)
    for chunk in (right // 2, right * 2):
        dataset, _ = dataset_of(
            tmp_path / str(chunk), files=1, options=STORES[layout], cache_bytes=0
        )
        other = tmp_path / f"other-{chunk}"
        options = {
            **STORES[layout],
            "chunk": chunk,
            **({"shard": 2 * chunk} if layout == "shard" else {}),
        }
        write_zarr(other, numbers(2 * chunk, SHAPE), **options)
        chunk_file(tmp_path / str(chunk) / "0.zarr").write_bytes(chunk_file(other).read_bytes())
        with pytest.raises(ReadError, match=r"item 1 of .*0\.zarr"):
            dataset[1]


@pytest.mark.parametrize("layout", ["crc32c", "shard-crc32c", "zlib", "fletcher32", "index"])
def test_a_flipped_bit_under_a_checksum_is_an_error(tmp_path, layout):
    """Every bit of a chunk with a checksum, and of a shard's index: an error, or the data unharmed; never other data."""
    file_bytes = {"crc32c": "crc32c", "zlib": "zarr2-zlib", "index": "shard"}
    if layout == "fletcher32":
        dataset, data = dataset_of(
            tmp_path, write_hdf5, files=1, options={"fletcher32": True}, cache_bytes=0
        )
        file = tmp_path / "0.h5"
        with h5py.File(file) as opened:
            found = opened["x"].id.get_chunk_info(0)
        span = range(found.byte_offset, found.byte_offset + found.size)
    else:
        options = STORES.get(file_bytes.get(layout)) or {**STORES["crc32c"], **STORES["shard"]}
        dataset, data = dataset_of(tmp_path, files=1, options=options, cache_bytes=0)
        file = chunk_file(tmp_path / "0.zarr")
        size = file.stat().st_size
        span = range(size - 36, size) if layout == "index" else range(size)
    whole, refused = file.read_bytes(), 0
    for byte in span:
        damaged = bytearray(whole)
        damaged[byte] ^= 1 << byte % 8
        file.write_bytes(damaged)
        try:
            assert dataset[1].tolist() == data[1].tolist()
        except ReadError:
            refused += 1
        dataset.close()  # an HDF5 file must be opened again to be read again
    assert (
        refused >= len(span) // 2
    )  # bits of the shard's other chunk, and of a header that says nothing


def test_an_inner_chunk_that_is_not_in_its_shard_is_missing_unless_filled(tmp_path):
    """The shard is there, one chunk of it is not: an error, as for a chunk of its own; filled where that was asked."""
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(8, 2), shards=(4, 2), chunks=(2, 2), dtype="i4", fill_value=7
    )
    array[2:] = np.arange(12).reshape(6, 2)
    manager = GlobalIndexManager(tmp_path)
    dataset = FileCacheDataset(manager)
    with pytest.raises(
        MissingChunkError, match=r"sample id 0: item 0 of .*chunk c/0/0 .*not in its shard"
    ):
        dataset[0]
    assert dataset[2].tolist() == [0, 1]
    filled = FileCacheDataset(manager, on_missing="fill")
    assert [filled[id].tolist() for id in (0, 2)] == [[7, 7], [0, 1]]


@pytest.mark.parametrize(
    "options", [{}, {"shards": (4, 3)}, {"zarr_format": 2}], ids=["zarr3", "shards", "zarr2"]
)
@pytest.mark.parametrize("fill", [0.0, 7.5, np.nan, -np.inf])
def test_chunks_of_nothing_but_fill_value_come_back(tmp_path, options, fill):
    """What zarr's default writer skips is read as it was written, where the reader says so."""
    data = np.full((10, 3), fill, "f8")
    data[4:5] = [[1, 2, 3]]
    zarr.create_array(tmp_path / "a.zarr", data=data, chunks=(2, 3), fill_value=fill, **options)
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path), on_missing="fill")
    np.testing.assert_array_equal(np.stack(dataset.__getitems__(range(10))), data)


def test_a_shard_that_is_written_anew_is_read_by_its_new_index(tmp_path):
    """What was noted of a shard is not used of another file in its place, nor of the same one written over."""
    dataset, data = dataset_of(tmp_path, files=1, options=STORES["shard"], cache_bytes=0)
    file = chunk_file(tmp_path / "0.zarr")
    assert dataset[1].tolist() == data[1].tolist()
    random_items = np.random.default_rng(0).integers(1, 2**16, (4, *SHAPE)).astype("u2")
    for number, items in enumerate(
        (np.full_like(random_items, 7), random_items)
    ):  # chunks of different sizes
        write_zarr(tmp_path / f"other-{number}", items, **STORES["shard"])
        other = chunk_file(tmp_path / f"other-{number}")
        if number:
            file.write_bytes(other.read_bytes())
        else:
            other.replace(file)
        assert dataset[1].tolist() == items[1].tolist()
        assert dataset[3].tolist() == items[3].tolist()


def test_only_what_is_missing_is_filled_in(tmp_path):
    """A chunk that was cut is an error also where missing ones are filled in: the library might read it as something."""
    dataset, _ = dataset_of(tmp_path, files=1, options=STORES["blosc"], on_missing="fill")
    file = chunk_file(tmp_path / "0.zarr")
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ReadError, match="item 0 of .*Blosc"):
        dataset[0]
    file.unlink()
    assert dataset[0].unique().tolist() == [0]


def test_what_the_system_refuses_is_a_read_error(tmp_path):
    """A chunk that may not be looked at is no missing chunk: nobody must fill it in."""
    dataset, _ = dataset_of(tmp_path, files=1, on_missing="fill")
    file = chunk_file(tmp_path / "0.zarr")
    file.unlink()
    file.symlink_to(file.name)  # a loop: ELOOP, which also root is told
    with pytest.raises(ReadError, match="item 0 of .*Too many levels") as error:
        dataset[0]
    assert not isinstance(error.value, MissingChunkError)


def test_a_contiguous_file_that_was_cut_is_an_error(tmp_path):
    """Data beyond the end of the file is not invented, also where the file was open before it was cut."""
    dataset, data = dataset_of(tmp_path, write_hdf5, files=1, options={"chunk": 0})
    assert dataset[LENGTH - 1].tolist() == data[LENGTH - 1].tolist()
    os.truncate(tmp_path / "0.h5", (tmp_path / "0.h5").stat().st_size - 5)
    with pytest.raises(ReadError, match=r"item 19 of .*0\.h5: dataset /x ends after 7 of 12 bytes"):
        dataset[LENGTH - 1]


def test_a_file_that_this_process_also_writes_is_left_to_the_library(tmp_path):
    """HDF5 holds what was just written in memory, where no other read finds it."""
    with h5py.File(tmp_path / "a.h5", "w") as writer:
        writer["x"] = numbers(8)  # not flushed
        dataset = FileCacheDataset(GlobalIndexManager(tmp_path))
        assert dataset[5].tolist() == numbers(8)[5].tolist()
        assert "also writes" in dataset.explain()
        dataset.close()


# -- processes, descriptors, memory


FORKED = """
import os, sys, zarr
from globidx import FileCacheDataset, GlobalIndexManager
if __name__ == "__main__":
    import torch.utils.data
    if sys.argv[3] == "zarrs":
        import zarrs
        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    dataset = FileCacheDataset(GlobalIndexManager(sys.argv[1]), backend=sys.argv[4])
    dataset.__getitems__(range(len(dataset)))  # the parent has decoded, so its library has threads
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=1, multiprocessing_context=sys.argv[2])
    try:
        print(sum(batch.sum(dtype=torch.int64).item() for batch in loader))
    except OSError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "forkserver"])
@pytest.mark.parametrize(
    ("library", "backend"), [("zarrs", "library"), ("tensorstore", "tensorstore")]
)
def test_libraries_that_do_not_survive_a_fork_say_so(tmp_path, method, library, backend):
    """A forked worker raises with the cure, where zarrs would hang and tensorstore abort; another worker reads."""
    if find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    _, data = dataset_of(tmp_path)
    said = run_python(FORKED, tmp_path, method, library, backend).stdout
    if method == "fork":
        assert said.startswith("ReadError") and "multiprocessing_context='forkserver'" in said
    else:
        assert int(said) == data.sum(dtype=np.int64)


@pytest.mark.slow
def test_zarrs_does_not_keep_the_fast_path_from_a_forked_worker(tmp_path):
    """What is read around zarr needs none of its pipelines."""
    if find_spec("zarrs") is None:
        pytest.skip("zarrs is not installed")
    _, data = dataset_of(tmp_path)
    assert int(run_python(FORKED, tmp_path, "fork", "zarrs", "auto").stdout) == data.sum(
        dtype=np.int64
    )


@pytest.mark.slow
def test_blosc_decodes_in_a_forked_worker(tmp_path):
    """Its threads stay in the parent; the child does without."""
    _, data = dataset_of(tmp_path, options=STORES["blosc"])
    assert int(run_python(FORKED, tmp_path, "fork", "none", "auto").stdout) == data.sum(
        dtype=np.int64
    )


def test_chunk_files_are_opened_also_where_no_descriptor_is_left(tmp_path):
    """Open HDF5 files make room for the moment that a chunk file of a zarr store is open."""
    for number in range(40):
        write_hdf5(tmp_path / f"{number:02}.h5", numbers(1, start=10 * number + 1), key="x")
    write_zarr(tmp_path / "99.zarr", numbers(8, start=1001), key="x")
    code = """
import os, resource, sys
from globidx import FileCacheDataset, GlobalIndexManager
dataset = FileCacheDataset(GlobalIndexManager(sys.argv[1]))
dataset[40]  # its store is open, which holds no descriptor
dataset.__getitems__(range(30))
held = []
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200))
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
print(dataset[47].tolist(), [int(sample[0]) for sample in dataset.__getitems__(range(40))] == list(range(1, 401, 10)))
"""
    assert run_python(code, tmp_path).stdout == "[1022, 1023, 1024] True\n"


@pytest.mark.slow
def test_a_hundred_thousand_random_reads_leave_no_descriptor_open(tmp_path):
    """Over files of every kind, more of them than may be open: as many descriptors after 10^5 reads as after the first."""
    layouts = [
        (write_zarr, {"chunk": 1}),
        (write_zarr, {"chunk": 2, "shard": 4}),
        (write_hdf5, {"chunk": 0}),
        (write_hdf5, {"chunk": 2, "compression": "gzip"}),
    ]
    for number in range(12):
        write, options = layouts[number % 4]
        write(
            tmp_path / f"{number:02}.{'h5' if write is write_hdf5 else 'zarr'}",
            numbers(8),
            key="x",
            **options,
        )
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path), max_open_files=3, cache_bytes=100)
    ids = random.Random(3)
    dataset.__getitems__(range(96))
    before = open_descriptors()
    for _ in range(400):
        dataset.__getitems__(ids.choices(range(96), k=250))
        assert open_descriptors() <= before + 3  # of the files that are open, some have none
    dataset.close()
    assert open_descriptors() <= before


@pytest.mark.slow
def test_memory_is_flat_over_three_epochs(tmp_path):
    """After a first epoch the others need no more than the allocator's noise; the cache keeps to its bytes."""
    data = np.random.default_rng(0).integers(1, 200, (256, 64, 64)).astype("u2")
    for number in range(4):
        write_zarr(tmp_path / f"{number}.zarr", data[64 * number : 64 * (number + 1)], chunk=8)
        write_hdf5(
            tmp_path / f"{number}.h5", data[64 * number : 64 * (number + 1)], chunk=8, key="x"
        )
    for number in range(4):  # one array a file, of one name
        (tmp_path / f"{number}.zarr").rename(tmp_path / f"bare-{number}.zarr")
    dataset = FileCacheDataset(GlobalIndexManager(str(tmp_path / "*.h5")), cache_bytes=2**19)
    bare = FileCacheDataset(GlobalIndexManager(str(tmp_path / "*.zarr")), cache_bytes=2**19)
    resident = []
    for epoch in range(4):
        ids = random.Random(epoch).sample(range(256), 256)
        for start in range(0, 256, 16):
            dataset.__getitems__(ids[start : start + 16])
            bare.__getitems__(ids[start : start + 16])
        gc.collect()
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096)
    assert resident[-1] - resident[0] < 2**21, resident  # an epoch decodes 16 MiB
    dataset.close()
    bare.close()


# -- what it says of itself


# -- what servers are asked ahead of time


@pytest.fixture
def far(tmp_path):
    """A server over a folder."""
    (tmp_path / "far").mkdir()
    with Server(tmp_path / "far") as server:
        server.path = tmp_path / "far"
        yield server


def far_dataset(far, **settings):
    """A dataset over a store of 20 items at a server, in chunks of 4."""
    write_zarr(far.path / "a.zarr", numbers(LENGTH, SHAPE), chunk=CHUNK)
    manager = GlobalIndexManager(f"{far.url}/a.zarr")
    return FileCacheDataset(manager, **settings)


def chunks_asked(far):
    """Those that the server was asked for since the last call, in some sequence."""
    asked = [path.partition("/c/")[2] for _, path, _ in far.take()["asked"]]
    return sorted(int(path.partition("/")[0]) for path in asked if path)


@pytest.mark.parametrize("cache", ["process", "shared"])
def test_what_a_thread_decodes_is_not_asked_for_by_the_batch_that_is_planned_meanwhile(
    far, cache, monkeypatch
):
    """It is claimed until it is kept; what is kept is counted on."""
    dataset, seen = far_dataset(far, cache=cache), []
    reader = dataset._reader
    chunks = reader._kept_of(reader.manager.now)
    original = type(chunks).put

    def look():
        relied = {}
        (first, *_) = reader._wishes(
            reader.line, reader.manager.now, START, [1, CHUNK + 1], relied.__setitem__
        )
        claimed = {one.is_claimed: one.piece.key.partition("/c/")[2][0] for one in first}
        seen.append((len(first), claimed.get(True), claimed.get(False), len(relied)))

    def put(self, key, block):
        look()
        original(self, key, block)
        look()

    monkeypatch.setattr(type(chunks), "put", put)
    look()
    dataset[0]
    tells = cache == "process"
    assert seen == [(2, None, "1", 0), (2, "0", "1", tells), (1, None, "1", tells)]
    dataset.close()


def test_a_chunk_that_goes_before_its_batch_is_read_is_fetched_ahead_again(far):
    """It was decoded when the batch was planned, so that nothing was asked for then."""
    dataset = far_dataset(far, cache_bytes=2 * CHUNK * data_bytes())
    reader = dataset._reader
    ahead = reader.line.ahead
    dataset[0]
    assert chunks_asked(far) == [0]
    reader.foresee([[2 * CHUNK], [1, CHUNK]])
    settled(reader.line)
    assert chunks_asked(far) == [1, 2]
    dataset.__getitems__([2 * CHUNK])
    dataset.__getitems__([3 * CHUNK])
    settled(reader.line)
    assert chunks_asked(far) == [0, 3]
    assert [sample.tolist() for sample in dataset.__getitems__([1, CHUNK])] == numbers(
        LENGTH, SHAPE
    )[[1, CHUNK]].tolist()
    assert chunks_asked(far) == [] and ahead.nbytes == 0
    dataset.close()


def test_a_chunk_that_goes_and_is_decoded_again_is_not_fetched_for_the_batch_that_counts_on_it(far):
    """Where the planner comes to it late; it is counted on then as before."""
    dataset = far_dataset(far, cache_bytes=2 * CHUNK * data_bytes())
    reader, gate = dataset._reader, threading.Event()
    dataset[0]
    batches = [[2 * CHUNK], [3 * CHUNK], [3], [2]]
    reader.foresee(batches)
    settled(reader.line)
    assert chunks_asked(far) == [0, 2, 3]
    reader.line.foresight._planner.put(_Waiting(gate))
    for at in range(3):
        reader.foresee(batches[at:])
        dataset.__getitems__(batches[at])
    gate.set()
    settled(reader.line)
    assert chunks_asked(far) == [0]
    for _ in range(2):
        reader.cached.make_room(reader.cached.capacity)
        settled(reader.line)
    assert chunks_asked(far) == [0]
    assert dataset[2].tolist() == numbers(LENGTH, SHAPE)[2].tolist() and chunks_asked(far) == []
    dataset.close()


class _Waiting:
    """A job that waits."""

    def __init__(self, gate):
        self.gate = gate

    def make(self):
        assert self.gate.wait(30)

    def drop(self):
        pass


def settled(line):
    """Wait until all is planned, and nothing is on its way."""
    line.foresight._planner.map(abs, [1, 2])
    with line.ahead._changed:
        assert line.ahead._changed.wait_for(lambda: not line.ahead._flying, timeout=30)
