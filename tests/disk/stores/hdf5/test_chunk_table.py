"""Chunks of HDF5 files are found where they are: as h5py reads them, at a cost that does not grow with their number."""

from __future__ import annotations

import itertools
import os
import shutil
import struct
import tempfile
import tracemalloc
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index.layout import Layout
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores
from globidx.disk.stores.hdf5 import chunk_table, fast
from globidx.errors import MissingChunkError, ReadError

FILTERS = [
    {},
    {"compression": "gzip"},
    {"compression": "lzf"},
    {"compression": "gzip", "shuffle": True},
    {"fletcher32": True},
]


@st.composite
def layouts(draw):
    """Shape, chunks, unlimited or larger axes, and which chunks are never written."""
    rank = draw(st.integers(1, 3))
    shape = [draw(st.integers(1, 7)) for _ in range(rank)]
    growing = [draw(st.sampled_from(["fixed", "larger", "unlimited"])) for _ in range(rank)]
    maxshape = [
        {"fixed": size, "larger": size + 5, "unlimited": None}[how]
        for size, how in zip(shape, growing, strict=True)
    ]
    chunks = [draw(st.integers(1, size)) for size in shape]
    places = list(
        itertools.product(
            *(range(0, size, chunk) for size, chunk in zip(shape, chunks, strict=True))
        )
    )
    absent = set(draw(st.lists(st.sampled_from(places), max_size=2)))
    return (
        tuple(shape),
        tuple(chunks),
        tuple(maxshape),
        [place for place in places if place in absent],
    )


@settings(max_examples=250)
@given(
    made=layouts(),
    options=st.sampled_from(FILTERS),
    libver=st.sampled_from(["earliest", "v108", "v110", "latest"]),
    userblock=st.sampled_from([0, 512]),
    draw=st.data(),
)
def test_every_chunk_layout_reads_as_h5py_reads_it(made, options, libver, userblock, draw):
    """Whatever axes may grow: what was written is read, and what was not is missing, never fill values."""
    shape, chunks, maxshape, absent = made
    axis = draw.draw(st.integers(0, len(shape) - 1))
    folder = Path(tempfile.mkdtemp())
    try:
        data = np.arange(1, np.prod(shape) + 1, dtype="i4").reshape(shape)
        lost = np.zeros(shape, bool)
        with h5py.File(
            folder / "a.h5", "w", libver=(libver, "latest"), userblock_size=userblock
        ) as file:
            dataset = file.create_dataset(
                "x", shape, "i4", chunks=chunks, maxshape=maxshape, fillvalue=-7, **options
            )
            for corner in itertools.product(
                *(range(0, size, chunk) for size, chunk in zip(shape, chunks, strict=True))
            ):
                part = tuple(
                    slice(at, at + chunk) for at, chunk in zip(corner, chunks, strict=True)
                )
                lost[part] = corner in absent
                if corner not in absent:
                    dataset[part] = data[part]
        with h5py.File(folder / "a.h5") as file:
            theirs = np.moveaxis(file["x"][...], axis, 0)
        entry = stores.scan(str(folder / "a.h5"), Layout(("x",)), axis)
        gaps = np.moveaxis(lost, axis, 0)
        for backend, on_missing in itertools.product(("auto", "library"), ("error", "fill")):
            opened = OpenFile(
                str(folder / "a.h5"),
                entry,
                on_missing=on_missing,
                backend=backend,
                forked=False,
            )
            source = opened.source(0)
            for start, stop in itertools.combinations(range(len(theirs) + 1), 2):
                out = np.empty((stop - start, *theirs.shape[1:]), "i4")
                if on_missing == "error" and gaps[start:stop].any():
                    # a chunk may reach beyond the rows that were asked for, and never beyond what was lost of it
                    with pytest.raises(MissingChunkError, match="never written"):
                        source.read(start, stop, out)
                else:
                    source.read(start, stop, out)
                    np.testing.assert_array_equal(out, theirs[start:stop])
            opened.close()
    finally:
        shutil.rmtree(folder)


def many_chunks(path, count, libver="earliest", **options):
    """A file with one row a chunk, each of another value."""
    with h5py.File(path, "w", libver=libver) as file:
        dataset = file.create_dataset(
            "x", (count, 8), "u4", chunks=(1, 8), maxshape=(None, 8), **options
        )
        for row in range(count):
            raw = np.full(8, row, "u4").tobytes()
            dataset.id.write_direct_chunk(
                (row, 0), zlib.compress(raw, 1) if options.get("compression") else raw
            )
    return path


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"compression": "lzf"}], ids=["raw", "gzip", "lzf"]
)
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_the_work_for_an_item_does_not_grow_with_the_number_of_chunks(
    tmp_path, monkeypatch, options, libver
):
    """Counted, not timed: chunks are listed once for a dataset, and no item asks HDF5 where its chunk is."""
    listed, asked = [], []
    real = chunk_table._listed
    monkeypatch.setattr(chunk_table, "_listed", lambda *given: listed.append(1) or real(*given))
    read = fast.os.preadv
    monkeypatch.setattr(fast.os, "preadv", lambda *given: asked.append(1) or read(*given))
    steps = []
    for count in (10, 1000, 10_000):
        if options.get("compression") == "lzf":
            with h5py.File(tmp_path / f"{count}.h5", "w", libver=libver) as file:
                rows = np.repeat(np.arange(count, dtype="u4"), 8).reshape(count, 8)
                file.create_dataset("x", data=rows, chunks=(1, 8), maxshape=(None, 8), **options)
        else:
            many_chunks(tmp_path / f"{count}.h5", count, libver, **options)
        dataset = FileCacheDataset(GlobalIndexManager(tmp_path / f"{count}.h5", key="x"))
        dataset[0]
        before = len(listed), len(asked)
        searches = []

        class Counting(chunk_table.ChunkTable):
            def find(self, place):
                searches.append(place)  # noqa: B023
                return super().find(place)

        monkeypatch.setattr(chunk_table, "ChunkTable", Counting)
        dataset.close()
        for row in range(0, count, max(1, count // 10)):
            assert dataset[row].tolist() == [row] * 8
        steps.append((len(listed) - before[0] <= 1, len(asked) - before[1], len(searches)))
        monkeypatch.undo()
        monkeypatch.setattr(chunk_table, "_listed", lambda *given: listed.append(1) or real(*given))
        monkeypatch.setattr(fast.os, "preadv", lambda *given: asked.append(1) or read(*given))
    assert steps[0] == steps[1] == steps[2]
    assert steps[0][0]


#: Every file is at rest, whatever its times.
ALWAYS = -(10**18)


def found(path, **options):
    """The table of a file that is opened for it and closed again, and the places of its first chunks."""
    with h5py.File(path, "r") as file:
        table = chunk_table.table_of(file["x"], **options)
        return table, [table.find((chunk, 0)) for chunk in range(4)]


@pytest.fixture
def listed(monkeypatch):
    """How often chunks were listed."""
    times = []
    real = chunk_table._listed
    monkeypatch.setattr(chunk_table, "_listed", lambda *given: times.append(1) or real(*given))
    return times


def test_a_table_outlives_the_handle_of_its_file(tmp_path, listed):
    """Files come and go in the cache of handles; their chunks are not listed again, unless the file is another."""
    paths = [tmp_path / f"{name}.h5" for name in "ab"]
    for path in paths:
        many_chunks(path, 20)
    first = [found(path, settled_ns=ALWAYS) for path in paths]
    assert [found(path, settled_ns=ALWAYS)[1] for path in paths] == [places for _, places in first]
    assert len(listed) == 2
    many_chunks(paths[0], 20, compression="gzip")
    assert found(paths[0], settled_ns=ALWAYS)[1] != first[0][1]
    assert len(listed) == 3


def test_the_table_of_a_file_that_changed_just_now_is_not_kept(tmp_path, listed):
    """It may change again without its times moving."""
    many_chunks(tmp_path / "a.h5", 20)
    for _ in range(2):
        found(tmp_path / "a.h5")
    assert len(listed) == 2


def test_a_forked_child_has_the_tables_of_its_parent(tmp_path, monkeypatch):
    """Loader workers do not list the chunks again of what the main process has read."""
    many_chunks(tmp_path / "a.h5", 20)
    _, places = found(tmp_path / "a.h5", settled_ns=ALWAYS)
    monkeypatch.setattr(chunk_table, "_listed", lambda *given: os._exit(3))
    child = os.fork()
    if child == 0:
        os._exit(0 if found(tmp_path / "a.h5", settled_ns=ALWAYS)[1] == places else 4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_chunk_of_another_size_than_the_header_says_is_refused(tmp_path):
    """One flipped bit in the header: the index of chunks and the header differ, and neither size is believed."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=np.full((48, 4096), 65, "u1"), chunks=(24, 4096))
    whole = bytearray(path.read_bytes())
    place = whole.index(struct.pack("<II", 24, 4096))
    whole[place] ^= 16
    path.write_bytes(whole)
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x"))
    with pytest.raises(ReadError, match="it holds 98304 bytes, where 32768 belong"):
        dataset[0]


def test_a_chunk_that_inflates_to_more_than_belongs_there_is_stopped(tmp_path):
    """A bomb of 64 MiB where 8 bytes belong takes no more memory than they do, nearly."""
    bomb = zlib.compress(bytes(2**26), 9)
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        made = file.create_dataset("x", (8,), "u1", chunks=(8,), compression="gzip")
        made.id.write_direct_chunk((0,), bomb)
        few = file.create_dataset("y", (2**16,), "u1", chunks=(2**16,), compression="gzip")
        few.id.write_direct_chunk((0,), bomb)
    for key, said in (
        ("x", "9 bytes or more, where 8 belong"),
        ("y", "65537 bytes or more, where 65536 belong"),
    ):
        dataset = FileCacheDataset(GlobalIndexManager(path, key=key))
        tracemalloc.start()
        with pytest.raises(ReadError, match=said):
            dataset[0]
        assert tracemalloc.get_traced_memory()[1] < 2**22
        tracemalloc.stop()


def test_an_item_of_long_chunks_takes_the_memory_of_one(tmp_path):
    """All of time in a chunk, a few pixels wide: the row of chunks is never put together beyond ``cache_bytes``."""
    shape, chunks = (512, 64, 64), (512, 8, 8)
    path = tmp_path / "a.h5"
    values = np.arange(512, dtype="f4")
    with h5py.File(path, "w") as file:
        made = file.create_dataset(
            "x", shape, "f4", chunks=chunks, compression="gzip", compression_opts=1
        )
        made[...] = values[:, None, None]
    dataset = FileCacheDataset(GlobalIndexManager(path, key="x"), cache_bytes=2**20)
    dataset[0]
    tracemalloc.start()
    samples = dataset.__getitems__([17, 500, 18])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [
        float(sample.min()) == float(sample.max()) == expected
        for sample, expected in zip(samples, (17, 500, 18), strict=True)
    ]
    assert [float(sample[3, 5]) for sample in samples] == [17, 500, 18]
    # a chunk is 128 KiB, decoded from some bytes, and the cache holds 1 MiB of them; the row of chunks is 8 MiB
    assert peak < 2**20
