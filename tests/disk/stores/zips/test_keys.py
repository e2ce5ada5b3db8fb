"""What the directory of a zip file tells of a store is what a listing of its folder tells."""

from __future__ import annotations

import pytest
import zarr
from zipping import packed

from globidx.disk.stores.zarr.containers import Folder
from globidx.disk.stores.zips.local import Zip


@pytest.mark.parametrize("below", ["", "a.zarr", "de/ep/a.zarr"])
def test_keys_and_groups_are_those_of_the_folder(tmp_path, below):
    """At the root, in a folder, or in a named one that lies deeper."""
    group = zarr.create_group(tmp_path / "a")
    for name in ("x", "deep/y", "deep/er/z"):
        group.create_array(name, shape=(4,), chunks=(2,), dtype="u1", fill_value=0)[:2] = 1
    (tmp_path / "a/empty").touch()
    path = packed(tmp_path / "a", tmp_path / "a.zip", below=below)
    named = below if below.count("/") > 1 else None
    keys, folder = Zip(str(path), root=named), Folder(str(tmp_path / "a"))
    assert keys.root == below
    for key in ("zarr.json", "x/zarr.json", "x/c/0", "x/c/1", "deep", "empty", "none"):
        assert keys.has(key) == folder.has(key)
    for node in ("", "deep", "deep/er", "none"):
        assert sorted(keys.groups(node)) == sorted(folder.groups(node))
    keys.prime(["zarr.json"])
    assert keys.load("zarr.json") == folder.load("zarr.json")
