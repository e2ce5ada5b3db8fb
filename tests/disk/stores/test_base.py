"""One contract that every store keeps, whatever the format and layout."""

from __future__ import annotations

from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from files import numbers, write_hdf5, write_zarr
from zarr.codecs import BloscCodec, Crc32cCodec, GzipCodec

from globidx.core.index.layout import Layout, parse
from globidx.core.index.table import ArrayInfo
from globidx.disk.stores import base as stores
from globidx.errors import MissingChunkError

LENGTH, SHAPE = 10, (3, 2)

# name: (writer, options, dtype); every one holds ten items of (3, 2) in chunks of 4, or in one piece
LAYOUTS = {
    "zarr2-bare": (write_zarr, {"zarr_format": 2}, "u2"),
    "zarr2-group": (write_zarr, {"zarr_format": 2, "key": "a/b"}, "f4"),
    "zarr2-nested-keys": (
        write_zarr,
        {"zarr_format": 2, "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        "u2",
    ),
    "zarr2-big-endian": (write_zarr, {"zarr_format": 2}, ">i4"),
    "zarr2-fortran": (write_zarr, {"zarr_format": 2, "order": "F"}, "u2"),
    "zarr3-bare": (write_zarr, {}, "u2"),
    "zarr3-group": (write_zarr, {"key": "images"}, "f8"),
    "zarr3-uncompressed": (write_zarr, {"compressors": None}, "u1"),
    "zarr3-sharded": (write_zarr, {"chunk": 2, "shard": 4}, "u2"),
    "zarr3-sharded-group": (write_zarr, {"chunk": 2, "shard": 4, "key": "images"}, "u2"),
    "zarr3-axis": (write_zarr, {"axis": 1}, "u2"),
    "zarr3-sharded-axis": (write_zarr, {"axis": 2, "chunk": 2, "shard": 4}, "u2"),
    "hdf5-contiguous": (write_hdf5, {}, "u2"),
    "hdf5-chunked": (write_hdf5, {"chunk": 4, "key": "g/x"}, "f4"),
    "hdf5-gzip": (write_hdf5, {"chunk": 4, "compression": "gzip"}, "i8"),
    "hdf5-user-block": (write_hdf5, {"chunk": 4, "userblock": 1024}, "u2"),
    "hdf5-big-endian": (write_hdf5, {"chunk": 4}, ">f8"),
    "hdf5-axis": (write_hdf5, {"chunk": 4, "axis": 1}, "u2"),
    "hdf5-contiguous-axis": (write_hdf5, {"axis": 2}, "u2"),
}
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


class Written:
    """A store of one layout on disk, what it holds, and how the index sees it."""

    def __init__(self, folder, layout):
        write, options, dtype = LAYOUTS[layout]
        self.data = numbers(LENGTH, SHAPE, dtype)
        self.path = Path(
            write(folder / ("s.zarr" if write is write_zarr else "s.dat"), self.data, **options)
        )
        self.axis = options.get("axis", 0)
        self.entry = stores.scan(str(self.path), Layout(), self.axis)
        self.array = self.entry.arrays[0].name

    def open(self, on_missing="error"):
        return stores.open_store(self.path, self.entry.kind, self.axis, on_missing=on_missing)

    def chunk_files(self):
        """The chunk files of a zarr array, in the sequence of their items."""
        files = [
            f
            for f in self.path.rglob("*")
            if f.is_file() and not f.name.startswith(".") and f.suffix != ".json"
        ]
        return sorted(
            files,
            key=lambda f: (
                [
                    int(n)
                    for n in str(f).replace(".zarr", "").split("c/")[-1].split("/")[-3:]
                    if n.isdigit()
                ]
                or f.name
            ),
        )


@pytest.fixture
def written(tmp_path, layout):
    return Written(tmp_path, layout)


@every_layout
def test_every_slice_is_numpys(written):
    """Items [a, b) of a store are ``data[a:b]``, for every a and b."""
    store = written.open()
    for start in range(LENGTH + 1):
        for stop in range(start, LENGTH + 1):
            np.testing.assert_array_equal(
                store.read(written.array, start, stop), written.data[start:stop]
            )
    store.close()


@every_layout
def test_a_result_is_native_writable_contiguous_and_its_own(written):
    """What is read can be handed to torch and written to, and writing to it changes no later read."""
    store = written.open()
    block = store.read(written.array, 0, 3)
    assert block.dtype == written.data.dtype.newbyteorder("=") and block.dtype.isnative
    assert block.flags.writeable and block.flags.owndata and block.flags.c_contiguous
    block[...] = 0
    np.testing.assert_array_equal(store.read(written.array, 0, 3), written.data[:3])
    store.close()


@every_layout
def test_the_scan_tells_length_item_shape_dtype_and_chunk(written, layout):
    """The metadata says of a file what numpy says of the data that was written."""
    native = written.data.dtype.newbyteorder("=").name
    chunk = 0 if "contiguous" in layout else 2 if "sharded" in layout else 4
    assert written.entry.length == LENGTH
    # each array of zarr 2 has a fill value, which some take for a missing one
    zero = np.dtype(native).type(0)
    packing = f"fill_value {native} {zero}" if layout.startswith("zarr2") else ""
    (info,) = written.entry.arrays
    assert info == ArrayInfo(
        written.array,
        SHAPE,
        native,
        chunk,
        written.array,
        packing=packing,
        axis=written.axis,
    )
    assert written.entry.kind == ("hdf5" if layout.startswith("hdf5") else layout[:5])


@every_layout
def test_a_closed_store_can_be_closed_again(written):
    """Closing twice is harmless."""
    store = written.open()
    store.read(written.array, 0, 1)
    store.close()
    store.close()


def test_a_closed_hdf5_store_reads_no_more(tmp_path):
    """Reading a closed file is an error, never old data."""
    written = Written(tmp_path, "hdf5-chunked")
    store = written.open()
    store.read(written.array, 0, 1)
    store.close()
    with pytest.raises(stores.UNREADABLE):
        store.read(written.array, 0, 1)


def test_hdf5_is_told_by_its_signature_not_its_name(tmp_path):
    """A file called anything is HDF5 when its signature says so, also behind a user block; another file is not."""
    assert stores.format_of(Written(tmp_path, "hdf5-user-block").path) == "hdf5"
    (tmp_path / "text").write_text("not HDF5 " * 500)
    with pytest.raises(stores.UnknownKindError, match="nor an HDF5 file"):
        stores.format_of(tmp_path / "text")


# -- data that is not there

ZARR = [name for name in LAYOUTS if name.startswith("zarr")]


def _directory(chunk):
    chunk.unlink()
    chunk.mkdir()


@pytest.mark.parametrize(
    "damage",
    [Path.unlink, lambda chunk: chunk.write_bytes(b""), _directory],
    ids=["deleted", "zero-length", "directory"],
)
@pytest.mark.parametrize("layout", ZARR)
def test_a_chunk_that_is_not_in_the_store_is_an_error(written, damage):
    """Zarr reads fill value where a chunk has no bytes; here that is an error, and the other chunks still read."""
    first = written.chunk_files()[0]
    damage(first)
    store = written.open()
    with pytest.raises(MissingChunkError, match="chunk .* is not in the store"):
        store.read(written.array, 0, 1)
    with pytest.raises(MissingChunkError):
        store.read(written.array, 3, 5)
    np.testing.assert_array_equal(store.read(written.array, 4, LENGTH), written.data[4:])


@pytest.mark.parametrize("layout", ZARR)
def test_fill_reads_a_deleted_chunk_as_fill_value(written):
    """With on_missing="fill" the items of a chunk that is not there are the fill value, the others their own."""
    written.chunk_files()[0].unlink()
    expected = written.data.copy()
    expected[:4] = 0
    np.testing.assert_array_equal(written.open("fill").read(written.array, 0, LENGTH), expected)


def test_a_chunk_off_the_item_axis_is_missed_too(tmp_path):
    """Chunks that split an item count as well: each chunk that an item touches must be there."""
    data = numbers(4, (6,))
    array = zarr.create_array(tmp_path / "s.zarr", data=data, chunks=(2, 3))
    (Path(tmp_path, "s.zarr") / array.metadata.encode_chunk_key((1, 1))).unlink()
    store = stores.open_store(tmp_path / "s.zarr", "zarr3", 0, on_missing="error")
    np.testing.assert_array_equal(store.read("", 0, 2), data[:2])
    with pytest.raises(MissingChunkError, match="c/1/1"):
        store.read("", 2, 3)


# -- data that is broken

CODECS = {
    "2-none": (2, None),
    "2-zlib": (2, numcodecs.Zlib()),
    "2-gzip": (2, numcodecs.GZip()),
    "2-lzma": (2, numcodecs.LZMA()),
    "2-bz2": (2, numcodecs.BZ2()),
    "2-zstd": (2, numcodecs.Zstd()),
    "2-blosc": (2, numcodecs.Blosc()),
    "3-none": (3, None),
    "3-gzip": (3, GzipCodec()),
    "3-blosc": (3, BloscCodec()),
    "3-crc32c": (3, Crc32cCodec()),
    "3-zstd": (3, "auto"),
}


@pytest.mark.parametrize("codec", CODECS)
def test_a_truncated_or_garbage_chunk_raises_what_readers_expect(tmp_path, codec):
    """Whatever the codec raises over a cut or random chunk is in ``UNREADABLE``; a cut chunk never reads at all.

    Except with blosc, which believes the length in its header and reads on in whatever lies behind.
    """
    zarr_format, compressor = CODECS[codec]
    data = numbers(4, (50,))
    write_zarr(tmp_path / "s.zarr", data, zarr_format=zarr_format, compressors=compressor)
    chunk = tmp_path / "s.zarr" / ("0.0" if zarr_format == 2 else "c/0/0")
    whole = chunk.read_bytes()
    store = stores.open_store(tmp_path / "s.zarr", f"zarr{zarr_format}", 0, on_missing="error")
    random = np.random.default_rng(5)
    for length in (1,) if "blosc" in codec else (1, len(whole) // 2, len(whole) - 1):
        chunk.write_bytes(whole[:length])
        with pytest.raises(stores.UNREADABLE):
            store.read("", 0, 4)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
        chunk.write_bytes(damaged if random.random() < 0.8 else random.bytes(len(whole)))
        try:
            assert (
                store.read("", 0, 4).shape == data.shape
            )  # codecs without a checksum may not see it
        except stores.UNREADABLE:
            pass
    chunk.write_bytes(whole)
    np.testing.assert_array_equal(store.read("", 0, 4), data)


def test_a_checksum_in_the_store_finds_every_flipped_bit(tmp_path):
    """With the crc32c codec no damaged chunk reads, not even by one bit."""
    write_zarr(tmp_path / "s.zarr", numbers(4), compressors=Crc32cCodec())
    chunk = tmp_path / "s.zarr/c/0/0"
    whole = chunk.read_bytes()
    store = stores.open_store(tmp_path / "s.zarr", "zarr3", 0, on_missing="error")
    for place in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        chunk.write_bytes(damaged)
        with pytest.raises(ValueError):  # noqa: PT011 - each damage has a reason of its own
            store.read("", 0, 4)


def test_a_truncated_hdf5_file_raises(tmp_path):
    """A file cut anywhere fails in the scan, at opening or in reading, with an error that readers expect."""
    path = Path(write_hdf5(tmp_path / "s.h5", numbers(200), chunk=4, compression="gzip"))
    whole = path.read_bytes()
    for length in (0, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(stores.UNREADABLE):
            stores.scan(str(path), Layout(), 0)
            store = stores.open_store(path, "hdf5", 0, on_missing="error")
            store.read("x", 0, 200)


# -- what cannot be sampled from


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["a", "b"], "text"),
        (np.zeros(2, [("a", "i4")]), '{"a": "int32"}'),
        (np.zeros(2, "S3"), "bytes"),
        (np.zeros(2, "V3"), "opaque[3]"),
    ],
    ids=["str", "structured", "bytes", "opaque"],
)
def test_values_that_are_no_numbers_are_indexed_as_what_they_are(tmp_path, values, dtype):
    """Their spelling is the index's; whether a sample can be made of them is asked where they are read."""
    with h5py.File(tmp_path / "s.h5", "w") as file:
        file["x"] = values
    (info,) = stores.scan(str(tmp_path / "s.h5"), parse(None, ["x"]), 0).arrays
    assert info.dtype == dtype


def test_a_type_that_numpy_has_not_is_refused_by_name(tmp_path):
    """HDF5's times: alone, named, or beside another dataset that can be read."""
    path = tmp_path / "s.h5"
    with h5py.File(path, "w") as file:
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"t", h5py.h5t.UNIX_D32LE.copy(), space)
    for keys in (None, ["t"], ["t/x"]):
        with pytest.raises(
            ValueError, match="array 't' cannot be read by h5py: No NumPy equivalent"
        ):
            stores.scan(str(path), parse(None, keys), 0)
    with h5py.File(path, "a") as file:
        file["x"] = np.arange(3)
    assert stores.scan(str(path), parse(None, ["x"]), 0).length == 3


@pytest.mark.parametrize("write", [write_zarr, write_hdf5])
def test_a_group_or_scalar_in_place_of_an_array_is_refused(tmp_path, write):
    """A key that names a group names no array, and a scalar has no items."""
    path = Path(write(tmp_path / "s", {"g/x": numbers(3), "y": numbers(3)}))
    with pytest.raises(
        ValueError,
        match="no array 'g'; there is 'g/x' of .*, 'y' of .*'g' is a group: name an array",
    ):
        stores.scan(str(path), parse(None, ["g"]), 0)
    with pytest.raises(ValueError, match=r"no axis 2; axis must be in \[0, 2\), or in \[-2, 0\)"):
        stores.scan(str(path), parse(None, ["y"]), 2)
    with pytest.raises(ValueError, match="holds 2 arrays.*choose with key="):
        stores.scan(str(path), Layout(), 0)
    assert stores.scan(str(path), parse(None, ["/g/x/", "y"]), 0).length == 3


def test_bools_complex_and_half_floats_are_numbers(tmp_path):
    """Every dtype of kind b, i, u, f and c comes back as it was written, from both kinds of file."""
    for dtype in ("?", "i1", "u8", "f2", "f8", "c8"):
        data = numbers(6, (2,), dtype)
        for write, kind in ((write_zarr, "zarr3"), (write_hdf5, "hdf5")):
            path = Path(write(tmp_path / f"{kind}{np.dtype(dtype).name}", data, key="x"))
            store = stores.open_store(path, kind, 0, on_missing="error")
            block = store.read("x", 1, 5)
            store.close()
            assert block.dtype == data.dtype
            np.testing.assert_array_equal(block, data[1:5])
            assert stores.scan(str(path), Layout(), 0).arrays[0].dtype == data.dtype.name
