"""Nodes of files, by what zarr and HDF5 have in common."""

import h5py
import numpy as np
import pytest
import zarr

from globidx.disk.stores import nodes


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_what_is_there_is_got_and_what_is_not_is_none(tmp_path, kind):
    """Arrays are told from groups, and a path through an array leads nowhere."""
    root = h5py.File(tmp_path / "a.h5", "w") if kind == "hdf5" else zarr.create_group({})
    group = root.create_group("group")
    create = group.create_dataset if kind == "hdf5" else group.create_array
    create("array", data=np.arange(3))
    assert nodes.is_array(nodes.get(root, "group/array"))
    assert not nodes.is_array(nodes.get(root, "group"))
    assert nodes.get(root, "group/none") is None and nodes.get(root, "none/array") is None
    assert not nodes.is_array(None)


@pytest.mark.parametrize(
    "value", ["a", b"a", np.array(["a"], object), np.array(b"a"), np.str_("a")]
)
def test_an_attribute_is_text_however_it_is_stored(value):
    """HDF5 writers differ in this."""
    assert nodes.text(value) == "a"


@pytest.mark.parametrize("value", [None, 1, "", np.array(["a", "b"]), np.array([1])])
def test_what_is_no_text_is_none(value):
    """Neither numbers, nor lists, nor what is empty."""
    assert nodes.text(value) is None
