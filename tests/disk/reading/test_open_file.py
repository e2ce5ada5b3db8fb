"""How each array of a file is read: by the way that was asked for, and by the library where that way cannot."""

from __future__ import annotations

import numpy as np
import pytest
from files import numbers, write_hdf5, write_zarr

from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores

DATA = numbers(12)


@pytest.mark.parametrize(
    ("write", "options", "backend", "how"),
    [
        (write_zarr, {}, "auto", "read without zarr"),
        (write_zarr, {}, "library", "read by its library (as asked)"),
        (write_hdf5, {}, "auto", "contiguous, read without HDF5"),
        (
            write_hdf5,
            {"chunk": 4, "compression": "lzf"},
            "auto",
            "read by its library (filter lzf)",
        ),
        (write_hdf5, {}, "library", "read by its library (as asked)"),
    ],
)
@pytest.mark.parametrize("on_missing", ["error", "fill"])
def test_the_way_is_the_one_that_was_asked_for(tmp_path, write, options, backend, how, on_missing):
    """And says of itself which it is; every way gives the same rows."""
    path = write(tmp_path / "a", DATA, key="x", **options)
    entry = stores.scan(path, Layout(("x",)), 0)
    opened = OpenFile(path, entry, on_missing=on_missing, backend=backend, forked=False)
    source = opened.source(0)
    assert source.how.startswith(how)
    assert source is opened.source(0)
    out = np.zeros((7, 3), DATA.dtype)
    source.read(2, 9, out)
    np.testing.assert_array_equal(out, DATA[2:9])
    opened.close()
