"""MATLAB's files of version 7.3: each array is what hdf5storage loads, axes reversed as HDF5 has them."""

import h5py
import numpy as np
import pytest
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager

hdf5storage = pytest.importorskip("hdf5storage")

DTYPES = ["f8", "f4", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "c16", "c8", "?"]
TRIALS = 13


@pytest.fixture(scope="module")
def mat(tmp_path_factory):
    """A file with a matrix of each dtype whose rows are trials, a cube, text, a struct, a cell array."""
    rng = np.random.default_rng(0)
    path = str(tmp_path_factory.mktemp("mat") / "trials.mat")
    saved = {}
    for dtype in DTYPES:
        values = rng.normal(size=(TRIALS, 3)) * 50
        if dtype.startswith("c"):
            values = values + 1j * rng.normal(size=(TRIALS, 3))
        name = f"of_{dtype}".replace("?", "bool")
        saved[name] = values.astype(dtype) if dtype != "?" else values > 0
    saved["cube"] = rng.normal(size=(TRIALS, 4, 2))
    saved["subject"] = {"weights": rng.normal(size=(TRIALS, 2)), "age": 31.0}
    saved["label"] = "ein Wört"
    saved["cells"] = np.array(["a", "bc"], object)
    hdf5storage.savemat(path, saved, format="7.3", store_python_metadata=False)
    return path


def load(path, name):
    """What hdf5storage itself loads."""
    return hdf5storage.loadmat(path, variable_names=[name])[name]


def opened(path, cache_dir, key, **options):
    return FileCacheDataset(GlobalIndexManager(path, key=key, cache_dir=cache_dir, **options))


def test_a_mat_file_has_a_user_block(mat):
    """So that these tests try what they are for."""
    with h5py.File(mat) as file:
        assert file.userblock_size == 512


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_of_a_matrix_are_matlabs(mat, tmp_path, dtype):
    """MATLAB's first axis is HDF5's last one: ``axis=-1``. A logical is a byte."""
    name = f"of_{dtype}".replace("?", "bool")
    loaded = load(mat, name)
    assert loaded.dtype == dtype and loaded.shape == (TRIALS, 3)
    expected = loaded.astype("u1") if dtype == "?" else loaded
    assert_all_same(opened(mat, tmp_path, name, axis=-1), [*expected])


def test_columns_are_rows_without_an_axis(mat, tmp_path):
    """Left alone, the first axis of HDF5 is the last of MATLAB's."""
    assert_all_same(opened(mat, tmp_path, "of_c16"), [*load(mat, "of_c16").T])


def test_a_cube_has_its_other_axes_reversed(mat, tmp_path):
    """A sample's axes stay as they are in the file: (2, 4) for MATLAB's (4, 2)."""
    expected = [page.T for page in load(mat, "cube")]
    assert_all_same(opened(mat, tmp_path, "cube", axis=-1), expected)


def test_fields_of_a_struct_are_arrays_in_a_group(mat, tmp_path):
    """Beside a matrix of the file, each with its name."""
    (weights,) = load(mat, "subject")["weights"]
    other = load(mat, "of_f4")
    key = {"subject/weights": "subject/weights", "x": "of_f4"}
    expected = [{"subject": {"weights": weights[row]}, "x": other[row]} for row in range(TRIALS)]
    assert_all_same(opened(mat, tmp_path, key, axis=-1), expected)


def test_text_is_its_code_units(mat, tmp_path):
    """MATLAB keeps text as UTF-16: all of it is a sample, of which a line makes text."""
    dataset = opened(mat, tmp_path, "label", sequences="file", window="all")
    assert dataset.dtypes["label"] in ("uint16", "any") and len(dataset) == 1
    assert dataset[0].numpy().tobytes().decode("utf-16-le") == str(np.squeeze(load(mat, "label")))


def test_cells_are_refused_by_name(mat, tmp_path):
    """They are references into a hidden group; the matrices beside them are read."""
    with pytest.raises(ValueError, match="'cells' has dtype reference"):
        opened(mat, tmp_path, "cells")
