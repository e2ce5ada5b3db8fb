"""How each array of a file is read: by the way that was asked for, and by the library where that way cannot."""

from __future__ import annotations

import numpy as np
import pytest
from files import numbers, write_hdf5, write_zarr

from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import FillingSource, LibrarySource, OpenFile, pick
from globidx.disk.stores import base as stores
from globidx.errors import MissingChunkError, ReadError

DATA = numbers(12)
SPANS = [(0, 2, 0), (5, 6, 2), (3, 5, 3)]


class Rows:
    """A source of DATA; ``error`` is what it raises instead."""

    how = "from memory"

    def __init__(self, error=None):
        self.error = error

    def read(self, start, stop, out):
        if self.error is not None:
            raise self.error
        out[...] = DATA[start:stop]
        return stop - start


class Spans(Rows):
    """One that takes many spans at once."""

    def pick(self, spans, out):
        for start, stop, target in spans:
            super().read(start, stop, out[target : target + stop - start])
        return -1


def picked(source):
    """(what it took, the rows) of SPANS."""
    out = np.zeros((5, 3), DATA.dtype)
    return pick(source, SPANS, out), out.tolist()


def test_spans_are_read_one_by_one_where_a_source_has_no_better_way():
    """The same rows either way; the bytes add up."""
    expected = DATA[[0, 1, 5, 3, 4]].tolist()
    assert picked(Rows()) == (5, expected)
    assert picked(Spans()) == (-1, expected)


@pytest.mark.parametrize("read", [lambda s: s.read(0, 5, np.zeros((5, 3), "u2")), picked])
@pytest.mark.parametrize("kind", [Rows, Spans])
def test_only_missing_chunks_are_left_to_the_library_to_fill_in(kind, read):
    """Damage stays an error: the library might read it as something."""
    read(FillingSource(kind(MissingChunkError("gone")), Rows()))
    for error in (ReadError("cut"), OSError("EIO"), ValueError("a bad checksum")):
        with pytest.raises(type(error), match=str(error)):
            read(FillingSource(kind(error), Rows()))


def test_a_library_that_gives_other_rows_than_were_asked_for_is_refused():
    """By the array, both shapes and the rows: numpy would broadcast one row over all."""

    class Short:
        def read(self, array, start, stop, *, axis, place, fill):
            return DATA[start : start + 1]

    with pytest.raises(ReadError, match=r"array 'x' gave \(1, 3\) for rows \[2, 4\), not \(2, 3\)"):
        LibrarySource(Short, "x").read(2, 4, np.zeros((2, 3), "u2"))


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
