"""One batch: a chunk decoded once for all that is wanted of it, kept ones read before others push them out."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from cached import CHUNK, LENGTH, data_bytes, dataset_of
from files import write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.lru import HandleCache
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.batch import Batch, FieldSpec
from globidx.disk.reading.open_file import OpenFile
from globidx.errors import ReadError


def test_without_room_every_batch_decodes(tmp_path):
    """A chunk that is larger than the cache is decoded once for all that a batch wants of it, and again for the next."""
    dataset, _ = dataset_of(tmp_path, cache_bytes=CHUNK * data_bytes() - 1)
    dataset.__getitems__(
        [0, 1, 3, 4]
    )  # [0, 2), [3, 5): the first in chunk 0, the second in chunks 0 and 1
    assert dataset.counters().decodes == 2 and dataset.counters().hits == 0
    dataset[0]
    assert dataset.counters().decodes == 3
    dataset.close()


def test_what_is_kept_is_read_before_it_is_pushed_out(tmp_path):
    """A cache of two chunks that holds the last two of a file serves a batch that begins in the first."""
    dataset, data = dataset_of(tmp_path, files=1, cache_bytes=2 * CHUNK * data_bytes())
    dataset.__getitems__(range(LENGTH - CHUNK - 1, LENGTH))
    before = dataset.counters(reset=True).decodes
    samples = dataset.__getitems__([0, LENGTH - CHUNK - 1, LENGTH - 1])
    assert [sample.tolist() for sample in samples] == data[
        [0, LENGTH - CHUNK - 1, LENGTH - 1]
    ].tolist()
    assert before >= 2 and dataset.counters().decodes == 1
    dataset.close()


def test_a_chunk_that_a_batch_takes_whole_pushes_no_other_out(tmp_path):
    """Chunk by chunk through a file: what fits is there for the next epoch, and the rest is decoded anew."""
    dataset, data = dataset_of(tmp_path, files=1, cache_bytes=2 * CHUNK * data_bytes())
    for decodes in (5, 3):
        for first in range(0, LENGTH, CHUNK):
            ids = range(first, first + CHUNK)
            assert np.array_equal(np.stack(dataset.__getitems__(ids)), data[ids])
        assert dataset.counters(reset=True).decodes == decodes
    dataset.close()


def test_of_windows_a_chunk_is_kept_also_if_it_was_taken_whole(tmp_path):
    """The next window begins in it."""
    for number in range(3):
        write_zarr(tmp_path / f"{number}.zarr", np.arange(8) + 8 * number, chunk=4)
    manager = GlobalIndexManager(tmp_path, sequences="file", window=range(4))
    dataset = FileCacheDataset(manager, cache_bytes=2 * 4 * 8)
    for id in range(len(dataset)):
        assert dataset[id].tolist() == list(range(id + 3 * (id // 5), id + 3 * (id // 5) + 4))
    assert dataset.counters().decodes == 6
    dataset.close()


def test_a_kept_sample_is_not_written_to_by_later_batches(tmp_path):
    """Samples of one batch never share memory, with each other or with the cache, also where ids repeat."""
    dataset, data = dataset_of(tmp_path)
    batches = [dataset.__getitems__([3, 3, 5, 3]) for _ in range(3)]
    for place, sample in enumerate(sample for batch in batches for sample in batch):
        sample.fill_(place)
    assert [sample.unique().tolist() for batch in batches for sample in batch] == [
        [place] for place in range(12)
    ]
    assert dataset[3].tolist() == data[3].tolist()
    assert (
        batches[0][0].untyped_storage().nbytes() == data_bytes()
    )  # torch.save of a sample saves no batch
    dataset.close()


@settings(max_examples=60)
@given(
    rows=st.integers(1, 7),
    chunk=st.integers(1, 9),
    cache_bytes=st.sampled_from([0, 2**20]),
    stored=st.sampled_from(["zarr3", "hdf5", "contiguous"]),
    apart=st.booleans(),
    seed=st.integers(0, 99),
)
def test_rows_make_items_whatever_the_chunks_are(
    tmp_path_factory, rows, chunk, cache_bytes, stored, apart, seed
):
    """Sequences of ``rows`` numbers out of one long array: chunks that do not divide them are still decoded once."""
    total = 60
    data, folder = np.arange(1, total + 1, dtype="u2"), tmp_path_factory.mktemp("tokens")
    if stored == "zarr3":
        write_zarr(folder / "a", data, chunk=chunk)
    else:
        write_hdf5(folder / "a", data, chunk=0 if stored == "contiguous" else chunk)
    chunk_length, path = 0 if stored == "contiguous" else chunk, "" if stored == "zarr3" else "x"
    info = ArrayInfo("tokens", (rows,), "uint16", chunk_length, path, "tokens")
    entry = Entry(
        "zarr3" if stored == "zarr3" else "hdf5", total // rows, (info,), bytes(16), ((0,) * 4,)
    )
    now = Snapshot(str(folder), Table.of(["a"], [entry]), (), Path("unused"))

    def opened(key):
        assert key == (now, 0)
        return OpenFile(str(folder / "a"), entry, on_missing="error", backend="auto", forked=False)

    handles, cached = HandleCache(1, opened), BlockCache(cache_bytes)
    dice, all_ids = random.Random(seed), range(total // rows)
    ids = dice.sample(all_ids, min(12, len(all_ids))) if apart else dice.choices(all_ids, k=12)
    batch = Batch(now, ids, handles, cached)
    (column,) = batch.columns([FieldSpec(0)])
    for id, sample in zip(ids, column, strict=True):
        assert sample.tolist() == data[id * rows : (id + 1) * rows].tolist()
    if cache_bytes and chunk > 1:
        chunks = {row // chunk for id in ids for row in range(id * rows, (id + 1) * rows)}
        assert batch.counts.decodes == (len(chunks) if chunk_length else 0)
    handles.close()


@pytest.mark.parametrize("chunk", [1, 3])
def test_an_error_names_the_samples_that_lack_the_item(tmp_path, chunk):
    """Wherever the file is among others, and the sample in its batch, which may have it twice."""
    dataset, _ = dataset_of(tmp_path, files=3, options={"chunk": chunk})
    # of the second file, item 6
    lost = LENGTH + 6
    (tmp_path / "1.zarr" / "c" / str(6 // chunk) / "0" / "0").unlink()
    for ids in ([lost, 0, 2 * LENGTH], [0, 2 * LENGTH + 1, lost, lost - 3, lost]):
        named = ", ".join([str(lost)] * ids.count(lost))
        with pytest.raises(ReadError, match=rf"^sample id {named}: item 6 of"):
            dataset.__getitems__(ids)
    dataset.close()


def test_items_of_one_batch_in_many_files_open_each_once(tmp_path):
    """A file is opened once for all that a batch wants of it."""
    dataset, data = dataset_of(
        tmp_path, write_hdf5, files=5, options={"chunk": 0}, max_open_files=1
    )
    ids = random.Random(2).sample(range(len(data)), 60)
    assert [sample.tolist() for sample in dataset.__getitems__(ids)] == [
        data[id].tolist() for id in ids
    ]
    assert dataset.counters().opens == 5 and dataset.counters().decodes == 0
    dataset.close()
