"""Reading zarr's JSON directly gives what zarr gives, or nothing."""

import json
import warnings

import numpy as np
import pytest
import zarr
from files import write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.layout import Layout, parse
from globidx.disk.stores.base import UNREADABLE
from globidx.disk.stores.zarr import fast_scan
from globidx.disk.stores.zarr import library as api
from globidx.disk.stores.zarr.containers import Folder

DTYPES = [
    "bool",
    "i1",
    "<i2",
    ">i4",
    "<i8",
    "u1",
    ">u2",
    "<u4",
    "u8",
    "f2",
    ">f4",
    "<f8",
    "c8",
    "c16",
]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_plain_arrays_are_read_as_zarr_reads_them(tmp_path, zarr_format, dtype):
    """Every number type and byte order, bare and in nested groups, along any axis: one entry, the same digest."""
    data = np.ones((6, 4, 5), dtype)
    write_zarr(tmp_path / "bare.zarr", data, zarr_format=zarr_format)
    write_zarr(
        tmp_path / "group.zarr", {"x": data, "deep/er/y": data[:, :1]}, zarr_format=zarr_format
    )
    for axis in range(3):
        found = fast_scan.scan(Folder(str(tmp_path / "bare.zarr")), Layout(), axis)
        assert found == api.scan(str(tmp_path / "bare.zarr"), Layout(), axis) is not None
    for keys in (["x"], ["deep/er/y"], ["x", "deep/er/y"], ["/deep/er/y/"]):
        found = fast_scan.scan(Folder(str(tmp_path / "group.zarr")), parse(None, keys), 0)
        assert found == api.scan(str(tmp_path / "group.zarr"), parse(None, keys), 0) is not None


@pytest.mark.parametrize(
    "options",
    [
        {"shard": 8},
        {"shard": 4, "compressors": None},
        {"compressors": zarr.codecs.BloscCodec()},
        {"compressors": zarr.codecs.GzipCodec()},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 0))]},
        {"chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 2, "compressors": None},
        {"zarr_format": 2, "order": "F"},
        {"attributes": {"unit": "eV", "many": list(range(50))}},
        {"dimension_names": ["a", None]},
    ],
)
def test_layouts_are_read_as_zarr_reads_them(tmp_path, options):
    """Sharded, compressed, transposed, named, keyed in other ways: the chunk length is that of inner chunks."""
    write_zarr(tmp_path / "a.zarr", np.ones((16, 3), "u2"), **options)
    assert (
        fast_scan.scan(Folder(str(tmp_path / "a.zarr")), Layout(), 0)
        == api.scan(str(tmp_path / "a.zarr"), Layout(), 0)
        is not None
    )


def test_stale_consolidated_metadata_is_not_believed(tmp_path):
    """It says 4 items, the array has 6."""
    write_zarr(tmp_path / "a.zarr", np.ones((4, 3), "u2"), key="x")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr says that version 3 does not specify it
        zarr.consolidate_metadata(tmp_path / "a.zarr")
    zarr.open_array(tmp_path / "a.zarr" / "x", mode="r+").resize((6, 3))
    assert fast_scan.scan(Folder(str(tmp_path / "a.zarr")), Layout(("x",)), 0).length == 6


@pytest.mark.parametrize(
    "what",
    ["string", "structured", "filters", "missing key", "bare with key", "no key", "no store"],
)
def test_what_is_unusual_is_left_to_zarr(tmp_path, what):
    """None, so that zarr reads it or words what is wrong."""
    path, keys = tmp_path / "a.zarr", ["x"]
    if what == "string":
        zarr.create_group(path).create_array("x", shape=(3,), dtype=str)
    elif what == "structured":
        zarr.create_group(path, zarr_format=2).create_array(
            "x", shape=(3,), dtype=[("a", "i2"), ("b", "f4")]
        )
    elif what == "filters":
        import numcodecs

        group = zarr.create_group(path, zarr_format=2)
        group.create_array("x", shape=(3,), dtype="i4", filters=[numcodecs.Delta(dtype="i4")])
    elif what == "bare with key":
        write_zarr(path, np.ones((3, 2)))
    elif what in ("missing key", "no key"):
        write_zarr(path, np.ones((3, 2)), key="y" if what == "missing key" else "x")
        keys = ["x"] if what == "missing key" else None
    assert fast_scan.scan(Folder(str(path)), parse(None, keys), 0) is None


@pytest.mark.filterwarnings("ignore:Found an empty list of filters")
@settings(max_examples=300)
@given(data=st.data())
def test_damaged_metadata_is_never_read_otherwise_than_zarr_does(tmp_path_factory, data):
    """One field of real metadata replaced by anything: the same entry as zarr's, or none."""
    path = tmp_path_factory.mktemp("damaged") / "a.zarr"
    zarr_format = data.draw(st.sampled_from([2, 3]))
    write_zarr(
        path,
        np.ones((6, 4), "u2"),
        shard=data.draw(st.sampled_from([None, 8])) if zarr_format == 3 else None,
        zarr_format=zarr_format,
    )
    file = path / (".zarray" if zarr_format == 2 else "zarr.json")
    metadata = json.loads(file.read_text())
    field = data.draw(st.sampled_from(sorted(metadata)))
    junk = [
        None,
        0,
        -1,
        2,
        3,
        True,
        "",
        "x",
        [],
        [0],
        [1],
        [6],
        [6, 4],
        [0, 4],
        [6.0, 4],
        [2**70, 4],
        {},
        {"name": "regular"},
        "uint16",
        "float32",
        "<i4",
        [None],
    ]
    if data.draw(st.booleans()):
        metadata[field] = data.draw(st.sampled_from(junk))
    else:
        del metadata[field]
    file.write_text(json.dumps(metadata))
    try:
        direct = fast_scan.scan(Folder(str(path)), Layout(), 0)
    except ValueError as error:
        direct = str(error)
    if direct is None:
        return
    try:
        expected = api.scan(str(path), Layout(), 0)
    except UNREADABLE as error:
        expected = str(error)
    assert direct == expected
