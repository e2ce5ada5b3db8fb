"""What an item costs as files get more chunks: one random item at a time, beside the store's own library.

usage: slope.py [STORE ...] [--most CHUNKS]

A line for each number of chunks, from 1,000 on, ten times as many each: microseconds of this process's own time (other
work on the machine does not count) until the first item is there, the files indexed and all modules imported, and for
each later one in batches. What does not grow with the number of chunks is flat.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ITEMS, BATCH = 2048, 32
WIDTH = 64


class Store(NamedTuple):
    """A way to store one item a chunk: ``write(path, chunks)``, and ``library(path)``, an open array ``x`` of it."""

    suffix: str
    write: Callable[[Path, int], None]
    library: Callable[[Path], Any]


def _write_hdf5(path: Path, chunks: int, **options: Any) -> None:
    import h5py

    shape = (chunks, WIDTH)
    with h5py.File(path, "w", libver=options.pop("libver", "earliest")) as file:
        made = file.create_dataset(
            "x", shape, "u1", chunks=(1, WIDTH), maxshape=(None, WIDTH), **options
        )
        raw = bytes(range(WIDTH))
        stored = zlib.compress(raw, 1) if options else raw
        for row in range(chunks):
            made.id.write_direct_chunk((row, 0), stored)


def _open_hdf5(path: Path) -> Any:
    import h5py

    return h5py.File(path)["x"]


def _write_zarr(path: Path, chunks: int, **options: Any) -> None:
    """Metadata by zarr, chunks by hand: writing a million of them by zarr takes half an hour."""
    import google_crc32c
    import zarr

    shutil.rmtree(path, ignore_errors=True)
    options = {"compressors": None, "fill_value": 0, "dtype": "u1", "chunks": (1, WIDTH), **options}
    zarr.create_group(path, zarr_format=options.get("zarr_format", 3))
    shards = min(chunks, 10**6)
    if options.pop("sharded", False):
        options["shards"] = (shards, WIDTH)
    array = zarr.create_array(path, name="x", shape=(chunks, WIDTH), **options)
    raw = bytes(range(WIDTH))
    if array.shards:
        index = (
            np.stack([np.arange(shards) * WIDTH, np.full(shards, WIDTH)], 1).astype("<u8").tobytes()
        )
        stored = raw * shards + index + google_crc32c.value(index).to_bytes(4, "little")
        keys = [array.metadata.encode_chunk_key((row, 0)) for row in range(chunks // shards)]
    else:
        stored = raw
        keys = [array.metadata.encode_chunk_key((row, 0)) for row in range(chunks)]
    for key in keys:
        file = path / "x" / key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(stored)


def _open_zarr(path: Path) -> Any:
    import zarr

    return zarr.open_array(path, path="x", mode="r")


#: By name; a store that is added here is measured and held to be flat as the others are.
STORES = {
    "hdf5": Store(".h5", _write_hdf5, _open_hdf5),
    "hdf5-gzip": Store(".h5", lambda path, n: _write_hdf5(path, n, compression="gzip"), _open_hdf5),
    "hdf5-latest": Store(".h5", lambda path, n: _write_hdf5(path, n, libver="latest"), _open_hdf5),
    "zarr2": Store(".zarr", lambda path, n: _write_zarr(path, n, zarr_format=2), _open_zarr),
    "zarr3": Store(".zarr", _write_zarr, _open_zarr),
    "zarr3-shards": Store(".zarr", lambda path, n: _write_zarr(path, n, sharded=True), _open_zarr),
}


def measure(store: Store, path: Path, how: str) -> tuple[float, float]:
    """Microseconds to the first item, of an index that is there, and for each later one."""
    small = path.with_name(f"small{path.suffix}")
    if how == "globidx":
        import globidx

        def opened(path: Path) -> Any:
            return globidx.FileCacheDataset(
                globidx.GlobalIndexManager(path, key="x", cache_dir=path.parent)
            )

    else:
        opened = store.library
    store.write(small, 1)
    # imports everything
    opened(small)[0]
    array = opened(path)
    count = len(array) if how == "globidx" else array.shape[0]
    started = time.process_time()
    array[count // 2]
    first = time.process_time() - started
    items = np.random.default_rng(0).integers(0, count, (ITEMS // BATCH, BATCH)).tolist()
    started = time.process_time()
    for batch in items:
        if how == "globidx":
            array.__getitems__(batch)
        else:
            for item in batch:
                array[item]
    return 1e6 * first, 1e6 * (time.process_time() - started) / ITEMS


def main(arguments: list[str] | None = None) -> None:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="*", default=sorted(STORES), metavar="STORE")
    parser.add_argument("--most", type=int, default=10**6, help="chunks of the largest file")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        print(*measure(STORES[given.stores[0]], Path(given.one[0]), given.one[1]))
        return
    for name in given.stores:
        chunks = 1000
        while chunks <= given.most:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"a{STORES[name].suffix}"
                STORES[name].write(path, chunks)
                for how in ("globidx", "library"):
                    command = [sys.executable, __file__, name, "--one", str(path), how]
                    told = subprocess.run(
                        command, capture_output=True, text=True, check=True
                    ).stdout.split()
                    first, later = map(float, told)
                    print(
                        f"{name:12} {chunks:>8} chunks  {how:8} first {first:>10.0f} us  then {later:>7.1f} us an item"
                    )
            chunks *= 10


if __name__ == "__main__":
    main()
