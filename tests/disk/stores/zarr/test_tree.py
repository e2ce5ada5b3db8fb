"""The tree of a zarr store against zarr's own objects, by path and by URL."""

import os
import shutil
import warnings

import numpy as np
import pytest
import zarr

from globidx.disk.stores.zarr.library import ZarrStore
from globidx.disk.stores.zarr.tree import ZarrTree

ARRAYS = ("g/h/plain", "g/sharded", "g/packed", "flags", "scalar", "texts")


@pytest.fixture(params=[2, 3])
def path(request, tmp_path):
    """Groups and arrays, one of a data type that only zarr itself understands."""
    root = zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=request.param)
    root.create_array("g/h/plain", data=np.arange(1, 7).reshape(3, 2), chunks=(2, 2))
    shards = {"shards": (4, 2)} if request.param == 3 else {}
    root.create_array("g/sharded", data=np.ones((6, 2)), chunks=(2, 2), **shards)
    packed = root.create_array("g/packed", data=np.arange(1, 4, dtype="i2"))
    packed.attrs["scale_factor"] = 0.5
    root.create_array("flags", data=np.zeros(5, bool))
    root.create_array("scalar", data=np.array(2.5))
    with warnings.catch_warnings():
        # such text has no specification in zarr 3
        warnings.simplefilter("ignore")
        root.create_array("texts", data=np.array(["a", "bc"], dtype="U2"))
    return str(tmp_path / "a.zarr")


def tree_of(path):
    root = zarr.open_group(path, mode="r", use_consolidated=False)
    return root, ZarrTree(root, ZarrStore(path, 0, fill=False))


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
@pytest.mark.parametrize("by_url", [False, True])
def test_it_says_what_zarr_says(path, by_url):
    """Of every node, whether its JSON is plain or zarr itself must look."""
    if by_url:
        pytest.importorskip("fsspec")
    root, tree = tree_of(f"file://{path}" if by_url else path)
    for name in ARRAYS:
        node, found = root[name], tree.describe(name)
        assert (found.shape, found.chunks) == (node.shape, node.chunks)
        assert np.dtype(found.dtype) == node.dtype
        assert list(tree.groups(name)) == [] or not by_url
        assert np.array_equal(tree.read(name), node[...])
    own = ", fill_value int16 0" if root.metadata.zarr_format == 2 else ""
    assert tree.describe("g/packed").packing == f"scale_factor float 0.5{own}"
    for group in ("", "g", "g/h"):
        listed = root[group] if group else root
        assert set(tree.groups(group)) >= {name for name, _ in listed.members()}
        assert group == "" or tree.describe(group) is None


def test_what_is_not_there_is_nothing(path):
    """No array and no groups; to read it is an error with its name."""
    _, tree = tree_of(path)
    for name in ("nothing", "g/nothing", "nothing/x"):
        assert tree.describe(name) is None and list(tree.groups(name)) == []
        with pytest.raises(ValueError, match=f"no array '{name}'"):
            tree.read(name)
    with pytest.raises(ValueError, match="no array 'g'"):
        tree.read("g")


def test_numbers_that_were_never_written_are_not_invented(path):
    """An absent chunk of numbers is an error; one of flags holds no flag, as writers leave it out."""
    _, tree = tree_of(path)
    assert not tree.read("flags").any()
    folder = os.path.join(path, "g/h/plain")
    gone = [os.path.join(folder, name) for name in ("0.0", "c/0/0")]
    for name in filter(os.path.exists, gone):
        os.remove(name)
    with pytest.raises(ValueError, match="array 'g/h/plain' is not in the store"):
        tree.read("g/h/plain")


def test_metadata_that_can_be_waited_for_is_refused(path):
    """A FIFO in place of an array's metadata would be read for ever."""
    folder = os.path.join(path, "g/h/plain")
    marker = "zarr.json" if os.path.exists(f"{folder}/zarr.json") else ".zarray"
    shutil.rmtree(folder)
    os.mkdir(folder)
    os.mkfifo(f"{folder}/{marker}")
    _, tree = tree_of(path)
    with pytest.raises(ValueError, match="is no regular file; it is not opened"):
        tree.describe("g/h/plain")
