#!/usr/bin/env python3
"""A full shuffle by URL with room for a part of the decoded chunks: seconds, and requests for each chunk.

    python tools/bench/remote_room.py [--quick] [--chunks 256] [--delay 80] [--json FILE]

Chunks of 16 samples in batches of 16, from a server on this machine that takes so many ms a request. A chunk is wanted
by 16 batches of an epoch. Without room, what is ahead is kept as it came, in ``prefetch_bytes``; with room for all,
each chunk is fetched and decoded once. Between them a chunk that was decoded when a batch was planned may be dropped
before that batch is read: it has to be fetched once more, and ought not to be waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measure import table
from remote_servers import BUCKET, Plain

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler

FILES, SAMPLES, ITEM = 2, 16, 500
#: The parts of all decoded chunks for which there is room.
PARTS = [0, 0.1, 0.25, 0.5, 0.75, 1.5]


def write(folder: Path, chunks: int) -> list[Path]:
    """Stores that hold so many chunks of 16 KB, a sample of 1 kB."""
    rng, paths = np.random.default_rng(0), []
    for number in range(FILES):
        data = rng.integers(0, 2**16, (chunks // FILES * SAMPLES, ITEM), "u2")
        path = folder / f"{number}.zarr"
        zarr.create_array(path, data=data, chunks=(SAMPLES, ITEM), compressors=None)
        paths.append(path)
    return paths


def epoch(
    server: Plain, manager: GlobalIndexManager, delay: float, part: float, seed: int
) -> dict[str, Any]:
    """An epoch with room for a part of all chunks: seconds, requests for chunks, and chunks."""
    server.delay(0)
    room = int(part * len(manager) * ITEM * 2)
    dataset = FileCacheDataset(manager, cache_bytes=room)
    dataset.__getitems__([0, len(dataset) - 1])
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=seed)
    loader = DataLoader(dataset, SAMPLES, sampler=sampler)
    server.delay(delay)
    server.take()
    begun = time.perf_counter()
    count = sum(map(len, loader))
    seconds = time.perf_counter() - begun
    assert count == len(dataset)
    asked = [path for _, path, _ in server.take()["asked"] if "/c/" in path]
    dataset.close()
    return {"part": part, "seconds": seconds, "requests": len(asked)}


def main() -> None:
    """Serve, read some epochs for each part, and print the median."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small, to see that it runs")
    parser.add_argument("--chunks", type=int, default=256)
    parser.add_argument("--delay", type=int, default=80, help="of a request, in ms")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    seeds = range(3)
    if options.quick:
        options.chunks, options.delay, seeds = 16, 5, range(1)
    rows = []
    with tempfile.TemporaryDirectory() as scratch, Plain(scratch) as server:
        paths = write(Path(scratch) / BUCKET, options.chunks)
        manager = GlobalIndexManager([server.url_of(path) for path in paths], cache_dir=scratch)
        for part in PARTS:
            found = [epoch(server, manager, options.delay / 1000, part, seed) for seed in seeds]
            rows.append(sorted(found, key=lambda row: row["seconds"])[len(found) // 2])
    cells = [["room for", "seconds", "requests a chunk"]]
    for row in rows:
        a_chunk = row["requests"] / options.chunks
        cells.append([f"{row['part']:g} of it", f"{row['seconds']:.2f}", f"{a_chunk:.2f}"])
    print(table(cells) + f"\n\nload {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
