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
