"""What nobody wrote into an HDF5 dataset is an error, unless it is to be filled in."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from files import numbers

from globidx.disk.stores import base as stores
from globidx.errors import MissingChunkError


@pytest.mark.parametrize("axis", [0, 1])
def test_a_never_written_hdf5_chunk_is_an_error_unless_filled(tmp_path, axis):
    """HDF5 invents fill values for chunks that nobody wrote: the items in them are errors, all others read."""
    data = numbers(10, (6,))
    with h5py.File(tmp_path / "s.h5", "w") as file:
        dataset = file.create_dataset(
            "x", shape=np.moveaxis(data, 0, axis).shape, dtype="u2", chunks=(4, 4)
        )
        if axis:
            dataset[:, :4] = data[:4].T
            dataset[:, 8:] = data[8:].T
        else:
            dataset[:4] = data[:4]
            dataset[8:] = data[8:]
    store = stores.open_store(tmp_path / "s.h5", "hdf5", axis, on_missing="error")
    np.testing.assert_array_equal(store.read("x", 0, 4), data[:4])
    np.testing.assert_array_equal(store.read("x", 8, 10), data[8:])
    for start, stop in ((4, 5), (7, 8), (3, 5), (7, 9), (0, 10)):
        with pytest.raises(MissingChunkError, match="never written"):
            store.read("x", start, stop)
    store.close()
    data[4:8] = 0
    filling = stores.open_store(tmp_path / "s.h5", "hdf5", axis, on_missing="fill")
    np.testing.assert_array_equal(filling.read("x", 0, 10), data)
    filling.close()


def test_a_never_written_contiguous_dataset_is_an_error_unless_filled(tmp_path):
    """A contiguous dataset without storage is missing as a whole; an empty one has nothing to miss."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x", shape=(5, 2), dtype="u2", fillvalue=7)
        file.create_dataset("empty", shape=(0, 2), dtype="u2")
    store = stores.open_store(tmp_path / "s.h5", "hdf5", 0, on_missing="error")
    with pytest.raises(MissingChunkError, match="fill value .*7"):
        store.read("x", 0, 1)
    assert store.read("empty", 0, 0).shape == (0, 2)
    store.close()
    filling = stores.open_store(tmp_path / "s.h5", "hdf5", 0, on_missing="fill")
    assert filling.read("x", 0, 5).tolist() == [[7, 7]] * 5
    filling.close()


def test_raw_files_that_were_cut_are_missing_from_there_on(tmp_path):
    """HDF5 would read zeros: rows before the cut are read, across it not."""
    data = numbers(6)
    parts = [(str(tmp_path / "a"), 4, 18), (str(tmp_path / "b"), 0, h5py.h5f.UNLIMITED)]
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file.create_dataset("x", data=data, external=parts)
    store = stores.open_store(tmp_path / "s.h5", "hdf5", 0, on_missing="error")
    np.testing.assert_array_equal(store.read("x", 0, 6), data)
    store.close()
    (tmp_path / "b").write_bytes((tmp_path / "b").read_bytes()[:-1])
    store = stores.open_store(tmp_path / "s.h5", "hdf5", 0, on_missing="error")
    np.testing.assert_array_equal(store.read("x", 0, 5), data[:5])
    with pytest.raises(MissingChunkError, match="what other files should hold"):
        store.read("x", 5, 6)
    store.close()
