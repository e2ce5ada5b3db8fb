"""Datasets over small chunked files, for tests of reading."""

from __future__ import annotations

import numpy as np
from files import numbers, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager

LENGTH, SHAPE, CHUNK = 20, (3, 2), 4


def dataset_of(folder, write=write_zarr, *, files=2, options=None, **settings):
    """(dataset, data) of some files with 20 items each, in chunks of 4 unless said otherwise."""
    data = numbers(files * LENGTH, SHAPE)
    name = "{}.zarr" if write is write_zarr else "{}.h5"
    for number in range(files):
        part = data[number * LENGTH : (number + 1) * LENGTH]
        write(folder / name.format(number), part, **{"chunk": CHUNK, **(options or {})})
    return FileCacheDataset(GlobalIndexManager(folder), **settings), data


def data_bytes():
    """The bytes of an item."""
    return int(np.prod(SHAPE)) * 2
