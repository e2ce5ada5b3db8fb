"""Functions that write small zarr and HDF5 files and start a Python, for tests that touch a disk."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from functools import partial

import h5py
import numpy as np
import zarr
from processes import clean_environment

from globidx import GlobalIndexManager
from globidx.disk.stores import base as stores


def numbers(length, item_shape=(3,), dtype="u2", start=1):
    """Items that differ from each other and from every fill value: ``start``, ``start + 1``, ... in C order."""
    count = length * int(np.prod(item_shape))
    return np.arange(start, start + count).reshape(length, *item_shape).astype(dtype)


def write_zarr(path, data, *, key=None, chunk=4, shard=None, axis=0, **options):
    """Write ``data`` as an array, or as ``key`` of a group; its first axis, that of the items, is stored as ``axis``."""
    arrays = {key or "": data} if not isinstance(data, dict) else data
    group = (
        None if "" in arrays else zarr.create_group(path, zarr_format=options.pop("zarr_format", 3))
    )
    for name, items in arrays.items():
        stored = np.moveaxis(items, 0, axis)
        sizes = {"chunks": chunk, "shards": shard}
        layout = {
            word: tuple(size if at == axis else max(1, n) for at, n in enumerate(stored.shape))
            for word, size in sizes.items()
            if size
        }
        settings = {
            "shape": stored.shape,
            "dtype": stored.dtype,
            "fill_value": 0,
            **layout,
            **options,
        }
        array = (
            group.create_array(name, **settings)
            if group is not None
            else zarr.create_array(path, **settings)
        )
        array[...] = stored
    return str(path)


def write_hdf5(path, data, *, key="x", chunk=None, axis=0, userblock=0, **options):
    """Write ``data`` as dataset ``key``, or several datasets by name; contiguous unless ``chunk`` is given."""
    arrays = {key: data} if not isinstance(data, dict) else data
    with h5py.File(path, "w", userblock_size=userblock) as file:
        for name, items in arrays.items():
            stored = np.moveaxis(items, 0, axis)
            chunks = None
            if chunk:
                chunks = tuple(
                    chunk if at == axis else max(1, n) for at, n in enumerate(stored.shape)
                )
            maxshape = tuple(None for _ in stored.shape) if chunk else None
            file.create_dataset(name, data=stored, chunks=chunks, maxshape=maxshape, **options)
    return str(path)


#: A manager to which a file that was written just now is at rest, as one of yesterday is.
settled_manager = partial(GlobalIndexManager, settled_after=0)


def run_python(code, *arguments, flags=(), check=True, env=None, **options):
    """Run ``code`` in a new Python that can import this repository and its tests."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *map(os.fspath, arguments)],
        **{"capture_output": True, "text": True, "timeout": 120} | options,
        check=check,
        env=environment(env),
    )


def environment(changes=None):
    """``clean_environment`` with ``changes``, a dict."""
    return clean_environment(**(changes or {}))


def open_descriptors():
    """The number of file descriptors that this process has open."""
    return len(os.listdir("/proc/self/fd"))


def watched_scans(monkeypatch):
    """The names of files that are opened to look inside, as they come."""
    real, seen = stores.scan, []

    def counted(path, layout, axis, *_):
        seen.append(os.path.basename(path))
        return real(path, layout, axis)

    monkeypatch.setattr(stores, "scan", counted)
    return seen


@contextmanager
def damaged(path, start=0, stop=None):
    """Bytes ``[start, stop)`` of a file are others, and nothing else tells so: its time of change is the same."""
    status, whole = os.stat(path), np.fromfile(path, np.uint8)
    wrong = whole.copy()
    wrong[start:stop] ^= 0xFF

    def put(data):
        with open(path, "r+b") as file:
            file.write(data.tobytes())
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    put(wrong)
    try:
        yield
    finally:
        put(whole)
