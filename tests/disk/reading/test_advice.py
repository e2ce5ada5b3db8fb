"""The first error about an absent chunk says how much is absent, the later ones what to do."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr
from torch.utils.data import DataLoader

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.index.absent import AbsentChunks, Extent
from globidx.disk.reading import advice
from globidx.disk.reading.advice import Advice, in_words
from globidx.errors import MissingChunkError

CHOICE = 'FileCacheDataset(..., on_missing={"mask": "fill"})'
COUNTED = (
    "Counted over all 3 files: 'mask' lacks 3 of 9 chunks in 3 files, which touch 12 rows; "
    "fill value 9. "
)


@pytest.fixture
def dataset(tmp_path):
    """Three files whose masks lack the middle one of three chunks."""
    for number in range(3):
        group = zarr.create_group(tmp_path / f"{number}.zarr")
        for name in ("images", "mask"):
            made = group.create_array(name, shape=(12, 2), chunks=(4, 2), dtype="u2", fill_value=9)
            made[:] = 1
        (tmp_path / f"{number}.zarr/mask/c/1/0").unlink()
    return FileCacheDataset(GlobalIndexManager(tmp_path, key=["images", "mask"]))


def error_of(dataset, sample_id):
    """The message of reading one sample."""
    with pytest.raises(MissingChunkError) as error:
        dataset[sample_id]
    return str(error.value)


def test_the_first_error_counts_and_later_ones_are_short(dataset):
    """Both say which chunk it was, and the line that chooses."""
    first, second = error_of(dataset, 5), error_of(dataset, 17)
    for message, id, name in ((first, 5, 0), (second, 17, 1)):
        assert message.startswith(f"sample id {id}: item 5 of ")
        assert f"{name}.zarr: chunk c/1/0 of array 'mask' is not in the store" in message
        assert message.endswith(f"left it out on purpose, {CHOICE} reads its fill value")
    assert COUNTED in first and "Counted" not in second and len(second) < len(first)


def test_only_arrays_that_are_read_are_counted(dataset):
    """What is absent of others keeps nobody from reading."""
    files = dataset.index_manager
    for path in files.paths:
        (zarr.open_group(path).store.root / "images/c/2/0").unlink()
    assert "'images'" not in error_of(FileCacheDataset(files, fields="mask"), 5)
    both = error_of(FileCacheDataset(files), 5)
    assert "'images' lacks 3 of 9 chunks" in both and "'mask' lacks 3 of 9 chunks" in both


def test_reading_well_counts_nothing(dataset, monkeypatch):
    """Nor does an error that is about something else."""
    monkeypatch.setattr(advice, "extent_within", None)
    dataset.__getitems__([0, 1, 8, 13, 35])
    filling = FileCacheDataset(dataset.index_manager, on_missing={"mask": "fill"})
    assert filling[5]["mask"].tolist() == [9, 9]
    with pytest.raises(IndexError):
        dataset[36]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_message_comes_out_of_a_worker(dataset, method):
    """Whole, and with its type; each process says it once."""
    loader = DataLoader(dataset, batch_size=6, num_workers=1, multiprocessing_context=method)
    with pytest.raises(MissingChunkError) as error:
        list(loader)
    assert COUNTED in str(error.value) and CHOICE in str(error.value)
    assert COUNTED in error_of(dataset, 5)
    assert COUNTED in error_of(pickle.loads(pickle.dumps(dataset)), 5)


def test_a_chunk_file_without_bytes_is_called_lost(dataset):
    """No writer leaves one on purpose, so filling is not what is meant first."""
    for path in dataset.index_manager.paths:
        (zarr.open_group(path).store.root / "mask/c/1/0").write_bytes(b"")
    assert "holds no bytes, as after a crash, and is lost: restore it." in error_of(dataset, 5)


def test_time_is_bounded_and_the_message_says_so(dataset):
    """Here there are seven seconds of a clock that goes on by one when it is read: a file takes five."""
    times = iter(range(1000))
    hurried = Advice([1], allow_external=False, seconds=7, clock=lambda: next(times))
    told = hurried.of(dataset.index_manager.now, 1, 1)
    assert told.startswith(
        ". Counted over the first 1 of 3 files, after 7 s, at least: 'mask' lacks 1 of 3 chunks"
    )
    assert next(times) == 8
    assert "Counted" not in hurried.of(dataset.index_manager.now, 1, 1) and next(times) == 9


def test_members_of_a_compound_array_are_chosen_together(tmp_path):
    """They are one array, so one of them cannot be filled alone; the line can be used as it is."""
    import h5py

    dtype = np.dtype([("pt", "f4"), ("eta", "f4")])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("jets", (8,), dtype, chunks=(4,))[:4] = np.ones(4, dtype)
    manager = GlobalIndexManager(tmp_path, key="jets/{pt,eta}")
    message = error_of(FileCacheDataset(manager), 5)
    chosen = {info.name: "fill" for info in manager.arrays}
    for name in chosen:
        assert f'"{name}": "fill"' in message
    assert FileCacheDataset(manager, on_missing=chosen)[5] is not None


def test_what_could_not_be_counted_is_said(tmp_path):
    """Files by URL and unreadable ones; nothing is said where nothing is known."""
    lacking = AbsentChunks("x", 2, 5, (("a", 2, 5),), None, ("0", "1", "2", "3"))
    unknown = (("b", "by URL"),)
    assert in_words(Extent((lacking,), 4, 3, unknown, False), 2) == (
        "Counted over all 4 files (1 not looked at): 'x' lacks 2 of 5 chunks in 1 file; "
        "fill value 0, 1, 2, .... "
    )
    whole = AbsentChunks("x", 0, 5, (), 0, ())
    assert in_words(Extent((whole,), 4, 3, unknown, False), 2) == ""
    assert in_words(Extent((whole,), 4, 3, (), True), 2) == ""
    many = in_words(Extent((lacking,) * 7, 4, 4, (), False), 2)
    assert many.count("'x' lacks") == 5 and "2 more arrays lack chunks" in many
