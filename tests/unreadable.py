"""Files in which two samples cannot be read, for tests of what stands in for them."""

from __future__ import annotations

from pathlib import Path

from files import numbers, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager

LENGTHS = (6, 8, 6)  # files a, b and c; ids 0..5, 6..13, 14..19; two items a chunk
BAD = [8, 9]


def write_files(folder):
    """Sample ``id`` is ``id + 1``; the chunk that holds samples 8 and 9 is gone."""
    start = 0
    for name, length in zip("abc", LENGTHS, strict=True):
        write_zarr(folder / f"{name}.zarr", numbers(length, (), "i8", start=start + 1), chunk=2)
        start += length
    Path(folder, "b.zarr", "c", "1").unlink()
    return folder


def opened(folder, **options):
    """A dataset over the files, which substitutes."""
    return FileCacheDataset(GlobalIndexManager(str(folder)), **{"on_error": "substitute"} | options)
