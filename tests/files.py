"""Makers of small zarr and HDF5 files, and a Python of one's own, for the tests of what touches a disk."""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import zarr
from processes import REPOSITORY, clean_environment  # noqa: F401 - tests look for the first here


def numbers(length, item_shape=(3,), dtype="u2", start=1):
    """Items that differ from each other and from every fill value: ``start``, ``start + 1``, ... in C order."""
    count = length * int(np.prod(item_shape))
    return np.arange(start, start + count).reshape(length, *item_shape).astype(dtype)


def write_zarr(path, data, *, key=None, chunk=4, shard=None, axis=0, **options):
    """A store with ``data``, item axis first here, at ``axis`` there: a bare array, or a group that holds ``key``."""
    arrays = {key or "": data} if not isinstance(data, dict) else data
    group = None if "" in arrays else zarr.create_group(path, zarr_format=options.pop("zarr_format", 3))
    for name, items in arrays.items():
        stored = np.moveaxis(items, 0, axis)
        sizes = {"chunks": chunk, "shards": shard}
        layout = {
            word: tuple(size if place == axis else max(1, n) for place, n in enumerate(stored.shape))
            for word, size in sizes.items()
            if size
        }
        settings = {"shape": stored.shape, "dtype": stored.dtype, "fill_value": 0, **layout, **options}
        array = group.create_array(name, **settings) if group is not None else zarr.create_array(path, **settings)
        array[...] = stored
    return str(path)


def write_hdf5(path, data, *, key="x", chunk=None, axis=0, userblock=0, **options):
    """A file with ``data`` in dataset ``key``, or several datasets by name; contiguous unless ``chunk`` is given."""
    arrays = {key: data} if not isinstance(data, dict) else data
    with h5py.File(path, "w", userblock_size=userblock) as file:
        for name, items in arrays.items():
            stored = np.moveaxis(items, 0, axis)
            chunks = None
            if chunk:
                chunks = tuple(chunk if place == axis else max(1, n) for place, n in enumerate(stored.shape))
            maxshape = tuple(None for _ in stored.shape) if chunk else None
            file.create_dataset(name, data=stored, chunks=chunks, maxshape=maxshape, **options)
    return str(path)


def run_python(code, *arguments, flags=(), check=True, env=None, **options):
    """Run ``code`` in a Python of its own, with this repository and its tests importable."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *map(os.fspath, arguments)],
        **{"capture_output": True, "text": True, "timeout": 120} | options,
        check=check,
        env=environment(env),
    )


def environment(changes=None):
    """``clean_environment`` with ``changes`` as a dict."""
    return clean_environment(**(changes or {}))


def open_descriptors():
    """How many file descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
