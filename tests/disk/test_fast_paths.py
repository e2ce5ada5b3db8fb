"""Every fast path equals its library's own reading, over whatever a writer may have chosen."""

from __future__ import annotations

import ctypes
import gzip
import shutil
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path

import h5py
import numcodecs
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import LibrarySource, OpenFile
from globidx.disk.stores import base as stores
from globidx.disk.stores.codecs import codec_of, decode
from globidx.disk.stores.hdf5.fast import without_fletcher32

DTYPES = "? i1 u1 <i2 >i2 <u2 >u4 <i8 >i8 <f2 >f4 <f4 <f8 >f8 <c8 >c16".split()
COMPRESSORS2 = [
    None,
    numcodecs.Zstd(1),
    numcodecs.Zstd(1, checksum=True),
    numcodecs.GZip(1),
    numcodecs.Zlib(1),
    numcodecs.BZ2(1),
    numcodecs.LZMA(preset=0),
    numcodecs.LZ4(),
    *(
        numcodecs.Blosc(name, 3, shuffle)
        for name in ("lz4", "zstd", "zlib", "blosclz")
        for shuffle in (0, 1, 2)
    ),
]
COMPRESSORS3 = [
    [],
    [zarr.codecs.ZstdCodec(level=1, checksum=True)],
    [zarr.codecs.GzipCodec(level=1)],
    [zarr.codecs.BloscCodec(cname="lz4", shuffle="bitshuffle")],
    [zarr.codecs.BloscCodec(cname="zstd", shuffle="shuffle")],
    [zarr.codecs.Crc32cCodec()],
    [zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec()],
    [zarr.codecs.Crc32cCodec(), zarr.codecs.GzipCodec(level=1), zarr.codecs.ZstdCodec(level=1)],
]
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


@settings(max_examples=150)
@given(
    made=arrays(),
    compressor=st.sampled_from(COMPRESSORS2),
    order=st.sampled_from("CF"),
    separator=st.sampled_from("./"),
)
def test_zarr_2(made, compressor, order, separator):
    """Format 2: compressors, order of axes, separators, byte orders, ragged edges."""
    data, chunks, axis = made
    with Folder() as folder:
        encoding = {"name": "v2", "separator": separator}
        array = zarr.create_array(
            folder / "a",
            shape=data.shape,
            chunks=chunks,
            dtype=data.dtype,
            zarr_format=2,
            compressors=compressor,
            order=order,
            chunk_key_encoding=encoding,
            fill_value=0,
        )
        array[...] = data
        check(folder / "a", data, axis)


@settings(max_examples=200)
@given(
    made=arrays(),
    compressors=st.sampled_from(COMPRESSORS3),
    sharded=st.booleans(),
    transposed=st.booleans(),
    index=st.sampled_from(["start", "end"]),
    key=st.sampled_from([("default", "/"), ("default", "."), ("v2", "."), ("v2", "/")]),
    draw=st.data(),
)
def test_zarr_3(made, compressors, sharded, transposed, index, key, draw):
    """Format 3: codecs in a chain, transposed chunks, shards with their index at either end, every way to name chunks."""
    data, chunks, axis = made
    inner = [
        zarr.codecs.BytesCodec(endian="big" if data.dtype.byteorder == ">" else "little"),
        *compressors,
    ]
    if transposed:
        inner.insert(
            0, zarr.codecs.TransposeCodec(order=draw.draw(st.permutations(range(data.ndim))))
        )
    grid, codecs = chunks, inner
    if sharded:
        grid = [chunk * draw.draw(st.integers(1, 3)) for chunk in chunks]
        codecs = [zarr.codecs.ShardingCodec(chunk_shape=chunks, codecs=inner, index_location=index)]
    with Folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr thinks crc32c and shards inside others slow
        array = zarr.Array.create(
            folder / "a",
            shape=data.shape,
            chunk_shape=grid,
            dtype=data.dtype.newbyteorder("="),
            zarr_format=3,
            codecs=codecs,
            chunk_key_encoding=key,
            fill_value=0,
        )
        array[...] = data
        check(folder / "a", data, axis)


@settings(max_examples=150)
@given(
    made=arrays(),
    chunked=st.booleans(),
    filters=st.sampled_from(
        [{}, {"compression": "gzip"}, {"compression": "gzip", "compression_opts": 9}]
    ),
    shuffle=st.booleans(),
    fletcher32=st.booleans(),
    userblock=st.sampled_from([0, 512]),
    skip=st.booleans(),
)
def test_hdf5(made, chunked, filters, shuffle, fletcher32, userblock, skip):
    """Contiguous and chunked data, filters in every combination, chunks that were stored without them, user blocks."""
    data, chunks, axis = made
    options = {"shuffle": shuffle, "fletcher32": fletcher32, **filters} if chunked else {}
    with Folder() as folder:
        with h5py.File(folder / "a.h5", "w", userblock_size=userblock) as file:
            chunks = tuple(min(chunk, size) for chunk, size in zip(chunks, data.shape, strict=True))
            dataset = file.create_dataset(
                "g/x", data=data, chunks=chunks if chunked else None, **options
            )
            if chunked and skip:
                edge = np.zeros(chunks, data.dtype)
                part = data[tuple(slice(size) for size in chunks)]
                edge[tuple(slice(size) for size in part.shape)] = part
                mask = (1 << dataset.id.get_create_plist().get_nfilters()) - 1
                dataset.id.write_direct_chunk((0,) * data.ndim, edge.tobytes(), mask)
        check(folder / "a.h5", data, axis, fast=chunked or axis == 0)


@pytest.mark.parametrize("sequence", ["s", "g", "sg", "f"])
@pytest.mark.parametrize("chunks", [(3, 6), (3, 4)])
def test_chunks_at_the_edge_may_be_stored_without_filters(tmp_path, sequence, chunks):
    """H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS, of which neither the chunk's mask nor h5py tells."""
    data = np.arange(1, 61, dtype="f8").reshape(10, 6)
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk(chunks)
        for letter in sequence:
            {"f": made.set_fletcher32, "g": made.set_deflate, "s": made.set_shuffle}[letter]()
        choose = ctypes.CDLL(h5py.h5p.__file__).H5Pset_chunk_opts
        choose.argtypes = [ctypes.c_int64, ctypes.c_uint]
        assert choose(made.id, 2) == 0
        dataset = h5py.h5d.create(
            file.id, b"x", h5py.h5t.py_create(data.dtype), h5py.h5s.create_simple((10, 6)), made
        )
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data)
    for axis in (0, 1):
        check(tmp_path / "a.h5", data, axis)


def test_a_checksum_before_its_bytes_is_left_to_the_library(tmp_path):
    """numcodecs can put it there; format 3 cannot."""
    data = np.arange(1, 13, dtype="u2").reshape(6, 2)
    codec = numcodecs.CRC32C(location="start")
    zarr.create_array(tmp_path / "a", data=data, chunks=(2, 2), zarr_format=2, compressors=codec)
    check(tmp_path / "a", data, 0, fast=False)


@pytest.mark.parametrize("sequence", ["fs", "gs", "ffs", "fsg", "gfs", "fsgs", "sfs"])
@pytest.mark.parametrize("dtype", ["f8", ">i2", "u1"])
def test_filters_stand_in_any_sequence(tmp_path, sequence, dtype):
    """HDF5 shuffles what another filter made, too, and leaves the bytes alone that fill no element."""
    data = np.arange(1, 61, dtype=dtype).reshape(10, 6)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        made = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        made.set_chunk((3, 4))
        for letter in sequence:
            {"f": made.set_fletcher32, "g": made.set_deflate, "s": made.set_shuffle}[letter]()
        dataset = h5py.h5d.create(
            file.id, b"x", h5py.h5t.py_create(data.dtype), h5py.h5s.create_simple((10, 6)), made
        )
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, data)
    check(tmp_path / "a.h5", data, 0)


@pytest.mark.parametrize("compression", ["lzf", pytest.param("bitshuffle", marks=pytest.mark.slow)])
def test_filters_that_only_the_library_has_are_left_to_it(tmp_path, compression):
    """LZF, and bitshuffle where its plug-in is installed, are read by h5py, and ``how`` names the filter."""
    if compression == "bitshuffle":
        compression = pytest.importorskip("hdf5plugin").Bitshuffle()
    data = np.arange(1, 121, dtype="u2").reshape(10, 3, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset(
            "x",
            data=data,
            chunks=(4, 3, 4),
            **({"compression": compression} if isinstance(compression, str) else compression),
        )
    check(tmp_path / "a.h5", data, 0, fast=False)


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


@given(data=st.binary(min_size=1, max_size=3000), swapped=st.booleans())
@settings(max_examples=50)
def test_fletcher32_is_hdf5s(data, swapped):
    """A checksum that the library wrote is accepted, its bytes swapped too, and any other is refused."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        dataset = file.create_dataset(
            "x", data=np.frombuffer(data, "u1"), chunks=(len(data),), fletcher32=True
        )
        file.flush()
        stored = dataset.id.read_direct_chunk((0,))[1]
    if swapped:
        stored = stored[:-4] + bytes(stored[place] for place in (-3, -4, -1, -2))
    assert without_fletcher32(stored) == data
    broken = bytearray(stored)
    broken[0] ^= 0x11
    with pytest.raises(ValueError, match="Fletcher-32"):
        without_fletcher32(bytes(broken))


# -- chunks of several frames, and damaged ones


def without_size(frame):
    """A Zstandard frame of numcodecs', less what its header says it holds (RFC 8878, 3.1.1.1)."""
    descriptor = frame[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    # a single segment has no window in its header: one of 128 MiB is put there, which holds anything
    window = b"\x88" if single else frame[5:6]
    return frame[:4] + bytes([descriptor & 0b00011111]) + window + frame[6 - single + width :]


SKIPPABLE = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"


@settings(max_examples=150)
@given(
    parts=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    unsaid=st.lists(st.booleans(), min_size=4, max_size=4),
    skips=st.lists(st.booleans(), min_size=5, max_size=5),
    checksum=st.booleans(),
    gzipped=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_chunk_of_frames_is_what_its_frames_hold(parts, unsaid, skips, checksum, gzipped, seed):
    """With sizes in their headers and without, skippable ones between, one of nothing: as the data are, or zarr's."""
    data = np.random.default_rng(seed).integers(1, 9, sum(parts)).astype("u1")
    codec, stored, place = numcodecs.Zstd(1, checksum=checksum), b"", 0
    for size, says_nothing, skip in zip(parts, unsaid, skips, strict=False):
        frame = bytes(codec.encode(data[place : place + size].tobytes()))
        stored += SKIPPABLE * skip + (without_size(frame) if says_nothing and size else frame)
        place += size
    stored += SKIPPABLE * skips[-1]
    decoder = codec_of("zstd", {})
    assert bytes(decoder.expand(stored, len(data))) == data.tobytes()
    out = np.empty(len(data), "u1")
    if len(data):
        chain = [decoder, codec_of("gzip", {})] if gzipped else [decoder]
        decode(chain, gzip.compress(stored) if gzipped else stored, out)
        np.testing.assert_array_equal(out, data)
        for wrong in (len(data) - 1, len(data) + 1):
            with pytest.raises((ValueError, RuntimeError)):
                decode([decoder], stored, np.empty(wrong, "u1"))


def test_two_frames_are_read_as_zarr_reads_them(tmp_path):
    """As pzstd writes chunks."""
    data, codec = np.arange(1, 4001, dtype="i4").reshape(40, 100), numcodecs.Zstd()
    zarr.create_array(
        tmp_path / "a", data=data, chunks=data.shape, compressors=zarr.codecs.ZstdCodec()
    )
    raw = data.tobytes()
    (tmp_path / "a/c/0/0").write_bytes(
        bytes(codec.encode(raw[:8000])) + bytes(codec.encode(raw[8000:]))
    )
    check(tmp_path / "a", data, 0)


CHECKED = {
    "gzip": zarr.codecs.GzipCodec(level=1),
    "zstd": zarr.codecs.ZstdCodec(level=1, checksum=True),
    "crc32c": zarr.codecs.Crc32cCodec(),
}


@settings(max_examples=300)
@given(
    name=st.sampled_from(sorted(CHECKED)),
    sharded=st.booleans(),
    place=st.floats(0, 1),
    bit=st.integers(-1, 7),
)
def test_no_damage_to_a_checked_chunk_gives_other_data(name, sharded, place, bit):
    """Any bit flipped, and any cut (-1): an error, or the very data; the index of a shard is checked as well."""
    data = np.arange(1, 401, dtype="u2").reshape(20, 20)
    with Folder() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        codecs = [zarr.codecs.BytesCodec(), CHECKED[name]]
        grid = (20, 20)
        inner = (
            [zarr.codecs.ShardingCodec(chunk_shape=(10, 20), codecs=codecs)] if sharded else codecs
        )
        zarr.Array.create(
            folder / "a",
            shape=data.shape,
            chunk_shape=grid,
            dtype="u2",
            zarr_format=3,
            codecs=inner,
            fill_value=0,
        )[...] = data
        file = folder / "a/c/0/0"
        stored = bytearray(file.read_bytes())
        at = min(len(stored) - 1, int(place * len(stored)))
        if bit < 0:
            del stored[at:]
        else:
            stored[at] ^= 1 << bit
        file.write_bytes(stored)
        entry = stores.scan(str(folder / "a"), Layout(), 0)
        opened = OpenFile(
            str(folder / "a"), entry, on_missing="error", backend="auto", forked=False
        )
        out = np.zeros_like(data)
        try:
            opened.source(0).read(0, 20, out)
        except stores.UNREADABLE:
            return
        # what no checksum covers is where nothing is: flags and times of gzip's header, the gap of a shard
        np.testing.assert_array_equal(out, data)
