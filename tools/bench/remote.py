#!/usr/bin/env python3
"""Samples a second from a server on this machine that takes 30 or 100 ms a request, however many at a time.

    python tools/bench/remote.py [--server plain|moto] [--limits] [--quick] [--kib 64 512 4096] [--delays 30 100]
        [--json FILE]

For each delay and chunk size: a full shuffle through ``globidx.DataLoader`` in one process, beside what the requests
that are allowed carry in the same run (the same chunks by the same requests, neither planned, decoded nor stacked; at
best requests / delay), and beside the same dataset read by zarr-python over fsspec
(``backend="library"``, how stores by URL were read before; of S3 with ``s3fs`` only). "Line" is what sockets of this
machine carry without a protocol. Then a resume in mid-epoch on another world size, which must lose and repeat nothing.

``--server moto`` is moto's server of S3, which takes several milliseconds of CPU a request. ``--limits`` shows what
carries how much, at which cost of CPU here and in the server: sockets, obstore, requests, dataset.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from measure import missing, table
from remote_limits import by_requests, limits, loopback
from remote_servers import BUCKET, Moto, Plain

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.disk.remote.line import Line
from globidx.disk.remote.retries import PREFETCH_BYTES
from globidx.orders import ChunkShuffle

FILES = 4
BATCH = 8
#: Bytes of one array that are read in a measurement, at most.
BUDGET = 2**30
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


def chunks(urls: list[str], items: int) -> list[str]:
    """The URLs of all chunks, those of the stores in turn."""
    return [f"{url}/c/{item}/0/0" for item in range(items // FILES) for url in urls]


def batches(dataset: FileCacheDataset, order: object = None) -> Iterable[Any]:
    """An epoch, whose samples are not stacked, which is no matter of distance."""
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=order)
    return DataLoader(dataset, BATCH, sampler=sampler, collate_fn=list)


def rate(dataset: FileCacheDataset, order: object = None, steps: int | None = None) -> float:
    """Samples a second of an epoch, or of its first steps."""
    begun = time.perf_counter()
    count = sum(map(len, islice(batches(dataset, order), steps)))
    return count / (time.perf_counter() - begun)


def carried(urls: list[str], options: dict[str, str] | None) -> float:
    """Chunks a second of the requests alone, all of them at once, after connections are made."""
    line = Line(options=options)
    by_requests(urls[:64], line)
    begun = time.perf_counter()
    count = by_requests(urls[64:], line)
    seconds = time.perf_counter() - begun
    line.close()
    return count / seconds


def resumed(urls: list[str], options: dict[str, str] | None) -> bool:
    """Whether an epoch that is left after three batches and gone on with on two ranks has each sample once."""
    manager = GlobalIndexManager(urls, storage_options=options)
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


def opened(server: Plain | Moto, urls: list[str], delay: float) -> FileCacheDataset:
    """A dataset whose connections are made and whose files are open, and a server that is slow from now on."""
    server.delay(0)
    dataset = FileCacheDataset(GlobalIndexManager(urls, storage_options=server.options))
    server.delay(delay)
    dataset.__getitems__(list(range(0, len(dataset), len(dataset) // FILES)))
    server.take()
    return dataset


def measure(
    server: Plain | Moto, urls: list[str], delay: float, kib: int, line: float
) -> dict[str, float | None]:
    """One row of the table."""
    dataset = opened(server, urls, delay)
    full = rate(dataset)
    most = server.take()["most"]
    library = None
    if server.options is None or not missing(["s3fs"]):
        library = rate(FileCacheDataset(dataset.index_manager, backend="library"), steps=2)
    windows = rate(FileCacheDataset(dataset.index_manager), ChunkShuffle())
    alone = carried(chunks(urls, len(dataset)), server.options)
    best = dataset._reader.bounds.requests / delay
    return {
        "delay": delay,
        "kib": kib,
        "full": full,
        "chunks": windows,
        "library": library,
        "times": library and full / library,
        "alone": alone,
        "best": full / best,
        "share": full / min(alone, best),
        "most": most,
        "mib": full * kib / 1024,
        "line": full * kib / 1024 / line,
        # what the first claim asks of the line
        "asked": library and 50 * library * kib / 1024 / line,
    }


HEAD = (
    "delay ms | chunk KiB | full shuffle /s | requests alone /s | share | of 64 / delay | MiB/s | "
    "of the line | ChunkShuffle /s | zarr-python /s | times"
)


def told(row: dict[str, Any]) -> str:
    """A row as it is printed."""
    library, times = (
        ("-", "-") if row["library"] is None else (f"{row['library']:.1f}", f"{row['times']:.0f}")
    )
    return (
        f"{row['delay'] * 1000:.0f} | {row['kib']} | {row['full']:.0f} | {row['alone']:.0f} | {row['share']:.2f} | "
        f"{row['best']:.2f} | {row['mib']:.0f} | {row['line']:.2f} | {row['chunks']:.0f} | {library} | {times}"
    )


def verdicts(rows: list[dict[str, Any]]) -> dict[str, str]:
    """What the rows say of each claim, and where the line cannot carry what it asks for."""
    claims = {}
    for claim, (figure, bar) in CLAIMS.items():
        values = [row[figure] for row in rows if row[figure] is not None]
        if values:
            verdict = "PASS" if min(values) >= bar else "FAIL"
            claims[claim] = f"{verdict} {min(values):.2f} to {max(values):.2f}"
    for row in rows:
        if row["asked"] and row["asked"] > 0.5:
            case = f"{row['kib']} KiB, {row['delay'] * 1000:.0f} ms"
            claims[f"50 x of {case}, of what the line carries"] = f"{row['asked']:.2f}"
    return claims


def tell_limits(server: Plain, urls: list[str], delay: float, kib: int, rounds: int) -> None:
    """Print the table of what carries how much."""
    dataset = opened(server, urls, delay)

    def epoch(most: int) -> int:
        ahead = FileCacheDataset(dataset.index_manager, prefetch_bytes=most)
        return sum(map(len, batches(ahead)))

    datasets = {
        "dataset": partial(epoch, PREFETCH_BYTES),
        "dataset, 4 x ahead": partial(epoch, 4 * PREFETCH_BYTES),
    }
    found = limits(chunks(urls, len(dataset)), kib, server._process.pid, datasets, rounds)
    line = found["loopback"].rate
    head = ["", "chunks/s", "MiB/s", "of loopback", "CPU s/GiB here", "in the server"]
    rows = [[f"{kib} KiB, {delay * 1000:.0f} ms".ljust(16), *head[1:]]]
    for name, one in found.items():
        gib = 2**20 / kib
        cpus = [f"{one.client * gib:.2f}", f"{one.server * gib:.2f}"]
        carried = [f"{one.rate:.0f}", f"{one.rate * kib / 1024:.0f}", f"{one.rate / line:.2f}"]
        rows.append([name, *carried, *cpus])
    print(table(rows) + "\n", flush=True)


def read_options() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", choices=["plain", "moto"], default="plain")
    parser.add_argument("--limits", action="store_true", help="what carries how much, instead")
    parser.add_argument("--quick", action="store_true", help="a small row, to see that it runs")
    parser.add_argument("--kib", type=int, nargs="+", default=[64, 512, 4096], help="of a chunk")
    parser.add_argument("--delays", type=int, nargs="+", default=[30, 100], help="in ms")
    parser.add_argument("--rounds", type=int, default=3, help="a limit is the best of so many")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.limits and options.server != "plain":
        parser.error("--limits asks the plain server")
    if options.quick:
        options.kib, options.delays, options.rounds = [64], [30], 1
    return options


def load() -> str:
    """How busy this machine is."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs"


def served(server: Plain | Moto, kib: int, options: argparse.Namespace) -> list[str]:
    """The URLs of stores with chunks of so many KiB."""
    items = 256 if options.quick else min(4096, BUDGET // 1024 // kib)
    paths = write(Path(server.folder) / BUCKET, kib, items)
    server.hold(Path(server.folder) / BUCKET / str(kib))
    return [server.url_of(path) for path in paths]


def tell_rows(server: Plain | Moto, options: argparse.Namespace) -> None:
    """Print the table and the verdicts."""
    rows: list[dict[str, Any]] = []
    for kib in options.kib:
        urls = served(server, kib, options)
        line = loopback(kib, min(4096, BUDGET // 1024 // kib)).rate * kib / 1024
        print(f"line: {line:.0f} MiB/s in pieces of {kib} KiB\n{HEAD}")
        for delay in options.delays:
            rows.append(measure(server, urls, delay / 1000, kib, line))
            print(told(rows[-1]), flush=True)
    claims = verdicts(rows)
    claims["a resume in mid-epoch on two ranks reads each sample once"] = (
        "PASS" if resumed(urls, server.options) else "FAIL"
    )
    print(f"{load()}, server {options.server}, {rows[0]['most']} requests in flight at most")
    for claim, verdict in claims.items():
        print(f"{claim}: {verdict}")
    if options.json:
        options.json.write_text(json.dumps({"rows": rows, "claims": claims}, indent=1))


def main() -> None:
    """Serve, and show the limits or the rows."""
    options = read_options()
    made = {"plain": Plain, "moto": Moto}[options.server]
    with tempfile.TemporaryDirectory() as name, made(name) as server:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        if options.limits:
            for kib in options.kib:
                urls = served(server, kib, options)
                for delay in options.delays:
                    tell_limits(server, urls, delay / 1000, kib, options.rounds)
            print(load())
        else:
            tell_rows(server, options)


if __name__ == "__main__":
    main()
