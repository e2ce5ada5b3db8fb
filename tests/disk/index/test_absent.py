"""Absent chunks of an index: counted by array and file, in a bounded time where that is asked for."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
import zarr

from globidx import GlobalIndexManager
from globidx.disk.index import absent
from globidx.disk.index.absent import choice, extent_within
from globidx.errors import ReadError


def write(path, lost=(), kind="zarr3", rows=12):
    """``images`` in chunks of 4 rows and ``mask`` in chunks of 3, of which the chunks in ``lost`` were never written."""
    arrays = {"images": 4, "mask": 3}
    if kind == "hdf5":
        with h5py.File(path, "w") as file:
            for name, chunk in arrays.items():
                made = file.create_dataset(name, (rows, 2), "u2", chunks=(chunk, 2), fillvalue=7)
                for number in range(rows // chunk):
                    if (name, number) not in lost:
                        made[number * chunk : (number + 1) * chunk] = 1
        return
    group = zarr.create_group(path, zarr_format=2 if kind == "zarr2" else 3)
    for name, chunk in arrays.items():
        shards = {"shards": (rows, 2)} if kind == "sharded" else {}
        made = group.create_array(
            name, shape=(rows, 2), chunks=(chunk, 2), dtype="u2", fill_value=7, **shards
        )
        value = np.ones((rows, 2), "u2")
        for array, number in lost:
            if array == name:
                value[number * chunk : (number + 1) * chunk] = 7
        made[:] = value


KINDS = ("zarr2", "zarr3", "sharded", "hdf5")


@pytest.fixture
def manager(tmp_path):
    """A file of each kind: two of them whole, one that lacks a mask, one that lacks masks and an image."""
    losses = [[], [("mask", 1)], [], [("mask", 0), ("mask", 3), ("images", 2)]]
    for number, (kind, lost) in enumerate(zip(KINDS, losses, strict=True)):
        write(tmp_path / f"{number}.{'h5' if kind == 'hdf5' else 'zarr'}", lost, kind)
    return GlobalIndexManager(tmp_path, key=["images", "mask"])


def in_short(found):
    """By array: chunks absent, of how many, rows, fill values, and (file, absent, of)."""
    return {
        one.array: (
            one.chunks,
            one.of,
            one.rows,
            one.fills,
            [(os.path.basename(path), count, of) for path, count, of in one.files],
        )
        for one in found
    }


def test_absent_chunks_are_counted_by_array_and_file(manager):
    """In zarr 2, zarr 3, shards and HDF5; with and without an executor."""
    expected = {
        "images": (1, 12, 4, ("7",), [("3.h5", 1, 3)]),
        "mask": (3, 16, 9, ("7",), [("1.zarr", 1, 4), ("3.h5", 2, 4)]),
    }
    assert in_short(manager.absent()) == expected
    with ThreadPoolExecutor(2) as executor:
        assert in_short(manager.absent(executor)) == expected


def test_many_files_are_shared_out(manager, monkeypatch):
    """With as many as pay for it, the executor looks; the result is the same."""
    here = in_short(manager.absent())
    monkeypatch.setattr(absent, "_MANY", 2)
    with ThreadPoolExecutor(2) as executor:
        assert in_short(manager.absent(executor)) == here


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_absent_is_an_empty_list(tmp_path, kind):
    """Of files that are whole."""
    write(tmp_path / f"a.{'h5' if kind == 'hdf5' else 'zarr'}", (), kind)
    assert GlobalIndexManager(tmp_path, key=["images", "mask"]).absent() == []


@pytest.mark.parametrize("what", ["gone", "fifo"])
def test_a_file_that_cannot_be_looked_at_is_an_error(tmp_path, what):
    """Rather than pass for one without absent chunks."""
    write(tmp_path / "a.h5", (), "hdf5")
    write(tmp_path / "b.h5", (), "hdf5")
    manager = GlobalIndexManager(tmp_path, key=["images", "mask"])
    (tmp_path / "b.h5").unlink()
    if what == "fifo":
        os.mkfifo(tmp_path / "b.h5")
    with pytest.raises(ReadError, match=r"b\.h5 cannot be looked at for absent chunks: "):
        manager.absent()


@pytest.mark.parametrize("suffix", ["h5", "zarr"])
def test_the_arrays_of_every_match_are_looked_at(tmp_path, suffix):
    """With ``sequences="match"`` each group has chunks of its own."""
    path = tmp_path / f"a.{suffix}"
    root = h5py.File(path, "w") if suffix == "h5" else zarr.create_group(path)
    for number in range(5):
        group = root.require_group(f"data/demo_{number}")
        array = group.create_array if suffix == "zarr" else group.create_dataset
        made = array("obs", shape=(4, 2), chunks=(2, 2), dtype="u2")
        made[: 2 * (number % 3)] = 1
    if suffix == "h5":
        root.close()
    manager = GlobalIndexManager(path, key="data/*/obs", sequences="match")
    # demos 0 and 3 lack two chunks, 1 and 4 lack one
    assert in_short(manager.absent()) == {"obs": (6, 10, 12, ("0",), [(f"a.{suffix}", 6, 10)])}


def test_the_parts_of_a_sparse_matrix_are_looked_at(tmp_path):
    """Rows of its parts are none of the index."""
    group = zarr.create_group(tmp_path / "a.zarr").create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": [2, 9]})
    for name, values in (("indptr", [0, 3, 6]), ("indices", [1, 4, 5, 1, 2, 8]), ("data", [1] * 6)):
        group.create_array(name, data=np.array(values, "i4"), chunks=(3,))
    (tmp_path / "a.zarr/X/data/c/1").unlink()
    (one,) = GlobalIndexManager(tmp_path / "a.zarr", layout="anndata").absent()
    assert (one.chunks, one.of, one.rows) == (1, 5, None)


class Clock:
    """A clock that goes on by a second whenever it is read."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        self.now += 1
        return self.now


def test_counting_ends_when_the_time_is_over(tmp_path):
    """With a clock that counts how often it is read: files so far, what they lack, and no more reads than seconds."""
    for number in range(30):
        write(tmp_path / f"{number:02}.zarr", [("mask", 1)], "zarr2")
    manager = GlobalIndexManager(tmp_path, key=["images", "mask"])
    looked_at = []
    for seconds in (1, 2, 20, 50, 10_000):
        clock = Clock()
        found = extent_within(seconds, manager.now, [1], first=9, allow_external=False, clock=clock)
        assert clock.now <= seconds + 1 and found.num_files == 30 and found.unknown == ()
        assert found.is_part == (found.looked_at < 30)
        (mask,) = found.arrays
        # the one that was being looked at may be in it by part
        assert found.looked_at <= mask.chunks <= found.looked_at + 1
        if mask.files:
            assert os.path.basename(mask.files[0][0]) == "09.zarr"
        looked_at.append(found.looked_at)
    assert looked_at[0] == 0 < looked_at[2] < looked_at[3] < looked_at[4] == 30


def test_a_huge_folder_does_not_outlast_the_time(tmp_path):
    """Time ends within a listing as well, and all that was counted before stays."""
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
    small = group.create_array("small", shape=(1000,), chunks=(500,), dtype="u1")
    small[:500] = 1
    group.create_array("large", shape=(1000,), chunks=(1,), dtype="u1")[:] = 1
    manager = GlobalIndexManager(tmp_path, key=["small", "large"])
    clock = Clock()
    found = extent_within(6, manager.now, [0, 1], first=0, allow_external=False, clock=clock)
    assert found.is_part and found.looked_at == 0 and clock.now == 7
    assert in_short(found.lacking) == {"small": (1, 2, 500, ("0",), [("a.zarr", 1, 2)])}


def test_stores_by_url_are_not_waited_for(tmp_path):
    """An error is not held up by a server; who asks for all of it gets it, by one listing."""
    pytest.importorskip("fsspec")
    write(tmp_path / "a.zarr", [("mask", 1)])
    manager = GlobalIndexManager(f"file://{tmp_path}/a.zarr", key=["images", "mask"])
    found = extent_within(100, manager.now, [0, 1], first=0, allow_external=False, clock=Clock())
    assert found.looked_at == 0 and len(found.unknown) == 1 and found.lacking == []
    assert in_short(manager.absent()) == {"mask": (1, 4, 3, ("7",), [("a.zarr", 1, 4)])}


def test_the_line_that_chooses_is_python(manager):
    """It can be copied: names with quotes and of other scripts too."""
    for names in (["mask"], ['a"b', "é"], ["x\\y"]):
        line = choice(names)
        assert eval(line, {"FileCacheDataset": lambda *_, on_missing: on_missing}) == dict.fromkeys(
            names, "fill"
        )
