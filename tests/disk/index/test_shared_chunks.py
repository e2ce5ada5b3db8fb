"""Keys of chunks that mean the same in every process, and nothing else anywhere."""

from __future__ import annotations

import gc
import json
import os
import pickle
import shutil
import weakref

import h5py
import numpy as np
import pytest
import zarr
from servers import Server

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.files.shared_blocks import SharedBlocks
from globidx.disk.index.shared_chunks import SharedChunks, name_of_cache
from globidx.disk.reading.batch import Batch
from globidx.disk.reading.explain import explain


@pytest.fixture
def folder(tmp_path):
    """Two files of chunks whose rows tell file and row."""
    for number in range(2):
        write(tmp_path / "data" / f"{number}.h5", 100 * number)
    return tmp_path / "data"


def write(path, first):
    """A file of 32 rows, 8 in a chunk."""
    path.parent.mkdir(exist_ok=True)
    with h5py.File(f"{path}.new", "w") as file:
        rows = np.arange(first, first + 32, dtype="i4").repeat(6).reshape(32, 2, 3)
        file.create_dataset("x", data=rows, chunks=(8, 2, 3), compression="gzip")
    # in place of one that may be open
    os.replace(f"{path}.new", path)


def shared(folder, *, key=None, sequences="row", **options):
    """A dataset whose chunks are shared, with an index that nobody else has."""
    manager = GlobalIndexManager(folder, key=key, sequences=sequences, allow_external=True)
    return FileCacheDataset(manager, cache="shared", **options)


def read(dataset):
    """What all samples are, and how many chunks that decoded."""
    dataset.counters(reset=True)
    rows = [sample.numpy() for sample in dataset.__getitems__(range(len(dataset)))]
    return rows, dataset.counters().decodes


def test_who_reads_the_same_decodes_nothing_again(folder):
    """Another dataset over the same files, made from nothing, or pickled: every chunk is there."""
    one = shared(folder)
    rows, decodes = read(one)
    assert decodes == 8 and [int(row[0, 0]) for row in rows] == [*range(32), *range(100, 132)]
    for other in (shared(folder), pickle.loads(pickle.dumps(one))):
        again, decodes = read(other)
        assert decodes == 0 and np.array_equal(again, rows)
        other.close()


@pytest.mark.parametrize("cache", ["process", "shared"])
def test_samples_are_the_same_with_either_cache(folder, cache):
    """In any sequence, with repeats, by batches small and large, parts included."""
    numbers = np.random.default_rng(1).integers(0, 64, 500)
    for select, part in ((None, slice(None)), ({2: slice(1, 3)}, slice(1, 3))):
        dataset = FileCacheDataset(
            GlobalIndexManager(folder), cache=cache, cache_bytes=1000, select=select
        )
        for ids in np.split(numbers, [1, 5, 100, 130]):
            for id, sample in zip(ids, dataset.__getitems__(ids.tolist()), strict=True):
                value = int(id) if id < 32 else int(id) - 32 + 100
                assert np.array_equal(sample, np.full((2, 3), value, "i4")[:, part])


class Crowded(SharedBlocks):
    """Another process puts a block in place of each, as soon as it is there."""

    def put(self, key, array):
        super().put(key, array)
        SharedBlocks(self.name, self.capacity).put(b"o" * 16, np.full(array.nbytes, 99, "u1"))


def test_a_chunk_that_goes_as_soon_as_it_is_kept_is_read_right(folder):
    """Where the memory has room for one chunk, and others want it."""
    reader = FileCacheDataset(GlobalIndexManager(folder))._reader
    now = reader.manager.now
    chunks = SharedChunks(Crowded(f"crowded {folder}", 8 * 24), now)
    for id in (3, 35, 12):
        ((sample,),) = Batch(now, [id], reader.handles, chunks).samples(reader.fields)
        assert np.array_equal(sample, np.full((2, 3), id if id < 32 else id - 32 + 100, "i4"))
    assert chunks._blocks.has(b"o" * 16)


def test_a_file_that_was_rewritten_is_not_taken_for_the_old_one(folder):
    """Same name, shape and size, while somebody still has the old one's chunks."""
    old = shared(folder)
    read(old)
    write(folder / "1.h5", 500)
    new, decodes = read(shared(folder))
    assert decodes == 4 and [int(row[0, 0]) for row in new[32:]] == [*range(500, 532)]


def test_a_copy_of_the_files_elsewhere_is_another(folder):
    """Their fingerprints are equal, and what is in them need not be."""
    old = shared(folder)
    read(old)
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    write(other / "0.h5", 7)
    rows, decodes = read(shared(other))
    assert decodes == 8 and int(rows[0][0, 0]) == 7


def test_parts_are_no_wholes(folder):
    """What is selected of rows is kept by itself."""
    old = shared(folder)
    read(old)
    rows, decodes = read(shared(folder, select={2: 1}))
    assert decodes == 8 and rows[3].tolist() == [3, 3]


def test_the_key_of_a_chunk_names_file_stamps_array_length_and_part(folder):
    """Equal in two looks at the same files; another one when any of these is."""
    first, second = (GlobalIndexManager(folder).now for _ in range(2))
    blocks = FileCacheDataset(GlobalIndexManager(folder))._reader.cached

    def key(now, unit=0, column=0, chunk=8, selection=None):
        return SharedChunks(blocks, now)._key((now.look, column, selection, unit, chunk))

    known = key(first)
    assert key(second) == known and len(known) == 16
    assert len({known, key(first, unit=1), key(first, chunk=16)}) == 3
    os.utime(folder / "0.h5", ns=(1, 1))
    assert key(first) != known


def test_jobs_fields_bounds_and_rules_have_caches_of_their_own(folder, monkeypatch):
    """What one job reserved is charged to it, and a bound is one for all who share."""
    now = GlobalIndexManager(folder).now
    names = {name_of_cache(now, [0], 100, "error") for _ in range(2)}
    names.add(name_of_cache(now, [0], 200, "error"))
    names.add(name_of_cache(now, [0, 1], 100, "error"))
    names.add(name_of_cache(now, [0], 100, "fill"))
    for variable in ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "MASTER_PORT"):
        monkeypatch.setenv(variable, "7")
        names.add(name_of_cache(now, [0], 100, "error"))
    assert len(names) == 7


def test_explain_says_whose_chunks_they_are(folder):
    """Those of the node, or why not."""
    assert explain(shared(folder)._reader).endswith("kept by all processes of the node")
    assert explain(FileCacheDataset(GlobalIndexManager(folder))._reader).endswith("chunks kept")
    with_much = shared(folder, cache_bytes=2**50)
    assert "kept by each process, since it takes" in explain(with_much._reader)


def test_a_cache_of_another_name_is_refused(folder):
    """One sentence, with those that there are."""
    with pytest.raises(ValueError, match="cache must be one of process, shared, got 'node'"):
        FileCacheDataset(GlobalIndexManager(folder), cache="node")


def test_chunks_rewritten_in_place_are_read_anew_after_a_refresh(tmp_path):
    """They have no stamp: the metadata of their store are as they were."""
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 3), dtype="i4", chunks=(4, 3))
    array[:] = 1
    manager = GlobalIndexManager(tmp_path / "a.zarr")
    dataset = FileCacheDataset(manager, cache="shared")
    assert dataset[0].unique().tolist() == [1]
    array[:] = 2
    manager.refresh()
    for reader in (dataset, pickle.loads(pickle.dumps(dataset))):
        assert reader[0].unique().tolist() == [2]


def first_values(dataset, step=8):
    """The first number of each chunk."""
    return [dataset[id].flatten()[0].item() for id in range(0, len(dataset), step)]


def replaced(path, write, value):
    """Put a file that holds ``value`` in place of another one, which may be open."""
    new = path.with_name(f"new-{path.name}")
    write(new, value)
    os.replace(new, path)


def write_sequences(path, value):
    with h5py.File(path, "w") as file:
        for number in range(4):
            rows = np.full((8, 3), value, "i4")
            file.create_dataset(f"{number}/x", data=rows, chunks=(8, 3))


def test_what_is_decoded_out_of_a_file_that_was_replaced_is_not_taken_for_the_new_one(tmp_path):
    """Who has the old one open reads it on: chunks that nobody had before, too."""
    path = tmp_path / "a.h5"

    def made():
        return shared(path, key="*/x", sequences="match")

    write_sequences(path, 1)
    old = made()
    assert old[0].tolist() == [1, 1, 1]
    replaced(path, write_sequences, 2)
    assert first_values(old) == [1, 1, 1, 1]
    assert first_values(made()) == [2, 2, 2, 2]


def write_chunked(path, value):
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.full((16, 3), value, "i4"), chunks=(8, 3))


def linked(folder):
    """A file whose array lies in another one, and that one."""
    write_chunked(folder / "data.h5", 1)
    with h5py.File(folder / "link.h5", "w") as file:
        file["x"] = h5py.ExternalLink("data.h5", "/x")
    return folder / "link.h5", folder / "data.h5", write_chunked


def write_raw(path, value):
    path.write_bytes(np.full((16, 3), value, "<i4").tobytes())


def referred(folder):
    """A set of references to a file, and that file."""
    write_raw(folder / "data.bin", 1)
    array = {"shape": [16, 3], "chunks": [8, 3], "dtype": "<i4", "order": "C"}
    array |= {"zarr_format": 2, "compressor": None, "filters": None, "fill_value": 0}
    refs = {".zgroup": '{"zarr_format": 2}', "x/.zarray": json.dumps(array)}
    refs |= {f"x/{at}.0": [f"{folder}/data.bin", 96 * at, 96] for at in range(2)}
    (folder / "refs.json").write_text(json.dumps({"version": 1, "refs": refs}))
    return folder / "refs.json", folder / "data.bin", write_raw


@pytest.mark.parametrize("made", [linked, referred])
def test_data_in_another_file_are_shared_by_those_who_looked_at_once(tmp_path, made):
    """No stamp of the file that is indexed tells of them: a pickle has the same look, a new index none."""
    path, data, write = made(tmp_path)

    old = shared(path, key="x")
    assert first_values(old) == [1, 1]
    other = pickle.loads(pickle.dumps(old))
    assert read(other)[1] == 0
    replaced(data, write, 2)
    assert first_values(shared(path, key="x")) == [2, 2]


@pytest.mark.parametrize("told", [True, False], ids=["version", "no version"])
@pytest.mark.parametrize("kind", ["hdf5", "zip"])
def test_an_object_by_url_that_was_replaced_is_another_one(tmp_path, kind, told):
    """By its version; without one, a new index shares with nobody."""
    pytest.importorskip("aiohttp")
    names = {"hdf5": "a.h5", "zip": "a.zarr.zip"}

    def write(path, value):
        if kind == "hdf5":
            write_chunked(path, value)
            return
        with zarr.storage.ZipStore(path, mode="w") as store:
            zarr.create_array(store, data=np.full((16, 3), value, "i4"), chunks=(8, 3))

    def dataset():
        manager = GlobalIndexManager(f"{server.url}/{names[kind]}", cache_dir=tmp_path / "index")
        return FileCacheDataset(manager, cache="shared")

    path = tmp_path / "data" / names[kind]
    path.parent.mkdir()
    write(path, 1)
    with Server(path.parent) as server:
        if not told:
            server.plan({"path": names[kind], "kind": "untold"})
        old = dataset()
        assert first_values(old) == [1, 1]
        assert (read(dataset())[1] == 0) == told
        replaced(path, write, 2)
        assert first_values(dataset()) == [2, 2]
        old.close()


def test_who_refreshed_later_is_not_given_what_was_there_before(tmp_path):
    """Two that each refreshed once, at different times, over chunks without a stamp."""
    array = zarr.create_array(tmp_path / "a.zarr", shape=(8, 3), dtype="i4", chunks=(8, 3))
    managers = [GlobalIndexManager(tmp_path / "a.zarr") for _ in range(2)]
    datasets = [FileCacheDataset(manager, cache="shared") for manager in managers]
    for value, manager, dataset in zip((1, 2), managers, datasets, strict=True):
        array[:] = value
        manager.refresh()
        assert first_values(dataset) == [value]


def test_objects_are_decoded_without_waiting_for_other_processes(tmp_path):
    """No other process could have them from there."""
    strings = h5py.string_dtype()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=["a", "b"] * 8, dtype=strings, chunks=(8,))
    reader = shared(tmp_path / "a.h5", decode={"x": str.upper})._reader
    now = reader.manager.now
    blocks = SharedBlocks(f"objects {tmp_path}", 2**20, claim_seconds=1000.0)
    chunks, key = SharedChunks(blocks, now), (now.look, 0, None, 0, 0)
    with SharedBlocks(blocks.name, 2**20).claim(chunks._key(key)), chunks.claim(key) as is_mine:
        assert is_mine


def test_the_memory_goes_with_the_dataset(folder):
    """At once, and not when Python looks for cycles."""
    gc.collect()
    gc.disable()
    try:
        dataset = shared(folder)
        read(dataset)
        gone = weakref.ref(dataset._reader._shared.open())
        del dataset
        assert gone() is None
    finally:
        gc.enable()
