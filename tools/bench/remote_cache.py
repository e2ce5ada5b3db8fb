#!/usr/bin/env python3
"""The cache on local disk: epochs from it against local reading, and its cost by the number of entries.

``python tools/bench/remote_cache.py`` prints both tables; ``--entries 1000 10000`` sets the numbers
of entries, ``--megabytes`` how much data an epoch reads.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.local_cache.entry import Identity
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.objects import Found

sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

#: Items of 128 x 128 uint16.
SHAPE = (128, 128)
ROUNDS = 9
#: Epochs after which the cache is known to be filled, so that nothing is planned ahead.
FILLING = 10


def main(argv: Sequence[str] | None = None) -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, nargs="+", default=[10**3, 10**4, 10**5])
    parser.add_argument("--megabytes", type=int, default=64)
    arguments = parser.parse_args(argv)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    epochs(arguments.megabytes)
    slope(arguments.entries)


def epochs(megabytes: int) -> None:
    """An epoch from the filled cache against one of local files, in one run, by turns."""
    from servers import Server

    count = max(64, megabytes * 2**20 // (2 * SHAPE[0] * SHAPE[1]) // 64 * 64)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        kinds = list(write(base / "far", count))
        with Server(base / "far") as server:
            for kind, run in kinds:
                local = dataset(base / "far" / kind, base / "index")
                kept = dataset(f"{server.url}/{kind}", base / "far-index", base / "cache")
                for _ in range(FILLING):
                    epoch(kept, count, run)
                ratio, ours, theirs = compared(local, kept, count, run)
                print(
                    f"{kind:<14} runs of {run:>2}: local {theirs:5.1f} us of CPU an item, "
                    f"second epoch from the cache {ours:5.1f}: {ratio:.2f} of it"
                )
                kept.close()


def write(folder: Path, count: int) -> Iterator[tuple[str, int]]:
    """Files of noise that compresses by a half, in chunks of 2 or 16 items.

    Yields their names, and how many items that follow one another are read together.
    """
    folder.mkdir()
    data = np.random.default_rng(0).integers(0, 256, (count, *SHAPE)).astype("u2")
    for name, compressors in (("zstd", "auto"), ("raw", None)):
        for chunk in (2, 16):
            zarr.create_array(
                f"{folder}/{name}-{chunk}.zarr",
                data=data,
                chunks=(chunk, *SHAPE),
                compressors=compressors,
            )
            yield f"{name}-{chunk}.zarr", 16
    for name, options in (
        ("gzip-16.h5", {"chunks": (16, *SHAPE), "compression": "gzip", "compression_opts": 1}),
        ("contiguous.h5", {}),
    ):
        with h5py.File(folder / name, "w") as file:
            file.create_dataset("x", data=data, **options)
        yield name, 16
    yield "contiguous.h5", 1


def dataset(files: object, index: Path, cache: Path | None = None) -> FileCacheDataset:
    """A dataset that keeps no decoded chunk between batches."""
    manager = GlobalIndexManager(str(files), cache_dir=index)
    kept = {} if cache is None else {"local_cache": cache, "local_bytes": 2**32}
    return FileCacheDataset(manager, cache_bytes=2**24, **kept)


def epoch(samples: FileCacheDataset, count: int, run: int, seed: int = 0) -> float:
    """CPU seconds of an epoch in batches of 64: runs of items in any order."""
    runs = np.random.default_rng(seed).permutation(count // run)
    ids = (runs[:, None] * run + np.arange(run)).reshape(-1).tolist()
    # nothing is waited for, and others may be at work on this machine
    start = time.process_time()
    for first in range(0, count, 64):
        samples.__getitems__(ids[first : first + 64])
    return time.process_time() - start


def compared(
    local: FileCacheDataset, kept: FileCacheDataset, count: int, run: int
) -> tuple[float, float, float]:
    """The median ratio of two epochs that follow one another; microseconds an item of both."""
    epoch(local, count, run)
    pairs = [
        (epoch(local, count, run, seed), epoch(kept, count, run, seed))
        for seed in range(1, ROUNDS + 1)
    ]
    ratio = statistics.median(one / other for one, other in pairs)
    theirs, ours = (min(seconds) / count * 1e6 for seconds in zip(*pairs, strict=True))
    return ratio, ours, theirs


def slope(numbers: Sequence[int]) -> None:
    """Look-up, hit, put and eviction by the number of entries, of 1 KiB each."""
    for number in numbers:
        with tempfile.TemporaryDirectory() as folder:
            print(f"{number:>8} entries:", ", ".join(costs(Path(folder) / "cache", number)))


def costs(folder: Path, number: int) -> Iterator[str]:
    """What each costs, in microseconds."""
    found = Found(os.urandom(1024), 1024, '"etag"')
    cache = LocalCache(folder, number * 4096)
    some = random.sample(range(number), min(1000, number))
    yield f"put {each(lambda at: cache.put(chunk(at), found), range(number)):.0f} us"
    yield f"hit {each(lambda at: cache.get(chunk(at)), some):.0f}"
    yield f"miss {each(lambda at: cache.get(chunk(-at - 1)), some):.0f}"
    seconds = []
    # as many as one look at all entries serves, so that it is in the mean as often as it happens
    for at in range(number, number + number // 8):
        begun = time.perf_counter()
        cache.put(chunk(at), found)
        seconds.append(time.perf_counter() - begun)
    yield f"put that evicts {statistics.fmean(seconds) * 1e6:.0f} (median {statistics.median(seconds) * 1e6:.0f})"
    yield f"longest {max(seconds) * 1e3:.0f} ms"
    shutil.rmtree(folder)


def chunk(at: int) -> Identity:
    return Identity("https://host/a.zarr", f"c/{at}")


def each(function: Callable[[int], object], numbers: Sequence[int]) -> float:
    """Microseconds of a call."""
    start = time.perf_counter()
    for number in numbers:
        function(number)
    return (time.perf_counter() - start) / len(numbers) * 1e6


if __name__ == "__main__":
    main()
