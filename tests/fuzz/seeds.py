"""Small files of every way that arrays are stored, for the fuzzer to damage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import zarr

ROWS, WIDTH = 24, 40


class Seed(NamedTuple):
    """``write(path)`` makes the store; its array is called ``x``."""

    name: str
    write: Callable[[Path], None]


def hdf5(name: str, libver: str = "earliest", userblock: int = 0, **options: object) -> Seed:
    """An HDF5 file with one dataset."""

    def write(path: Path) -> None:
        with h5py.File(path, "w", libver=libver, userblock_size=userblock) as file:
            file.create_dataset("x", data=data(), **options)

    return Seed(f"hdf5 {name}", write)


def zarr_store(name: str, **options: object) -> Seed:
    """A zarr group with one array."""

    def write(path: Path) -> None:
        group = zarr.create_group(path, zarr_format=options.get("zarr_format", 3))
        kept = {key: value for key, value in options.items() if key != "zarr_format"}
        group.create_array("x", data=data(), **kept)

    return Seed(f"zarr {name}", write)


def data() -> np.ndarray:
    """What all of them hold."""
    return np.random.default_rng(0).integers(1, 9, (ROWS, WIDTH)).astype("<i4")


SEEDS = [
    hdf5("contiguous"),
    hdf5("raw chunks", chunks=(4, WIDTH)),
    hdf5("gzip", chunks=(3, 16), compression="gzip", shuffle=True, fletcher32=True),
    hdf5("lzf", chunks=(3, 16), compression="lzf"),
    hdf5("fixed array", "latest", chunks=(4, 16), compression="gzip"),
    hdf5("extensible array", "latest", chunks=(4, 16), maxshape=(None, WIDTH)),
    hdf5(
        "extensible array, not first",
        "latest",
        chunks=(4, 16),
        maxshape=(ROWS, None),
        compression="gzip",
    ),
    hdf5("tree", "latest", chunks=(4, 16), maxshape=(None, None), userblock=512),
    zarr_store("2", zarr_format=2, chunks=(3, 16)),
    zarr_store("3", chunks=(3, 16)),
    zarr_store("shards", chunks=(3, 8), shards=(6, 16)),
    zarr_store("gzip", chunks=(3, 16), compressors=zarr.codecs.GzipCodec()),
]
