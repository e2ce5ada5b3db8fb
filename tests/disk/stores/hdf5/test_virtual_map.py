"""A virtual dataset is what stands behind it, and where nothing does, an error."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from files import numbers, write_hdf5
from hypothesis import given
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.stores import base as stores
from globidx.disk.stores.hdf5 import virtual_map
from globidx.errors import MissingChunkError


def virtual(folder, source, *, shape=(6, 3), rows=slice(0, 6)):
    """Eight rows: six of another file's, of which ``source`` is written or nothing, and two of this one's."""
    with h5py.File(folder / "other.h5", "w") as other:
        if source is not None:
            other.create_dataset("y", shape, "u2", chunks=(2, 3))[: len(source)] = source
    layout = h5py.VirtualLayout((8, 3), "u2")
    layout[rows] = h5py.VirtualSource("other.h5", "y", (6, 3))[: rows.stop - rows.start]
    layout[6:] = h5py.VirtualSource(".", "z", (2, 3))
    with h5py.File(folder / "s.h5", "w") as file:
        file["z"] = numbers(2, start=100)
        file.create_virtual_dataset("x", layout, fillvalue=9)
    return folder / "s.h5"


@pytest.mark.parametrize("lost", ["nothing", "dataset", "rows", "chunk", "mapping"])
def test_a_virtual_dataset_invents_nothing(tmp_path, lost):
    """Rows that no dataset stands behind are missing, the others are read; only who asks for it gets fill values."""
    data = numbers(6)
    path = {
        "nothing": lambda: virtual(tmp_path, data),
        "dataset": lambda: virtual(tmp_path, None),
        "rows": lambda: virtual(tmp_path, data[:5], shape=(5, 3)),
        "chunk": lambda: virtual(tmp_path, data[:4]),
        "mapping": lambda: virtual(tmp_path, data, rows=slice(1, 6)),
    }[lost]()
    store = stores.open_store(path, "hdf5", 0, on_missing="error")
    np.testing.assert_array_equal(store.read("x", 6, 8), numbers(2, start=100))
    if lost == "nothing":
        np.testing.assert_array_equal(store.read("x", 0, 6), data)
    else:
        with pytest.raises(
            MissingChunkError, match="what other files should hold of dataset /x was never written"
        ):
            store.read("x", 0, 7)
    assert stores.audit(path, "hdf5", "x").absent == (lost != "nothing")
    store.close()
    filling = stores.open_store(path, "hdf5", 0, on_missing="fill")
    assert filling.read("x", 0, 8).shape == (8, 3)
    filling.close()


def test_mappings_that_overlap_hide_no_gap(tmp_path):
    """Two mappings of row 0 are not one of row 0 and one of row 1."""
    layout = h5py.VirtualLayout((2, 8), "u2")
    for name in "st":
        write_hdf5(tmp_path / f"{name}.h5", numbers(1, (8,)), key="d")
        layout[:1] = h5py.VirtualSource(f"{name}.h5", "d", (1, 8))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path / "a.h5", key="x"))
    assert dataset[0].tolist() == numbers(1, (8,))[0].tolist()
    for ids in ([1], [0, 1]):
        with pytest.raises(MissingChunkError):
            dataset.__getitems__(ids)


@given(st.lists(st.tuples(*[st.tuples(st.integers(0, 6), st.integers(0, 6))] * 2), max_size=8))
def test_covered_counts_each_point_once(spans):
    """As painting the boxes does, empty ones and such as touch or hold others included."""
    boxes = np.array([list(zip(*box, strict=True)) for box in spans], np.int64).reshape(-1, 2, 2)
    plane = np.zeros((6, 6), bool)
    for low, high in boxes.tolist():
        plane[tuple(map(slice, low, high))] = True
    assert virtual_map.count_covered(boxes) == plane.sum()
