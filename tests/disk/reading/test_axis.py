"""Axes counted from the end: the rows are those of the same axis counted from the front, for each array by itself."""

from __future__ import annotations

import numpy as np
import pytest
from files import numbers, settled_manager, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.errors import BadFilesError

SHAPES = {"flat": (6,), "table": (3, 6), "film": (2, 3, 6)}


@pytest.fixture(params=["hdf5", "hdf5-chunked", "zarr"])
def written(request, tmp_path):
    """One file of arrays of 1, 2 and 3 axes, the last of them the same in all."""
    data = {
        name: numbers(shape[0], shape[1:], start=100 * at)
        for at, (name, shape) in enumerate(SHAPES.items())
    }
    path = tmp_path / f"a.{request.param[:4]}"
    if request.param == "zarr":
        write_zarr(path, data, chunk=2)
    else:
        write_hdf5(path, data, chunk=2 if "chunked" in request.param else None)
    return path, data


def test_the_last_axis_is_each_arrays_own(written):
    """``axis=-1`` over arrays of 1, 2 and 3 axes: item i of each is its ``[..., i]``; twice, the second time from the cache."""
    path, data = written
    for _ in range(2):
        manager = settled_manager(path, key=list(data), axis=-1)
        assert len(manager) == 6
        for backend in ("auto", "library"):
            for item, sample in enumerate(FileCacheDataset(manager, backend=backend)):
                for name, stored in data.items():
                    np.testing.assert_array_equal(sample[name], stored[..., item])
    assert [array.axis for array in manager.arrays] == [0, 1, 2]


@pytest.mark.parametrize("axis", [-3, -2, -1])
def test_an_axis_by_field_counts_from_the_end_too(written, axis):
    """Beside a field whose axis is counted from the front."""
    path, data = written
    pair = {"film": data["film"], "other": data["film"]}
    manager = GlobalIndexManager(
        path, key=dict.fromkeys(pair, "film"), axis={"film": axis, "other": axis + 3}
    )
    assert len(manager) == data["film"].shape[axis]
    for item, sample in enumerate(FileCacheDataset(manager)):
        expected = np.take(data["film"], item, axis)
        np.testing.assert_array_equal(sample["film"], expected)
        np.testing.assert_array_equal(sample["other"], expected)


@pytest.mark.parametrize("write", [write_hdf5, write_zarr])
def test_matches_have_their_rows_along_the_last_axis(tmp_path, write):
    """Groups whose arrays end in time, each of its own length."""
    groups = {f"{name}/eeg": numbers(2, (length,)) for name, length in (("a", 3), ("b", 5))}
    path = write(tmp_path / "a", groups)
    manager = GlobalIndexManager(path, key="*/eeg", sequences="match", axis=-1)
    expected = np.concatenate([one.T for one in groups.values()])
    np.testing.assert_array_equal(np.stack(list(FileCacheDataset(manager))), expected)


@pytest.mark.parametrize("write", [write_hdf5, write_zarr])
def test_places_along_the_first_axis_have_rows_along_the_last(tmp_path, write):
    """(trajectory, x, time): sequences along axis 0, steps counted from the end."""
    data = numbers(2, (3, 5))
    path = write(tmp_path / "a", data, key="x")
    manager = GlobalIndexManager(path, key="x", sequences="axis", axis={"x": -1})
    expected = data.transpose(0, 2, 1).reshape(10, 3)
    np.testing.assert_array_equal(np.stack(list(FileCacheDataset(manager))), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"key": "table", "axis": -3},
            r"'table' has shape \(3, 6\), and no axis -3; axis must be in \[0, 2\), or in \[-2, 0\)",
        ),
        ({"key": "film", "axis": {"film": -4}}, r"'film' has shape \(2, 3, 6\), and no axis -4"),
        (
            {"key": "flat", "axis": {"flat": -1}, "sequences": "axis"},
            r"'flat' has shape \(6,\), and no axis -1 of rows beside axis 0, that of the sequences",
        ),
    ],
)
def test_an_axis_that_an_array_does_not_have(written, options, message):
    """The error names the array, its shape, and the axes that it has."""
    with pytest.raises(BadFilesError, match=message):
        GlobalIndexManager(written[0], **options)


def test_no_array_has_so_many_axes():
    """Refused before any file is looked for."""
    with pytest.raises(ValueError, match=r"axis must be in \[-64, 63\], got -65"):
        GlobalIndexManager("nowhere", axis=-65)
