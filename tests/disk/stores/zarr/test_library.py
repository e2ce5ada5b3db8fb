"""zarr stores as zarr-python opens them."""

from __future__ import annotations

import shutil

import pytest
from files import numbers, write_zarr

from globidx.core.index.layout import Layout, parse
from globidx.disk.stores import base as stores


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
