"""zarr by tensorstore, for who asks for it."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import numpy as np
import pytest
import zarr
from files import numbers, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores
from globidx.errors import ReadError


@pytest.mark.skipif(find_spec("tensorstore") is None, reason="tensorstore is not installed")
@pytest.mark.parametrize(
    "options", [{"zarr_format": 2}, {}, {"shards": (4, 3)}], ids=["zarr2", "zarr3", "shards"]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_tensorstore_reads_the_same(tmp_path, options, axis):
    """The optional backend, over every slice."""
    data = np.arange(1, 31, dtype="f4").reshape(10, 3)
    zarr.create_array(tmp_path / "a", data=data, chunks=(2, 3), **options)
    entry = stores.scan(str(tmp_path / "a"), Layout(), axis)
    opened = OpenFile(
        str(tmp_path / "a"), entry, on_missing="error", backend="tensorstore", forked=False
    )
    rows = np.moveaxis(data, axis, 0)
    for start in range(len(rows)):
        out = np.empty_like(rows[start:], order="C")
        opened.source(0).read(start, len(rows), out)
        np.testing.assert_array_equal(out, rows[start:])
    opened.close()


def test_tensorstore_that_is_not_there_is_named(tmp_path, monkeypatch):
    """The error says what to install."""
    write_zarr(tmp_path / "a.zarr", numbers(4))
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path), backend="tensorstore")
    monkeypatch.setitem(sys.modules, "tensorstore", None)
    with pytest.raises(ReadError, match=r"pip install '\.\[tensorstore\]'"):
        dataset[0]
