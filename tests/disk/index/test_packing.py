"""Files whose stored numbers are not their values: never read as if one number meant one thing."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import zarr
from files import numbers, write_hdf5, write_zarr

from globidx import GlobalIndexManager
from globidx.disk.index import build
from globidx.errors import BadFilesError


def write_packed(path, kind, *, key="x", **attributes):
    """A file of three items with these attributes."""
    if kind == "hdf5":
        write_hdf5(path, numbers(3), key=key)
        with h5py.File(path, "a") as file:
            file[key].attrs.update(attributes)
    else:
        write_zarr(path, numbers(3), key=key, zarr_format=2 if kind == "zarr2" else 3)
        zarr.open_array(path, path=key, mode="r+").attrs.update(
            {name: float(np.ravel(value)[0]) for name, value in attributes.items()}
        )


KINDS = ["hdf5", "zarr2", "zarr3"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["x", None])
@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"scale_factor": 0.001}, {"scale_factor": 0.002}),
        (
            {"scale_factor": 0.5, "add_offset": 230.0},
            {"scale_factor": 0.5, "add_offset": np.float32(290)},
        ),
        ({"add_offset": np.array([5.0])}, {}),
    ],
)
def test_files_that_are_packed_differently_are_refused(tmp_path, kind, key, one, other):
    """By name, with both packings and what to do; plain metadata and libraries agree on it, and so does a cache."""
    write_packed(tmp_path / "a.nc.zarr" if kind != "hdf5" else tmp_path / "a.nc", kind, **one)
    write_packed(tmp_path / "b.nc.zarr" if kind != "hdf5" else tmp_path / "b.nc", kind, **other)
    for _ in range(2):
        with pytest.raises(BadFilesError, match=r"b\.nc.* packed by .*one packing") as raised:
            GlobalIndexManager(tmp_path, key=key, cache_dir=tmp_path / "cache")
        assert len(raised.value.failures) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_files_that_are_packed_alike_are_told_once(tmp_path, kind, caplog):
    """Also where they come out of a cache."""
    build._tell_packed.cache_clear()
    for name in "ab":
        path = tmp_path / (f"{name}.nc" if kind == "hdf5" else f"{name}.zarr")
        write_packed(path, kind, scale_factor=np.float64(0.25), add_offset=np.float64(10))
    manager = GlobalIndexManager(tmp_path, key="x", cache_dir=tmp_path / "cache")
    manager.refresh()
    assert (
        caplog.text.count("packed by scale_factor 0.25, add_offset 10.0") == 1 and len(manager) == 6
    )
    build._tell_packed.cache_clear()
    GlobalIndexManager(tmp_path, key="x", cache_dir=tmp_path / "cache")
    assert caplog.text.count("packed by scale_factor 0.25, add_offset 10.0") == 2


@pytest.mark.parametrize(
    "attributes", [{"scale_factor": 1.0, "add_offset": 0.0}, {"scale_factor": 1}, {}]
)
def test_what_changes_no_value_is_no_packing(tmp_path, attributes, caplog):
    """Some writers always write both attributes."""
    write_packed(tmp_path / "a.nc", "hdf5", **attributes)
    write_packed(tmp_path / "b.nc", "hdf5")
    assert len(GlobalIndexManager(tmp_path, key="x", cache_dir=tmp_path / "cache")) == 6
    assert "packed" not in caplog.text
