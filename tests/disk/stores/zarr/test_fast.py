"""Chunks and shards, read without zarr, are what zarr reads, whatever a writer may have chosen."""

from __future__ import annotations

import warnings

import numcodecs
import numpy as np
import zarr
from fastpaths import Folder, arrays, check
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores

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


def test_a_checksum_before_its_bytes_is_left_to_the_library(tmp_path):
    """numcodecs can put it there; format 3 cannot."""
    data = np.arange(1, 13, dtype="u2").reshape(6, 2)
    codec = numcodecs.CRC32C(location="start")
    zarr.create_array(tmp_path / "a", data=data, chunks=(2, 2), zarr_format=2, compressors=codec)
    check(tmp_path / "a", data, 0, fast=False)


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
