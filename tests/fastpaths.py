"""Arrays as any writer may store them, and a check that every way of reading gives them, for tests of fast paths."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.sources import LibrarySource
from globidx.disk.stores import base as stores

DTYPES = "? i1 u1 <i2 >i2 <u2 >u4 <i8 >i8 <f2 >f4 <f4 <f8 >f8 <c8 >c16".split()
shapes = st.lists(st.integers(1, 7), min_size=1, max_size=3)


@st.composite
def arrays(draw):
    """(data, chunk shape, axis of the items): data that are nowhere the fill value, which is zero."""
    shape = draw(shapes)
    chunks = [draw(st.integers(1, size + 1)) for size in shape]
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    seed = draw(st.integers(0, 2**32))
    raw = np.random.default_rng(seed).integers(1, 100, shape)
    data = np.ones(shape, bool) if dtype.kind == "b" else raw.astype(dtype)
    if dtype.kind == "c":
        data = data + 1j * dtype.type(1).astype(dtype)
    return data.astype(dtype), chunks, draw(st.integers(0, len(shape) - 1))


class Folder:
    """A folder for one example."""

    def __enter__(self):
        self.path = Path(tempfile.mkdtemp())
        return self.path

    def __exit__(self, *_):
        shutil.rmtree(self.path)


def check(path, data, axis, *, fast=True, on_missing="error"):
    """The file, read in every backend, is ``data``; and the fast path took it, or not, as expected."""
    entry = stores.scan(str(path), Layout(), axis)
    rows = np.moveaxis(data, axis, 0)
    for backend in ("auto", "library"):
        opened = OpenFile(str(path), entry, on_missing=on_missing, backend=backend, forked=False)
        source = opened.source(0)
        if backend == "auto":
            assert isinstance(source, LibrarySource) != fast, source.how
        for start in range(len(rows)):
            for stop in range(start + 1, len(rows) + 1):
                out = np.empty((stop - start, *rows.shape[1:]), rows.dtype.newbyteorder("="))
                assert source.read(start, stop, out) > 0
                np.testing.assert_array_equal(
                    out, rows[start:stop], err_msg=f"{backend} [{start}, {stop})"
                )
        opened.close()
