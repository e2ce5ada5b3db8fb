"""HDF5's own functions tell of a file what h5py tells, or nothing."""

from __future__ import annotations

import os

import h5py
import numpy as np
import pytest
from files import numbers, write_hdf5
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.layout import Layout, parse
from globidx.disk.stores.base import UNREADABLE
from globidx.disk.stores.hdf5 import library

PLAIN = {
    "contiguous": {},
    "chunked": {"chunk": 4},
    "gzip": {"chunk": 2, "compression": "gzip", "compression_opts": 3},
    "lzf, shuffled, summed": {
        "chunk": 3,
        "compression": "lzf",
        "shuffle": True,
        "fletcher32": True,
    },
}


def told(scan, *arguments):
    """What a scan says: its entry, or its error."""
    try:
        return scan(*arguments)
    except UNREADABLE as error:
        return type(error), str(error)


@pytest.mark.parametrize("options", PLAIN.values(), ids=PLAIN)
@pytest.mark.parametrize(
    "dtype", ["bool", "i1", "<i2", ">i4", "u8", "f2", ">f4", "<f8", "c8", "c16"]
)
def test_plain_datasets_are_told_as_h5py_tells_them(tmp_path, options, dtype):
    """Every number type and byte order, at the root and in groups, along any axis: one entry, the same digest."""
    data = np.ones((6, 4, 5), dtype)
    path = write_hdf5(tmp_path / "a.h5", {"x": data, "deep/er/y": data[:, :, :1]}, **options)
    for keys in (["x"], ["deep/er/y"], ["x", "deep/er/y"]):
        for axis in range(2):
            expected = library._scan(path, parse(None, keys), axis)
            assert library._scan_plain(path, parse(None, keys), axis) == expected
            assert [info.dtype for info in expected.arrays] == [
                np.dtype(dtype).newbyteorder("=").name
            ] * len(keys)


def test_digests_tell_filters_apart(tmp_path):
    """The digest of files that differ in nothing but how their chunks are stored."""
    path, digests, filters = (
        tmp_path / "a.h5",
        set(),
        [{"compression": "lzf"}, {"shuffle": True}, {"fletcher32": True}],
    )
    for options in (
        {},
        *filters,
        *({"compression": "gzip", "compression_opts": level} for level in (3, 4)),
    ):
        write_hdf5(path, numbers(6), chunk=2, **options)
        digests.add(library.scan(str(path), Layout(("x",)), 0).digest)
    assert len(digests) == 6


def other(path, folder, kind):
    """A file whose ``x`` is no dataset with numbers of its own in it."""
    with h5py.File(path, "w") as file:
        if kind == "external link":
            write_hdf5(folder / "target.h5", numbers(3))
            file["x"] = h5py.ExternalLink("target.h5", "x")
        elif kind == "group behind an external link":
            write_hdf5(folder / "target.h5", {"g/y": numbers(3)})
            file["x"] = h5py.ExternalLink("target.h5", "g")
        elif kind == "lost external link":
            file["x"] = h5py.ExternalLink("lost.h5", "x")
        elif kind == "virtual":
            write_hdf5(folder / "target.h5", numbers(3))
            layout = h5py.VirtualLayout((3, 3), "u2")
            layout[:] = h5py.VirtualSource(str(folder / "target.h5"), "x", (3, 3))
            file.create_virtual_dataset("x", layout)
        elif kind == "external storage":
            numbers(3).tofile(folder / "raw")
            file.create_dataset("x", (3, 3), "u2", external=[(str(folder / "raw"), 0, 18)])
        elif kind == "group":
            file.create_group("x")
        elif kind == "type":
            file["x"] = np.dtype("f4")
        elif kind == "string":
            file["x"] = ["a", "b"]
        elif kind == "structure":
            file["x"] = np.zeros(3, [("a", "i4")])
        elif kind == "scalar":
            file["x"] = 5
        elif kind == "null":
            file["x"] = h5py.Empty("f4")


KINDS = [
    "external link",
    "group behind an external link",
    "lost external link",
    "virtual",
    "external storage",
    "group",
]
KINDS += ["type", "string", "structure", "scalar", "null", "nothing"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_unusual_is_told_as_h5py_tells_it(tmp_path, kind):
    """Data in other files are seen, and what cannot be indexed is refused in the same words."""
    path = str(tmp_path / "a.h5")
    other(path, tmp_path, kind)
    for keys in (("x",), ("x/y",)):
        expected = told(library._scan, path, Layout(keys), 0)
        assert told(library.scan, path, Layout(keys), 0) == expected
    is_foreign = kind in ("external link", "virtual", "external storage")
    found = told(library.scan, path, Layout(("x",)), 0)
    is_indexed = kind in ("string", "structure")
    assert getattr(found, "is_foreign", None) == (is_foreign if is_foreign or is_indexed else None)


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_file_is_told_as_h5py_tells_it(tmp_path_factory, data):
    """Any bytes of a file overwritten, or its end cut off: the same entry, or the same error."""
    path = write_hdf5(
        tmp_path_factory.mktemp("damaged") / "a.h5", numbers(6), chunk=2, compression="gzip"
    )
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        if data.draw(st.booleans()):
            file.truncate(data.draw(st.integers(0, size - 1)))
        else:
            file.seek(data.draw(st.integers(0, min(size, 2048) - 1)))
            file.write(data.draw(st.binary(min_size=1, max_size=8)))
    assert told(library.scan, path, Layout(("x",)), 0) == told(
        library._scan, path, Layout(("x",)), 0
    )


def test_a_file_that_is_open_elsewhere_in_the_process_is_scanned_and_stays_open(tmp_path):
    """Whoever has it open goes on reading from it."""
    path = write_hdf5(tmp_path / "a.h5", numbers(6))
    with h5py.File(path, "r") as file:
        assert library._scan_plain(path, Layout(("x",)), 0).length == 6
        np.testing.assert_array_equal(file["x"][:], numbers(6))
