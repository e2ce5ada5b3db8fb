"""Constants as samples get them: read once, shared, and refused by name."""

import h5py
import numpy as np
import pytest
import torch
import zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.reading.constants import ConstantReader
from globidx.errors import ReadError

TEXTS = ["pick", "place"]


@pytest.fixture(params=["hdf5", "zarr"])
def store(request, tmp_path):
    """A file of two groups with attributes, scalars, arrays and text of all kinds."""
    path = tmp_path / f"a.{request.param}"
    root = h5py.File(path, "w") if request.param == "hdf5" else zarr.open_group(str(path), mode="w")
    for number in range(2):
        group = root.create_group(f"data/demo_{number}")
        for name, value in (("x", np.arange(3 + number)), ("mass", np.array(number + 0.5))):
            group.create_dataset(name, data=value) if request.param == "hdf5" else (
                group.create_array(name, data=value)
            )
        group.attrs["text"] = TEXTS[number]
        group.attrs["count"] = number
    grid = np.arange(6.0).reshape(2, 3)
    root.create_dataset("grid", data=grid) if request.param == "hdf5" else (
        root.create_array("grid", data=grid)
    )
    root.attrs["names"] = ["a", "b"]
    if request.param == "hdf5":
        root.close()
    return path


def opened(path, **spelled):
    index = GlobalIndexManager(path, key="data/*/x", sequences="match", constants=spelled)
    return FileCacheDataset(index)


def test_each_sample_has_those_of_its_sequence_and_file(store):
    """Numbers as tensors, text as str, lists of text as lists; nested where the name says so."""
    dataset = opened(
        store,
        text="data/*@text",
        **{"meta/count": "data/*@count", "meta/mass": "data/*/mass"},
        grid="grid",
        row="grid[*]",
        names="@names",
    )
    for id in range(len(dataset)):
        number = dataset.index_manager.where(id).sequence
        sample = dataset[id]
        assert sample["text"] == TEXTS[number]
        assert sample["meta"]["count"].item() == number
        assert sample["meta"]["mass"].item() == number + 0.5
        assert torch.equal(sample["grid"], torch.arange(6.0).double().reshape(2, 3))
        assert sample["row"].tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]][number]
        assert list(sample["names"]) == ["a", "b"]


def test_a_constant_is_read_once_and_shared(store):
    """All samples that have it look at one memory, also of later batches; close() reads anew."""
    dataset = opened(store, grid="grid", mass="data/*/mass")
    first, second = dataset.__getitems__([0, 1]), dataset.__getitems__([2, 3])
    grids = {sample["grid"].data_ptr() for sample in [*first, *second]}
    assert len(grids) == 1
    # ids 0 to 2 are of one group, 3 of the other
    masses = [sample["mass"].data_ptr() for sample in [*first, *second]]
    assert masses[0] == masses[1] == masses[2] != masses[3]
    kept = first[0]["grid"]
    dataset.close()
    assert dataset[0]["grid"].data_ptr() != kept.data_ptr()


def test_memory_is_bounded(store):
    """What exceeds the bound is dropped, and read again when it is asked for; values stay right."""
    manager = opened(store, grid="grid", mass="data/*/mass").index_manager
    for capacity, is_kept in ((40, False), (10**6, True)):
        dataset = FileCacheDataset(manager)
        reader = ConstantReader(manager.constants, dataset._reader.handles, capacity)
        first = reader.read(manager.now, [0])[0][0]
        masses = [float(mass) for _, mass in reader.read(manager.now, range(len(manager)))]
        assert masses == [0.5] * 3 + [1.5] * 4
        assert (reader.read(manager.now, [0])[0][0] is first) == is_kept
        dataset.close()


@pytest.mark.parametrize(
    ("spelled", "message"),
    [
        ("data/*@gone", r"constant 'c': .* has no 'data/demo_0@gone'"),
        ("data/*/gone", r"constant 'c': .* has no 'data/demo_0/gone'"),
        ("data", "constant 'c': .* has no 'data'"),
        ("data/demo_0/mass[*]", "an entry for each sequence, but 'data/demo_0/mass' of .* has 0"),
    ],
)
def test_what_is_not_there_is_told_with_file_and_name(store, spelled, message):
    """At the first read that needs it."""
    with pytest.raises(ReadError, match=message):
        opened(store, c=spelled)[0]
