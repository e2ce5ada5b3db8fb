"""HDF5's chunks and contiguous data, read without HDF5, are what h5py reads, whatever a writer may have chosen."""

from __future__ import annotations

import ctypes

import h5py
import numpy as np
import pytest
from fastpaths import Folder, arrays, check
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.stores.hdf5.fast import without_fletcher32


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
