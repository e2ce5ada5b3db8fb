"""Lengths of samples, told without their data where that is possible, are those of the samples."""

import h5py
import numpy as np
import pytest
import zarr
from files import write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager, errors
from globidx.packing import document_lengths

LENGTHS = [3, 0, 7, 1, 1200]


def lengths_read(manager, field=None):
    """Of the samples themselves."""
    dataset = FileCacheDataset(manager, fields=field)
    return [len(dataset[id]) for id in range(len(dataset))]


@pytest.mark.parametrize("write", [write_zarr, write_hdf5])
@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("tokens[offsets]", {"offsets": np.cumsum([0, *LENGTHS])}),
        ("tokens[:ends]", {"ends": np.cumsum(LENGTHS)}),
        (
            "tokens[start,length]",
            {"start": np.cumsum([0, *LENGTHS])[:-1], "length": np.array(LENGTHS)},
        ),
    ],
)
def test_runs_of_rows_are_as_long_as_what_tells_them_says(tmp_path, write, key, told):
    """Of several files; the tokens themselves are not read."""
    suffix = "zarr" if write is write_zarr else "h5"
    for number in range(2):
        write(tmp_path / f"{number}.{suffix}", {"tokens": np.arange(sum(LENGTHS)), **told})
    manager = GlobalIndexManager(str(tmp_path), key=key)
    assert document_lengths(manager).tolist() == lengths_read(manager) == LENGTHS * 2
    for chunk in (tmp_path / "0.zarr" / "tokens").glob("c/*"):
        chunk.write_bytes(b"unreadable")
    assert document_lengths(FileCacheDataset(manager)).tolist() == LENGTHS * 2


def test_rows_of_variable_length_are_counted(tmp_path):
    """HDF5's own, across blocks of them, beside another field."""
    lengths = np.arange(1500) % 5
    with h5py.File(tmp_path / "a.h5", "w") as file:
        rows = file.create_dataset("rows", 1500, h5py.vlen_dtype("i4"))
        for row, length in enumerate(lengths.tolist()):
            rows[row] = np.arange(length)
        file["label"] = np.arange(1500)
    manager = GlobalIndexManager(str(tmp_path / "a.h5"), key=["rows", "label"])
    assert document_lengths(manager, "rows").tolist() == lengths.tolist()


def test_items_of_one_shape_are_as_long_as_their_first_axis(tmp_path):
    """And ``tokens:LENGTH`` is such."""
    write_zarr(tmp_path / "a.zarr", np.arange(20))
    flat = GlobalIndexManager(str(tmp_path), layout="tokens:6")
    assert document_lengths(flat).tolist() == lengths_read(flat) == [6, 6, 6]
    write_zarr(tmp_path / "b" / "a.zarr", np.ones((4, 5, 2)))
    rows = GlobalIndexManager(str(tmp_path / "b"))
    assert document_lengths(rows).tolist() == lengths_read(rows) == [5] * 4


def test_whole_sequences_are_as_long_as_the_index_says(tmp_path):
    """Episodes by their ends, of two files, and some of them left out."""
    for number in range(2):
        arrays = {"x": np.arange(20), "ends": np.array([5, 8, 20])}
        write_zarr(tmp_path / f"{number}.zarr", arrays)
    manager = GlobalIndexManager(str(tmp_path), key="x", sequences="ends", window="all")
    assert document_lengths(manager).tolist() == lengths_read(manager) == [5, 3, 12] * 2
    _, some = manager.split(0.5, seed=1)
    assert document_lengths(some).tolist() == lengths_read(some)


def test_whole_arrays_are_as_long_as_their_shapes_say(tmp_path):
    """Those of groups that differ, and of files."""
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    lengths = [3, 2, 7]
    for number, length in enumerate(lengths):
        group.create_array(f"documents/{number}/tokens", data=np.arange(length))
    manager = GlobalIndexManager(
        str(tmp_path), key="documents/*/tokens", sequences="match", window="all"
    )
    assert document_lengths(manager).tolist() == lengths_read(manager) == lengths
    write_zarr(tmp_path / "b" / "0.zarr", np.arange(4))
    write_zarr(tmp_path / "b" / "1.zarr", np.arange(9))
    files = GlobalIndexManager(str(tmp_path / "b"), sequences="file", window="all")
    assert document_lengths(files).tolist() == lengths_read(files) == [4, 9]


def test_what_has_no_lengths_says_so(tmp_path):
    """Single values, windows, a field that is not there, and what has no index."""
    write_zarr(tmp_path / "a.zarr", {"x": np.arange(9), "y": np.arange(9)})
    with pytest.raises(ValueError, match="'x' are single values"):
        document_lengths(GlobalIndexManager(str(tmp_path), key=["x", "y"]), "x")
    with pytest.raises(ValueError, match="field must name the array of tokens, one of 'x', 'y'"):
        document_lengths(GlobalIndexManager(str(tmp_path), key=["x", "y"]))
    windows = GlobalIndexManager(str(tmp_path), key="x", sequences="file", window=(0, 1))
    with pytest.raises(ValueError, match="this index has other samples"):
        document_lengths(windows)
    with pytest.raises(TypeError, match="list has none"):
        document_lengths([1, 2])


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """With what is wrong with it."""
    write_zarr(tmp_path / "a.zarr", {"t": np.arange(9), "offsets": np.array([0, 7, 5, 9])})
    manager = GlobalIndexManager(str(tmp_path), key="t[offsets]")
    with pytest.raises(errors.ReadError, match=r"a\.zarr: lengths .*tell no runs of rows"):
        document_lengths(manager)
