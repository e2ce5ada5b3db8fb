"""A FIFO in a zarr store is never waited for."""

from __future__ import annotations

import os

import pytest
from files import numbers, run_python, write_zarr


@pytest.mark.parametrize("key", ["g/x", None])
@pytest.mark.parametrize("node", ["", "g", "g/x", "other"])
@pytest.mark.parametrize("marker", ["zarr.json", ".zarray", ".zattrs"])
def test_no_metadata_of_a_zarr_store_is_waited_for(tmp_path, key, node, marker):
    """Wherever zarr would open it, in a process that would be killed while it waited."""
    write_zarr(tmp_path / "a.zarr", numbers(3), key="g/x")
    (tmp_path / "a.zarr/other").mkdir()
    (tmp_path / "a.zarr/.zgroup").write_text('{"zarr_format": 2}')
    pipe = tmp_path / "a.zarr" / node / marker
    pipe.unlink(missing_ok=True)
    os.mkfifo(pipe)
    told = run_python(_INDEXED, tmp_path / "a.zarr", key or "", timeout=60).stdout
    # zarr looks neither beside the key, nor for metadata of format 2 where there is that of format 3
    assert "is no regular file; it is not opened" in told or told == "3\n", told


@pytest.mark.parametrize("backend", ["auto", "library"])
def test_no_chunk_of_a_zarr_store_is_waited_for(tmp_path, backend):
    """Where missing ones are filled in, neither."""
    write_zarr(tmp_path / "a.zarr", numbers(3), chunk=3)
    (tmp_path / "a.zarr/c/0/0").unlink()
    os.mkfifo(tmp_path / "a.zarr/c/0/0")
    code = """
import sys
from globidx import FileCacheDataset, GlobalIndexManager
for missing in ("error", "fill"):
    try:
        print(FileCacheDataset(GlobalIndexManager(sys.argv[1]), on_missing=missing, backend=sys.argv[2])[0])
    except OSError as error:
        print(error)
"""
    told = run_python(code, tmp_path / "a.zarr", backend, timeout=60).stdout.splitlines()
    assert len(told) == 2 and "is not in the store" in told[0] and "is no regular file" in told[1]


_INDEXED = """
import sys
from globidx import GlobalIndexManager
path, key = sys.argv[1:]
try:
    print(len(GlobalIndexManager(path, key=key or None)))
except ValueError as error:
    print(error)
"""
