"""What layouts find is read as their own libraries would read it."""

import h5py
import numpy as np
import pytest
import torch
import zarr
from files import numbers, write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.errors import ReadError


def _write_csr(path, dense, *, kind):
    """An AnnData file whose X is ``dense``, stored by row; built up row by row, without any sparse library."""
    entries = [(row, column) for row, column in zip(*np.nonzero(dense), strict=True)]
    indptr = [sum(row < end for row, _ in entries) for end in range(len(dense) + 1)]
    arrays = {
        "indptr": np.array(indptr, np.int64),
        "indices": np.array([column for _, column in entries], np.int32),
        "data": np.array([dense[place] for place in entries], dense.dtype),
    }
    root = h5py.File(path, "w") if kind == "hdf5" else zarr.open_group(path, mode="w")
    group = root.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": list(dense.shape)})
    for name, data in arrays.items():
        if kind == "hdf5":
            group.create_dataset(name, data=data)
        else:
            array = group.create_array(
                name,
                shape=data.shape,
                dtype=data.dtype,
                chunks=(3,),
                config={"write_empty_chunks": True},
            )
            array[...] = data
    if kind == "hdf5":
        root.close()


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
@settings(max_examples=25)
@given(data=st.data())
def test_sparse_rows_are_read_dense(tmp_path_factory, kind, data):
    """Empty rows, empty files, repeats and any sequence of ids: a row is what the dense matrix has there."""
    folder = tmp_path_factory.mktemp("anndata")
    whole = []
    for number in range(2):
        rows = data.draw(st.integers(1, 6))
        flat = data.draw(
            st.lists(st.sampled_from([0, 0, 1, 2, -3]), min_size=rows * 4, max_size=rows * 4)
        )
        dense = np.array(flat, "f4").reshape(rows, 4)
        _write_csr(
            folder / (f"{number}.h5ad" if kind == "hdf5" else f"{number}.zarr"), dense, kind=kind
        )
        whole.append(dense)
    expected = np.concatenate(whole)
    dataset = FileCacheDataset(GlobalIndexManager(folder, layout="anndata"))
    assert len(dataset) == len(expected)
    ids = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=12))
    for id, sample in zip(ids, dataset.__getitems__(ids), strict=True):
        assert torch.equal(sample, torch.from_numpy(expected[id]))


@pytest.mark.parametrize("what", ["column", "order", "end"])
def test_a_sparse_matrix_that_contradicts_itself_is_an_error(tmp_path, what):
    """A column outside the matrix, row ends that fall, or that lie behind the data, are no zeros: ReadError names the id."""
    _write_csr(tmp_path / "a.h5ad", np.ones((3, 2), "f4"), kind="hdf5")
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        if what == "column":
            file["X/indices"][2] = 2
        else:
            file["X/indptr"][2] = 1 if what == "order" else 99
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path, layout="anndata"))
    with pytest.raises(ReadError, match="sample id 1"):
        dataset[1]


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
def test_a_row_that_claims_to_end_far_behind_the_data_costs_no_memory(tmp_path, kind):
    """One flipped bit of an indptr: chunks are looked for as far as there are any."""
    path = tmp_path / ("a.h5ad" if kind == "hdf5" else "a.zarr")
    _write_csr(path, np.ones((3, 2), "f4"), kind=kind)
    root = h5py.File(path, "r+") if kind == "hdf5" else zarr.open_group(path)
    root["X/indptr"][2] = 2**61
    if kind == "hdf5":
        del root["X/indices"]
        root["X"].create_dataset("indices", (7,), "i4", chunks=(2,))[:6] = [
            0,
            1,
        ] * 3  # its last chunk is not there
        root.close()
    dataset = FileCacheDataset(GlobalIndexManager(path, layout="anndata"))
    with pytest.raises(ReadError, match="sample id 1.*(behind the end|was never written)"):
        dataset[1]


@pytest.mark.parametrize("kind", ["hdf5", "zarr"])
@settings(max_examples=25)
@given(data=st.data())
def test_tokens_are_the_flat_array_cut_in_pieces(tmp_path_factory, kind, data):
    """Any length, dividing the chunk or not: sequence i is [i * L, (i + 1) * L), and what is left over is no sample."""
    folder = tmp_path_factory.mktemp("tokens")
    length, chunk = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 9))
    sizes = data.draw(st.lists(st.integers(1, 30), min_size=1, max_size=3))
    expected = []
    for number, size in enumerate(sizes):
        flat = numbers(size, (), start=1 + 100 * number)
        path = folder / f"{number}"
        if kind == "hdf5":
            write_hdf5(f"{path}.h5", flat, chunk=chunk)
        else:
            write_zarr(f"{path}.zarr", flat, key="x", chunk=chunk)
        expected += [flat[start : start + length] for start in range(0, size - length + 1, length)]
    manager = GlobalIndexManager(folder, layout=f"tokens:{length}")
    assert len(manager) == len(expected)
    if expected:
        dataset = FileCacheDataset(manager, cache_bytes=data.draw(st.sampled_from([0, 10**6])))
        ids = data.draw(st.lists(st.integers(0, len(expected) - 1), min_size=1, max_size=9))
        for id, sample in zip(ids, dataset.__getitems__(ids), strict=True):
            assert sample.tolist() == expected[id].tolist()


def test_arrays_may_lie_at_another_place_in_every_file(tmp_path):
    """NeXus entries are named by their scans: each file is read where its own attributes lead."""
    for number in range(3):
        with h5py.File(tmp_path / f"{number}.nxs", "w") as file:
            data = file.create_group(f"scan_{number}/data")
            file.attrs["default"], file[f"scan_{number}"].attrs["default"] = (
                f"scan_{number}",
                "data",
            )
            data.attrs["signal"] = "counts"
            data["counts"] = numbers(4, (2,), start=1 + 100 * number)
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path, layout="nexus"))
    assert [dataset[id][0].item() for id in range(12)] == [
        1,
        3,
        5,
        7,
        101,
        103,
        105,
        107,
        201,
        203,
        205,
        207,
    ]


def test_an_images_full_resolution_and_labelled_images_are_read(tmp_path):
    """OME: level 0, whatever it is called. peaknet: images with their labels, by name."""
    group = zarr.create_group(tmp_path / "a.zarr")
    for name, data in (("full", numbers(3, (4, 4))), ("half", numbers(3, (2, 2)))):
        group.create_array(name, data=data)
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"datasets": [{"path": "full"}, {"path": "half"}]}],
    }
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path / "a.zarr", layout="ome"))
    assert np.array_equal(np.stack([dataset[id].numpy() for id in range(3)]), numbers(3, (4, 4)))
    write_hdf5(tmp_path / "p.h5", {"images": numbers(3, (2,)), "labels": numbers(3, (), "i8")})
    sample = FileCacheDataset(GlobalIndexManager(tmp_path / "p.h5", layout="peaknet"))[2]
    assert sample["images"].tolist() == [5, 6] and int(sample["labels"]) == 3


# -- sparse rows as they are


def _sparse_and_labels(folder):
    """Two files of three rows: the index of their matrices, by row and dense."""
    dense = np.array([[0, 5, 0, 7], [0, 0, 0, 0], [1, 0, 0, 0]], "f4")
    for name in ("a", "b"):
        path = folder / f"{name}.h5ad"
        _write_csr(path, dense * (1 if name == "a" else 10), kind="hdf5")
        with h5py.File(path, "r+") as file:
            file["obsm/X_pca"] = dense[:, :2]
    return GlobalIndexManager(folder, layout="anndata", key=("X", "obsm/X_pca")), dense


def test_a_sparse_row_is_its_indices_and_values(tmp_path):
    """One field alone or beside others; dense fields stay what they are."""
    manager, dense = _sparse_and_labels(tmp_path)
    alone = FileCacheDataset(manager, fields="X", sparse="row")
    for id in range(6):
        row = alone[id]
        assert type(row).__name__ == "SparseRow" and row.size == 4
        assert torch.equal(row.dense(), torch.from_numpy(dense[id % 3] * (1 if id < 3 else 10)))
    assert alone[0].indices.tolist() == [1, 3] and alone[0].values.tolist() == [5, 7]
    assert alone[1].indices.dtype == torch.int64 and len(alone[1].indices) == 0
    beside = FileCacheDataset(manager, sparse={"X": "row"})[3]
    assert beside["X"].values.tolist() == [50, 70] and beside["obsm/X_pca"].tolist() == [0, 5]
    assert FileCacheDataset(manager, sparse={"X": "dense"})[3]["X"].tolist() == [0, 50, 0, 70]


def test_a_sparse_row_that_is_given_twice_is_two_rows(tmp_path):
    """Writing to one changes neither the other nor what is read next."""
    manager, _ = _sparse_and_labels(tmp_path)
    dataset = FileCacheDataset(manager, fields="X", sparse="row")
    one, other = dataset.__getitems__([2, 2])
    one.values[:] = 99
    one.indices[:] = 3
    for row in (other, dataset[2]):
        assert (row.indices.tolist(), row.values.tolist()) == ([0], [1])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (
            {"sparse": "rows"},
            "sparse must be 'dense' or 'row', or a dict of these by field, got 'rows'",
        ),
        ({"sparse": {"X": None}}, "got None"),
        (
            {"sparse": {"Y": "row"}},
            "sparse names 'Y', which is no field of sparse rows; there is 'X'",
        ),
        (
            {"sparse": {"obsm/X_pca": "row"}},
            "sparse names 'obsm/X_pca', which is no field of sparse",
        ),
        ({"sparse": {"X": "row"}, "fields": "obsm/X_pca"}, "names 'X', .* there is none"),
        ({"sparse": "row", "decode": {"X": len}}, "decode takes the dense rows of 'X'"),
    ],
)
def test_what_cannot_be_given_sparse_is_refused(tmp_path, options, told):
    """One sentence that says what can."""
    manager, _ = _sparse_and_labels(tmp_path)
    with pytest.raises(ValueError, match=told):
        FileCacheDataset(manager, **options)


def test_windows_over_sparse_rows_are_dense(tmp_path):
    """A window of them is a tensor; of rows as they are it is refused."""
    _, dense = _sparse_and_labels(tmp_path)
    manager = GlobalIndexManager(tmp_path, layout="anndata", sequences="file", window=(0, 1))
    window = FileCacheDataset(manager)[1]
    assert torch.equal(window, torch.from_numpy(dense[1:]))
    with pytest.raises(ValueError, match=r"one row of 'X', and this index has windows.*'dense'"):
        FileCacheDataset(manager, sparse="row")


def test_sparse_rows_cost_the_memory_of_their_entries(tmp_path):
    """A row of a thousand million columns and two entries is some bytes, made nowhere dense."""
    width = 10**9
    with h5py.File(tmp_path / "a.h5ad", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": "csr_matrix", "shape": [2, width]})
        group["indptr"], group["data"] = np.array([0, 2, 2]), np.ones(2, "f8")
        group["indices"] = np.array([3, width - 1])
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path, layout="anndata"), sparse="row")
    full, empty = dataset.__getitems__([0, 1])
    assert full.indices.tolist() == [3, width - 1] and not len(empty.values)
