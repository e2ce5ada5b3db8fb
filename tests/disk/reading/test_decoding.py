"""Rows that a function decodes: called where they are read, and named where it fails."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
import zarr
from files import write_zarr
from torch.utils.data import DataLoader

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.core.values.dtypes import parse
from globidx.disk.reading.decoding import ByRow, UndecodableError
from globidx.errors import ReadError

ROWS = 6


def encoded(row):
    """A row as bytes, none of them zero, where HDF5 ends text: what a decoder undoes."""
    return np.full((2, row + 1), row + 1, np.uint8).tobytes()


def decoded(stored):
    assert isinstance(stored, bytes)
    return np.frombuffer(stored, np.uint8).reshape(2, -1) - 1


def as_objects(values):
    out = np.empty(len(values), object)
    out[:] = values
    return out


def write_bytes(path, rows, how):
    """Rows of bytes as files have them: fixed, of any length, or as arrays of numbers."""
    stored = as_objects([encoded(row) for row in rows])
    with h5py.File(path, "w") as file:
        if how == "fixed":
            file["rgb"] = stored.astype("S32")
        elif how == "any length":
            file.create_dataset("rgb", data=stored, dtype=h5py.string_dtype("ascii"))
        else:
            parts = as_objects([np.frombuffer(one, "u1") for one in stored])
            file.create_dataset("rgb", (len(rows),), h5py.vlen_dtype("u1"))[...] = parts
        file["label"] = np.array(rows)


def failing(row):
    """Decodes all rows but one."""

    def decode(stored):
        found = decoded(stored)
        if found[0, 0] == row:
            raise KeyError("no such colour")
        return found

    return decode


def by_row(dtype, function, rows):
    """The values of rows of a file, of which nothing else is asked."""
    return ByRow("x", parse(dtype), function)(rows, np.zeros(len(rows), np.int64), None)


def test_by_row_gives_each_row_as_python_has_it():
    """Text as str, numbers as arrays, in the sequence of the rows."""
    rows = np.array([b"a", "é".encode()], object)
    given = by_row("text", str.upper, rows)
    assert given.tolist() == ["A", "É"]
    numbers = by_row("int16", np.sum, np.arange(6, dtype="i2").reshape(3, 2))
    assert numbers.tolist() == [1, 5, 9]


def test_by_row_tells_which_row_failed():
    """Its place, the field, and what the function raised."""
    with pytest.raises(UndecodableError, match="field 'x' raised ZeroDivisionError") as caught:
        by_row("int64", lambda row: 1 // int(row), np.array([2, 0, 1]))
    assert caught.value.place == 1
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("how", ["fixed", "any length"])
def test_a_function_decodes_bytes_however_they_are_stored(tmp_path, how):
    """It is handed what was written, and a sample what it returned; other fields are as ever."""
    write_bytes(tmp_path / "a.h5", range(ROWS), how)
    manager = GlobalIndexManager(tmp_path / "a.h5", key=["rgb", "label"])
    dataset = FileCacheDataset(manager, decode={"rgb": decoded})
    for id, sample in zip([3, 0, 3], dataset.__getitems__([3, 0, 3]), strict=True):
        assert sample["rgb"].tolist() == [[id] * (id + 1)] * 2 and sample["label"] == id


def test_bytes_in_arrays_of_numbers_are_decoded(tmp_path):
    """As RDT and ACT write JPEG: the function is handed an array."""
    write_bytes(tmp_path / "a.h5", range(ROWS), "numbers")
    manager = GlobalIndexManager(tmp_path / "a.h5", key="rgb")
    dataset = FileCacheDataset(manager, decode={"rgb": lambda row: decoded(row.tobytes())})
    assert dataset[2].tolist() == [[2, 2, 2]] * 2


def test_rows_are_decoded_once_a_batch(tmp_path):
    """Also where several samples take a row: windows overlap."""
    write_bytes(tmp_path / "a.h5", range(ROWS), "any length")
    seen = []
    manager = GlobalIndexManager(
        tmp_path / "a.h5", key="rgb", sequences="file", window=Window(range(-1, 2), pad="edge")
    )
    dataset = FileCacheDataset(
        manager, decode={"rgb": lambda row: seen.append(row) or np.array(decoded(row)[0, 0])}
    )
    given = dataset.__getitems__([0, 1, 2, 5])
    assert [one.tolist() for one in given] == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [4, 5, 5]]
    assert seen == [encoded(row) for row in range(ROWS)]


def test_padding_is_not_decoded(tmp_path):
    """Where no row is, decoded rows of a window are zeros; where all are none, there is nothing."""
    write_bytes(tmp_path / "a.h5", range(ROWS), "any length")
    window = Window((-2, 0), pad="zero")
    manager = GlobalIndexManager(tmp_path / "a.h5", key="rgb", sequences="file", window=window)
    fixed = FileCacheDataset(
        manager, decode={"rgb": lambda row: torch.full((2,), float(decoded(row)[0, 0]) + 1)}
    )
    assert fixed[1].tolist() == [[0, 0], [2, 2]] and fixed[1].dtype == torch.float32
    words = FileCacheDataset(manager, decode={"rgb": len})
    assert words[1] == [None, len(encoded(1))]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_function_runs_in_workers(tmp_path, method):
    """It decodes in the process that reads, and is a picklable function to those that are spawned."""
    write_bytes(tmp_path / "a.h5", [1] * ROWS, "any length")
    dataset = FileCacheDataset(
        GlobalIndexManager(tmp_path / "a.h5", key="rgb"), decode={"rgb": decoded}
    )
    loader = DataLoader(dataset, batch_size=3, num_workers=1, multiprocessing_context=method)
    batches = list(loader)
    assert [batch.shape for batch in batches] == [(3, 2, 2)] * 2
    assert all((batch == 1).all() for batch in batches)


def test_an_error_names_file_item_and_id(tmp_path):
    """And the field, and what the function raised, which is its cause."""
    for number, name in enumerate("ab"):
        write_bytes(tmp_path / f"{name}.h5", range(number * ROWS, (number + 1) * ROWS), "fixed")
    manager = GlobalIndexManager(tmp_path, key="rgb")
    dataset = FileCacheDataset(manager, decode={"rgb": failing(ROWS + 2)})
    assert len(dataset.__getitems__([0, ROWS + 1, ROWS + 3])) == 3
    with pytest.raises(ReadError) as caught:
        dataset.__getitems__([0, ROWS + 1, ROWS + 2, ROWS + 3])
    message = str(caught.value)
    assert f"sample id {ROWS + 2}: item 2 of {tmp_path / 'b.h5'}: " in message
    assert "decode of field 'rgb' raised KeyError: 'no such colour'" in message
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_row_that_cannot_be_decoded_is_substituted(tmp_path, caplog):
    """As one that cannot be read: another sample takes its place, and the id is told."""
    write_bytes(tmp_path / "a.h5", range(ROWS), "fixed")
    manager = GlobalIndexManager(tmp_path / "a.h5", key="rgb")
    dataset = FileCacheDataset(manager, decode={"rgb": failing(2)}, on_error="substitute")
    given = dataset.__getitems__([1, 2, 3])
    found = [int(one[0, 0]) for one in given]
    assert found[0] == 1 and found[1] != 2 and found[2] == 3
    assert "sample id 2: item 2 of" in caplog.text and "decode of field 'rgb'" in caplog.text


def test_a_member_of_a_compound_array_is_decoded_alone(tmp_path):
    """Others of its members are as ever; all of it is handed over as one row with names."""
    rows = np.zeros(ROWS, [("n", ">i4"), ("word", "S4")])
    rows["n"], rows["word"] = range(ROWS), [b"x" * (row % 4) for row in range(ROWS)]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["t"] = rows
    manager = GlobalIndexManager(tmp_path / "a.h5", key="t/{n,word}")
    dataset = FileCacheDataset(manager, decode={"t/word": len})
    assert dataset[3] == {"t/n": 3, "t/word": 3}
    whole = FileCacheDataset(
        GlobalIndexManager(tmp_path / "a.h5", key="t"),
        decode={"t": lambda row: int(row["n"]) + len(row["word"][()])},
    )
    assert [whole[id] for id in range(ROWS)] == [row + row % 4 for row in range(ROWS)]


def test_what_a_function_was_handed_may_be_changed(tmp_path):
    """It is no view of what is kept for the next batch, or of another field's rows."""
    data = np.arange(1, 13).reshape(6, 2)
    write_zarr(tmp_path / "a.zarr", {"x": data}, chunk=3)
    manager = GlobalIndexManager(tmp_path / "a.zarr", key={"x": "x", "y": "x"})

    def clear(row):
        before = row.sum()
        row[...] = 0
        return before

    dataset = FileCacheDataset(manager, decode={"x": clear})
    for _ in range(2):
        sample = dataset[4]
        assert sample["x"] == data[4].sum() and sample["y"].tolist() == data[4].tolist()


def test_samples_that_take_one_row_have_a_value_each(tmp_path):
    """It is decoded once, and what a loop does to the value of one sample happens to no other."""
    write_bytes(tmp_path / "a.h5", range(ROWS), "any length")
    manager = GlobalIndexManager(tmp_path / "a.h5", key="rgb")
    first, other, again = FileCacheDataset(manager, decode={"rgb": decoded}).__getitems__([2, 3, 2])
    first.zero_()
    assert again.tolist() == [[2, 2, 2]] * 2 and (other == 3).all()


def test_what_no_tensor_holds_may_be_decoded(tmp_path):
    """Opaque bytes mean something to the function of a user."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.frombuffer(bytes(range(12)), "V4")
    manager = GlobalIndexManager(tmp_path / "a.h5", key="x")
    with pytest.raises(ValueError, match=r"'x' has dtype opaque\[4\], which means nothing"):
        FileCacheDataset(manager)
    assert FileCacheDataset(manager, decode={"x": bytes})[1] == bytes(range(4, 8))


@pytest.mark.parametrize(
    ("decode", "error", "message"),
    [
        (len, TypeError, "decode must be 'cf', or a dict of fields to functions, got <b"),
        ({"y": len}, ValueError, "decode names 'y', which is no field that is read; there is 'x'"),
        ({"x": "jpeg"}, TypeError, "decode of field 'x' must be a function or 'cf', got 'jpeg'"),
    ],
)
def test_what_is_no_decode_is_refused(tmp_path, decode, error, message):
    """At once, and not with the first sample."""
    zarr.create_array(tmp_path / "a.zarr", data=np.arange(3))
    write_zarr(tmp_path / "b.zarr", {"x": np.arange(3)})
    with pytest.raises(error, match=message):
        FileCacheDataset(GlobalIndexManager(tmp_path / "b.zarr", key="x"), decode=decode)
