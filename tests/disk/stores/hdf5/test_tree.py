"""The tree of an HDF5 file against h5py's own objects, and what it does not open."""

import os

import h5py
import numpy as np
import pytest

from globidx.disk.stores.hdf5.tree import Hdf5Tree


@pytest.fixture
def path(tmp_path):
    """Groups, datasets of several layouts, links inside and outside the file, and a named type."""
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["y"] = np.arange(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["g/h/plain"] = np.arange(6).reshape(3, 2)
        file.create_dataset("g/chunked", data=np.ones((5, 2)), chunks=(2, 2), compression="gzip")
        file["g/packed"] = np.arange(3, dtype="i2")
        file["g/packed"].attrs["scale_factor"] = 0.5
        file["scalar"] = 3.5
        file["type"] = np.dtype("i4")
        file["soft"] = h5py.SoftLink("/g/h")
        file["dangling"] = h5py.SoftLink("/nowhere")
        file["out"] = h5py.ExternalLink("other.h5", "y")
        file["gone"] = h5py.ExternalLink("missing.h5", "y")
        os.mkfifo(tmp_path / "fifo.h5")
        file["fifo"] = h5py.ExternalLink("fifo.h5", "y")
    return tmp_path / "a.h5"


def test_it_says_what_h5py_says(path):
    """Of every node that visititems meets, and of links to them."""
    with h5py.File(path) as file:
        tree = Hdf5Tree(file, allow=False)
        nodes = {"": file["/"], "soft": file["soft"], "soft/plain": file["soft/plain"]}
        file.visititems(nodes.__setitem__)
        for name, node in nodes.items():
            found = tree.describe(name) if name else None
            if isinstance(node, h5py.Dataset):
                assert found is not None
                assert (found.shape, found.dtype, found.chunks) == (
                    node.shape,
                    node.dtype,
                    node.chunks,
                )
                assert list(tree.groups(name)) == []
                assert np.array_equal(tree.read(name), node[()])
            else:
                assert found is None
                is_group = isinstance(node, h5py.Group)
                assert sorted(tree.groups(name)) == (sorted(node) if is_group else [])
        assert not tree.targets


def test_packing_is_told(path):
    """By the attributes of netCDF."""
    with h5py.File(path) as file:
        tree = Hdf5Tree(file, allow=False)
        assert tree.describe("g/packed").packing == "scale_factor float64 0.5"
        assert tree.describe("g/chunked").packing == ""


@pytest.mark.parametrize("name", ["nothing", "g/nothing", "scalar/below", "dangling", "dangling/x"])
def test_what_is_not_there_is_nothing(path, name):
    """No array and no groups; to read it is an error with its name."""
    with h5py.File(path) as file:
        tree = Hdf5Tree(file, allow=False)
        assert tree.describe(name) is None and list(tree.groups(name)) == []
        with pytest.raises(ValueError, match=f"no array '{name}'"):
            tree.read(name)


def test_other_files_are_told_of_and_looked_at_before_they_are_opened(path):
    """A link out is a target; one to nothing, or to what is no file, is refused and never waited for."""
    with h5py.File(path) as file:
        tree = Hdf5Tree(file, allow=False)
        assert tree.describe("out").shape == (4,)
        assert {(os.path.basename(target.file), target.path) for target in tree.targets} == {
            ("other.h5", "y")
        }
        for name, message in (("gone", "is not there"), ("fifo", "is no regular file")):
            with pytest.raises(ValueError, match=message):
                tree.describe(name)
