#!/usr/bin/env python3
"""Samples a second from a server on this machine that takes 30 or 100 ms a request, however many at a time.

    python tools/bench/remote.py [--quick] [--json FILE]

For each delay and chunk size: a full shuffle through ``globidx.DataLoader`` in one process, beside what the requests
that are allowed carry in the same run (the same chunks by the same requests, neither planned, decoded nor stacked; at
best requests / delay), and beside the same dataset read by zarr-python over fsspec
(``backend="library"``, how stores by URL were read before). Then a resume in mid-epoch on another world size, which
must lose and repeat nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from servers import Server

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.disk.remote.line import Line
from globidx.disk.remote.objects import Piece
from globidx.orders import ChunkShuffle

FILES = 4
BATCH = 8
#: Bytes of one array that are read in a measurement, at most.
BUDGET = 2**28
CLAIMS = {
    "a full shuffle is >= 50 x zarr-python over fsspec": ("times", 50),
    "a full shuffle is >= 0.8 of what the requests can carry": ("share", 0.8),
}


def write(folder: Path, kib: int, items: int) -> list[Path]:
    """Stores of one array, a sample of so many KiB a chunk."""
    side = int((kib * 512) ** 0.5)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(FILES):
        data = rng.integers(0, 2**16, (items // FILES, side, side), "u2")
        path = folder / f"{kib}/{number}.zarr"
        zarr.create_array(path, data=data, chunks=(1, side, side), compressors=None)
        paths.append(path)
    return paths


def rate(dataset: FileCacheDataset, order: object = None, steps: int | None = None) -> float:
    """Samples a second of an epoch, or of its first steps; samples are not stacked, which is no matter of distance."""
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=order)
    begun, count = time.perf_counter(), 0
    for batch in islice(DataLoader(dataset, BATCH, sampler=sampler, collate_fn=list), steps):
        count += len(batch)
    return count / (time.perf_counter() - begun)


def carried(urls: list[str], count: int) -> float:
    """Chunks a second of the requests alone, all of them at once."""
    line = Line()
    objects, _ = line.at(urls[0])
    keys = [line.at(url)[1] for url in urls]
    items = count // len(urls)
    pieces = [Piece(f"{key}/c/{item}/0/0") for item in range(items) for key in keys]
    objects.get_many(pieces[:64])
    begun = time.perf_counter()
    for start in range(64, len(pieces), 512):
        objects.get_many(pieces[start : start + 512])
    seconds = time.perf_counter() - begun
    line.close()
    return (len(pieces) - 64) / seconds


def resumed(urls: list[str]) -> bool:
    """Whether an epoch that is left after three batches and gone on with on two ranks has each sample once."""
    manager = GlobalIndexManager(urls)
    dataset = FileCacheDataset(manager, with_id=True)
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    seen = []
    for step, (_, ids) in enumerate(DataLoader(dataset, BATCH, sampler=sampler)):
        # the batch that the loop is left in is delivered again
        if step == 3:
            break
        seen += ids.tolist()
    record = sampler.state_dict()
    for rank in range(2):
        other = FileCacheDataset(manager, with_id=True)
        own = ResumableDistributedSampler(other, 2, rank, tail="exact")
        own.load_state_dict(record)
        seen += [id for _, ids in DataLoader(other, BATCH, sampler=own) for id in ids.tolist()]
    return sorted(seen) == list(range(len(dataset)))


def measure(server: Server, urls: list[str], delay: float, kib: int) -> dict[str, float]:
    """One row of the table."""
    server.delay(0)
    manager = GlobalIndexManager(urls)
    server.delay(delay)
    dataset = FileCacheDataset(manager)
    # connections are made, and all files opened
    dataset.__getitems__(list(range(0, len(dataset), len(dataset) // FILES)))
    server.take()
    full = rate(dataset)
    most = server.take()["most"]
    library = rate(FileCacheDataset(manager, backend="library"), steps=2)
    chunks = rate(FileCacheDataset(manager), ChunkShuffle())
    alone = carried(urls, len(dataset))
    best = dataset._reader.bounds.requests / delay
    return {
        "delay": delay,
        "kib": kib,
        "full": full,
        "chunks": chunks,
        "library": library,
        "times": full / library,
        "alone": alone,
        "best": full / best,
        "share": full / min(alone, best),
        "most": most,
        "mib": full * kib / 1024,
    }


def main() -> None:
    """Print the table and the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a small row, to see that it runs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    sizes = [64] if arguments.quick else [64, 512, 4096]
    delays = [0.03] if arguments.quick else [0.03, 0.1]
    rows = []
    with tempfile.TemporaryDirectory() as name, Server(name) as server:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        print(
            "delay ms | chunk KiB | full shuffle /s | requests alone /s | share | of 64 / delay | MiB/s | "
            "ChunkShuffle /s | zarr-python /s | times"
        )
        for kib in sizes:
            items = 256 if arguments.quick else min(4096, max(128, BUDGET // 1024 // kib))
            paths = write(Path(name), kib, items)
            urls = [f"{server.url}/{path.relative_to(name)}" for path in paths]
            for delay in delays:
                row = measure(server, urls, delay, kib)
                rows.append(row)
                print(
                    f"{delay * 1000:.0f} | {kib} | {row['full']:.0f} | {row['alone']:.0f} | {row['share']:.2f} | "
                    f"{row['best']:.2f} | {row['mib']:.0f} | "
                    f"{row['chunks']:.0f} | {row['library']:.1f} | {row['times']:.0f}",
                    flush=True,
                )
        exact = resumed(urls)
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, {rows[0]['most']} requests in flight at most"
    )
    claims = {
        claim: ("PASS" if min(row[figure] for row in rows) >= bar else "FAIL")
        + f" {min(row[figure] for row in rows):.2f} to {max(row[figure] for row in rows):.2f}"
        for claim, (figure, bar) in CLAIMS.items()
    }
    claims["a resume in mid-epoch on two ranks reads each sample once"] = (
        "PASS" if exact else "FAIL"
    )
    for claim, verdict in claims.items():
        print(f"{claim}: {verdict}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": rows, "claims": claims}, indent=1))


if __name__ == "__main__":
    main()
