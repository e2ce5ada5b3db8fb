"""The parts of a sample: what cannot be one is refused by its field."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from globidx import FileCacheDataset, GlobalIndexManager


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.zeros(2, "g"), r"'x' has dtype float128, which torch does not have"),
        (np.zeros(2, "V3"), r"'x' has dtype opaque\[3\], which means nothing outside its file"),
        (np.zeros(2, [("a", "i4"), ("b", [("c", "V2")])]), r"'x/b/c' has dtype opaque\[2\]"),
    ],
    ids=["longdouble", "opaque", "member"],
)
def test_what_no_sample_can_have_is_refused_by_field(tmp_path, stored, message):
    """The error names the array or member and says what to do; others of the file are read."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = stored, np.arange(2)
    manager = GlobalIndexManager(tmp_path / "a.h5", key=["x", "y"])
    with pytest.raises(ValueError, match=message + ".*fields=.*decode="):
        FileCacheDataset(manager)
    assert FileCacheDataset(manager, fields="y")[1] == 1


def test_references_are_refused_by_field(tmp_path):
    """They lead to other places of their file."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (2,), h5py.ref_dtype)[:] = [file.ref] * 2
    with pytest.raises(ValueError, match="'x' has dtype reference, which means nothing outside"):
        FileCacheDataset(GlobalIndexManager(tmp_path / "a.h5"))


def test_references_of_a_group_are_refused_by_field(tmp_path):
    """What the arrays of whole groups hold is known when they are read; other fields are given."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["all/0/x"] = 1.0
        file.create_dataset("all/0/r", (2,), h5py.ref_dtype)[:] = [file.ref] * 2
    manager = GlobalIndexManager(tmp_path, key="all/*", sequences="match", window="all")
    with pytest.raises(TypeError, match=r"'r' has dtype reference, .*fields=.*decode=") as error:
        FileCacheDataset(manager)[0]
    assert error.value.__notes__ == ["of sample id 0"]
    assert FileCacheDataset(manager, fields="x")[0] == 1
