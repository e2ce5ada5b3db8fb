"""Shared by the tests of the command."""

import pytest
from files import numbers, write_hdf5, write_zarr


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of 3 and 4 items."""
    write_hdf5(tmp_path / "a.h5", numbers(3))
    write_zarr(tmp_path / "b.zarr", numbers(4), key="x")
    return tmp_path
