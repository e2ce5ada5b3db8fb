"""Filters of HDF5 datasets: loaded, or named with what to install."""

from __future__ import annotations

import pytest
from files import run_python


@pytest.mark.parametrize("name", ["bitshuffle", "unknown"])
def test_a_filter_is_loaded_or_named_when_indexing(tmp_path, name):
    """By hdf5plugin where it is there, in the process that reads; else its number, its name, and what to install."""
    write = (
        "import h5py, hdf5plugin, numpy as np, sys\n"
        "with h5py.File(sys.argv[1], 'w') as file:\n"
        "    file.create_dataset('x', data=np.arange(64).reshape(8, 8), chunks=(1, 8), **hdf5plugin.Bitshuffle())"
    )
    pytest.importorskip("hdf5plugin")
    run_python(write, tmp_path / "a.h5")
    read = "from globidx import *; m = GlobalIndexManager(sys.argv[1], key='x'); print(FileCacheDataset(m)[1].tolist())"
    if name == "bitshuffle":
        assert run_python(f"import sys; {read}", tmp_path / "a.h5").stdout.strip() == str(
            list(range(8, 16))
        )
    else:
        hidden = "import sys; sys.modules['hdf5plugin'] = None"
        told = run_python(f"{hidden}; {read}", tmp_path / "a.h5", check=False).stderr
        assert (
            "dataset 'x' was written with filter 32008 (bitshuffle" in told
            and "pip install hdf5plugin" in told
        )
