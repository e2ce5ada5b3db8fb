"""What a dataset says of how it reads each kind of file."""

from __future__ import annotations

from files import numbers, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager

LENGTH, SHAPE, CHUNK = 20, (3, 2), 4


def test_explain_tells_which_way_and_why(tmp_path):
    """A line a kind of file and array, the cache, and the limit; libraries are named with the reason."""
    write_zarr(tmp_path / "a.zarr", numbers(8, SHAPE), key="x")
    write_hdf5(tmp_path / "b.h5", numbers(8, SHAPE), chunk=4, compression="lzf")
    write_hdf5(tmp_path / "c.h5", numbers(8, SHAPE))
    manager = GlobalIndexManager(tmp_path, key="x")
    said = FileCacheDataset(manager, cache_bytes=2**20, max_open_files=5).explain()
    assert (
        "x: read without zarr (zstd); 4 items a chunk of 0.046875 KiB, 21845 of them kept" in said
    )
    assert (
        "x: read by its library (filter lzf)" in said
        and "x: contiguous, read without HDF5; not chunked" in said
    )
    assert said.endswith("at most 5 files open, 1 MiB of decoded chunks kept")
    assert "(as asked)" in FileCacheDataset(manager, backend="library").explain()
    assert "too large to keep" in FileCacheDataset(manager, cache_bytes=10).explain()


def test_explain_says_of_a_strange_file_what_is_strange(tmp_path):
    """It raises over none."""
    write_zarr(tmp_path / "a.zarr", numbers(8))
    write_hdf5(tmp_path / "b.h5", numbers(8), key="y")
    dataset = FileCacheDataset(GlobalIndexManager(str(tmp_path / "a.zarr")))
    (tmp_path / "a.zarr/zarr.json").write_text("[]")
    assert "cannot be opened: " in dataset.explain()
