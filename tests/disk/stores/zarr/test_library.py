"""zarr stores as zarr-python opens them."""

from __future__ import annotations

import json
import shutil
import warnings

import numpy as np
import pytest
import zarr
from files import numbers, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index.layout import Layout, parse
from globidx.disk.stores import base as stores
from globidx.disk.stores.zarr import library


def test_a_bare_array_has_no_keys(tmp_path):
    """Asking a bare array for a name says to leave the key out."""
    with pytest.raises(ValueError, match="leave key and layout out"):
        stores.scan(write_zarr(tmp_path / "s.zarr", numbers(3)), parse(None, ["x"]), 0)


def test_a_zarr_store_moves_as_a_whole(tmp_path):
    """Nothing in a store depends on where it lies."""
    write_zarr(tmp_path / "a.zarr", numbers(5), key="x")
    before = stores.scan(str(tmp_path / "a.zarr"), Layout(), 0)
    shutil.move(tmp_path / "a.zarr", tmp_path / "b.zarr")
    assert stores.scan(str(tmp_path / "b.zarr"), Layout(), 0) == before


# -- arrays that zarr cannot open

#: Metadata of arrays that zarr-python opens none of: Python objects, and a data type of nobody's.
PICKLED = {
    "zarr_format": 2,
    "shape": [3],
    "chunks": [3],
    "dtype": "|O",
    "compressor": None,
    "fill_value": 0,
    "order": "C",
    "filters": [{"id": "pickle", "protocol": 5}],
}


def with_unreadable(folder, zarr_format):
    """A group with an array and a group that zarr opens, and one array that it does not."""
    group = zarr.create_group(folder, zarr_format=zarr_format)
    group.create_array("x", data=numbers(3))
    group.create_array("deep/y", data=numbers(3))
    (folder / "odd").mkdir()
    if zarr_format == 2:
        (folder / "odd" / ".zarray").write_text(json.dumps(PICKLED))
        # were it read, it would end this process
        (folder / "odd" / "0").write_bytes(b"cos\n_exit\n(I3\ntR.")
    else:
        document = json.loads((folder / "x" / "zarr.json").read_text())
        changed = document | {"data_type": "quaternion"}
        (folder / "odd" / "zarr.json").write_text(json.dumps(changed))
    return folder


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("keys", [("x",), ("deep/y", "x")])
def test_an_array_that_zarr_cannot_open_hides_no_other(tmp_path, zarr_format, keys):
    """Those that are named are indexed."""
    path = with_unreadable(tmp_path / "a.zarr", zarr_format)
    entry = library.scan(str(path), Layout(keys), 0)
    assert entry.length == 3 and tuple(info.path for info in entry.arrays) == keys


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("odd",), r"its array 'odd' cannot be opened: .*(pickle|quaternion)"),
        (("x", "odd"), r"its array 'odd' cannot be opened: .*(pickle|quaternion)"),
        (("z",), r"no array 'z'; there is 'deep/y' of \(3, 3\), 'odd' that cannot be opened \("),
        (None, r"it holds 3 arrays \('deep/y' of \(3, 3\), 'odd' that cannot be opened \("),
    ],
)
def test_an_array_that_zarr_cannot_open_is_named_with_the_reason(
    tmp_path, zarr_format, keys, message
):
    """Where a key asks for it, and where arrays are listed; nothing is unpickled."""
    path = with_unreadable(tmp_path / "a.zarr", zarr_format)
    with pytest.raises(ValueError, match=message):
        library.scan(str(path), Layout(keys), 0)


def test_floats_that_zarr_has_not_lie_beside_what_it_alone_reads(tmp_path):
    """bfloat16 and text in one group, with keys and without; of a path out of the store, nothing is read."""
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("e", data=np.array([0x3F80, 0x4000, 0x4040], "u2"))
    document = json.loads((tmp_path / "a.zarr" / "e" / "zarr.json").read_text())
    changed = json.dumps(document | {"data_type": "bfloat16"})
    (tmp_path / "a.zarr" / "e" / "zarr.json").write_text(changed)
    (info,) = library.scan(str(tmp_path / "a.zarr"), Layout(), 0).arrays
    assert (info.path, info.dtype) == ("e", "bfloat16")
    # fixed bytes have no specification in zarr 3 yet
    with warnings.catch_warnings(action="ignore"):
        group.create_array("t", data=np.array([b"a", b"bb", b"c"]))
    manager = GlobalIndexManager(tmp_path / "a.zarr", key=["e", "t"])
    sample = FileCacheDataset(manager)[2]
    assert sample["e"].item() == 3 and sample["t"] == b"c"
    zarr.create_group(tmp_path / "b.zarr").create_array("t", data=numbers(3))
    with pytest.raises(ValueError, match="no array"):
        library.scan(str(tmp_path / "b.zarr"), Layout(("../a.zarr/e", "t")), 0)


def test_rows_without_elements_of_floats_that_zarr_has_not_are_given(tmp_path):
    """There is nothing to read, which needs no library."""
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("e", shape=(3, 0), chunks=(1, 1), dtype="u2")
    document = json.loads((tmp_path / "a.zarr" / "e" / "zarr.json").read_text())
    changed = json.dumps(document | {"data_type": "bfloat16"})
    (tmp_path / "a.zarr" / "e" / "zarr.json").write_text(changed)
    sample = FileCacheDataset(GlobalIndexManager(tmp_path / "a.zarr", key="e"))[1]
    assert sample.shape == (0,) and str(sample.dtype) == "torch.bfloat16"
