"""What nobody wrote into an HDF5 dataset is an error, unless it is to be filled in."""

from __future__ import annotations

import os

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


ALLOCATIONS = {
    "early": h5py.h5d.ALLOC_TIME_EARLY,
    "late": h5py.h5d.ALLOC_TIME_LATE,
    "incremental": h5py.h5d.ALLOC_TIME_INCR,
}


@pytest.mark.parametrize("chunks", [(4, 3), None], ids=["chunked", "contiguous"])
@pytest.mark.parametrize("time", ALLOCATIONS)
@pytest.mark.parametrize("written", [[], [0], [9], range(10)], ids=str)
def test_an_audit_counts_what_reading_refuses(tmp_path, chunks, time, written):
    """Chunks and rows, however HDF5 allocates: a row is absent if its read is an error."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_alloc_time(ALLOCATIONS[time])
    if chunks:
        plist.set_chunk(chunks)
    space = h5py.h5s.create_simple((10, 6))
    with h5py.File(tmp_path / "s.h5", "w") as file:
        made = h5py.h5d.create(file.id, b"x", h5py.h5t.STD_U16LE, space, plist)
        for row in written:
            h5py.Dataset(made)[row] = 5
    for axis in (0, 1):
        store = stores.open_store(tmp_path / "s.h5", "hdf5", axis, on_missing="error")
        refused = 0
        for row in range((10, 6)[axis]):
            try:
                store.read("x", row, row + 1)
            except MissingChunkError:
                refused += 1
        store.close()
        audit = stores.audit(tmp_path / "s.h5", "hdf5", "x", axis)
        assert (audit.rows, audit.fill) == (refused, "0")
        assert (audit.absent > 0) == (refused > 0)
    assert audit.chunks == (6 if chunks else 1)
    if chunks and time != "early":
        # late: all at the first write; incremental: each when it is written
        every = time == "late" and len(written)
        rows = {row // 4 for row in written}
        with h5py.File(tmp_path / "s.h5") as file:
            assert audit.absent == 6 - file["x"].id.get_num_chunks()
        assert audit.absent == (0 if every and audit.absent == 0 else 6 - 2 * len(rows))


def test_a_file_that_is_none_is_not_waited_for(tmp_path):
    """A FIFO in its place is an error."""
    os.mkfifo(tmp_path / "s.h5")
    with pytest.raises(ValueError, match="no regular file"):
        stores.audit(tmp_path / "s.h5", "hdf5", "x")


class OverError(Exception):
    """The steps are over."""


def test_what_a_step_raises_ends_the_look_at_sources(tmp_path):
    """A virtual dataset may have very many, and each is opened."""
    layout = h5py.VirtualLayout((40,), "u2")
    for number in range(4):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["x"] = np.ones(10, "u2")
        layout[10 * number : 10 * number + 10] = h5py.VirtualSource(f"{number}.h5", "x", (10,))
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file.create_virtual_dataset("x", layout)

    def looked(limit):
        """The audit, with so many steps."""
        left = iter(range(limit))

        def step():
            if next(left, None) is None:
                raise OverError

        with stores.auditor(tmp_path / "all.h5", "hdf5", looking=stores.Looking(step=step)) as look:
            return look("x", 0)

    for limit in range(5):
        with pytest.raises(OverError):
            looked(limit)
    assert looked(5).absent == 0
