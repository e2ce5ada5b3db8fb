#!/usr/bin/env python3
"""Other libraries' own streaming over the same slow server, beside ours: what arrives, and what is fetched for it.

    python tools/bench/remote_peers.py [--server plain|moto] [--quick] [--kib 64 512 4096] [--delays 30 100]
        [--workers 0 2] [--repeats 2] [--seconds 20] [--items 2048] [--json FILE]

Items of 64 KiB of noise, 1, 8 and 64 in a chunk: zarr without a codec for ours, converted copies with as many items in
a chunk or shard for litdata and Mosaic's streaming, all in one bucket of one server, asked by the API of S3. Each reads
an epoch of its own default shuffle through its own loader, in a fresh process that has nothing cached. Who needs more
than some seconds is left in mid-epoch; a peer that ends with an error has a row that says so. Those that cannot be
imported sit out: Mosaic's streaming asks for an old numpy, so run it once more in an environment that has it.

* start: until the loader can be asked: the index of ours, their tables of chunks;
* first batch: from then to the first batch;
* items/s: of the whole epoch, the first batch and the start of workers included;
* requests: for each chunk or shard that was fetched;
* fetched: bytes for each byte that was asked for once.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from importlib import import_module
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from measure import fresh_process, missing, table
from remote_servers import BUCKET, OPTIONS, Moto, Plain, Traffic

SHAPE, FILES, BATCH = (256, 128), 4, 64
#: KiB of an item.
ITEM = 64
NEEDS = {"litdata": ["litdata"], "mosaic": ["streaming"]}
#: What is loaded before the clock starts.
OURS = ["globidx", "torch", "zarr", "h5py", "obstore", "s3fs"]
Loader = Iterable[Any]


# -- what is read


def images(number: int, count: int) -> np.ndarray:
    """Items of one file: noise, which no codec makes smaller."""
    return np.random.default_rng(number).integers(0, 2**16, (count, *SHAPE), "u2")


def write(folder: Path, items: int, chunk: int) -> None:
    """Four stores with so many items in a chunk."""
    import zarr

    for number in range(FILES):
        data = images(number, items // FILES)
        path = folder / f"{number}.zarr"
        zarr.create_array(path, data=data, chunks=(chunk, *SHAPE), compressors=None)


def write_litdata(folder: Path, items: int, chunk: int) -> None:
    """Chunks of so many items."""
    from litdata.streaming.writer import BinaryWriter

    writer = BinaryWriter(str(folder), chunk_size=chunk)
    for number in range(FILES):
        for index, image in enumerate(images(number, items // FILES)):
            writer[number * (items // FILES) + index] = image
    writer.done()
    writer.merge()


def write_mosaic(folder: Path, items: int, chunk: int) -> None:
    """Shards of so many items, and the head of a shard."""
    from streaming import MDSWriter

    column = f"ndarray:uint16:{','.join(map(str, SHAPE))}"
    most = chunk * (ITEM * 1024 + 16) + 4096
    with MDSWriter(out=str(folder), columns={"x": column}, size_limit=most) as writer:
        for number in range(FILES):
            for image in images(number, items // FILES):
                writer.write({"x": image})


# -- who reads it


def ours(folder: str, endpoint: str, workers: int, *, order: str) -> Loader:
    """``globidx.DataLoader``."""
    import globidx

    options = OPTIONS | {"endpoint_url": endpoint}
    urls = [f"{folder}/{number}.zarr" for number in range(FILES)]
    kept = tempfile.mkdtemp()
    manager = globidx.GlobalIndexManager(urls, storage_options=options, cache_dir=kept)
    dataset = globidx.FileCacheDataset(manager)
    orders = {"ChunkShuffle": globidx.orders.ChunkShuffle(), "full shuffle": None}
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, order=orders[order])
    return globidx.DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers)


def litdata(folder: str, endpoint: str, workers: int) -> Loader:
    """Its loader, which shuffles chunks, and items within a chunk."""
    from litdata import StreamingDataLoader, StreamingDataset
    from litdata.streaming import downloader

    # else its obstore, which is its fastest way, refuses a server without TLS
    getattr(downloader, "_OBSTORE_CLIENT_OPTIONS", {})["allow_http"] = "true"
    dataset = StreamingDataset(
        folder, tempfile.mkdtemp(), shuffle=True, storage_options={"endpoint_url": endpoint}
    )
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)


def mosaic(folder: str, endpoint: str, workers: int) -> Loader:
    """Its loader, which shuffles within blocks of 2^18 items over shards that it shuffles."""
    from streaming import StreamingDataLoader, StreamingDataset

    dataset = StreamingDataset(
        remote=folder, local=tempfile.mkdtemp(), shuffle=True, batch_size=BATCH
    )
    return StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers)


CONTESTANTS: dict[str, Callable[[str, str, int], Loader]] = {
    "globidx, ChunkShuffle": partial(ours, order="ChunkShuffle"),
    "globidx, full shuffle": partial(ours, order="full shuffle"),
    "litdata": litdata,
    "mosaic": mosaic,
}
WRITERS: dict[str, Callable[[Path, int, int], None]] = {
    "globidx": write,
    "litdata": write_litdata,
    "mosaic": write_mosaic,
}


def streamed(name: str, folder: str, endpoint: str, workers: int, most: float) -> dict[str, float]:
    """An epoch, or what came of it in some seconds."""
    for module in NEEDS.get(name, OURS):
        with suppress(ImportError):
            import_module(module)
    begun = perf_counter()
    loader = CONTESTANTS[name](folder, endpoint, workers)
    ready, first, items = perf_counter(), 0.0, 0
    for batch in loader:
        data = batch["x"] if isinstance(batch, dict) else batch
        assert data.shape[1:] == SHAPE, data.shape
        items += len(data)
        first = first or perf_counter() - ready
        if perf_counter() - ready > most:
            break
    rate = items / (perf_counter() - ready)
    return {"start": ready - begun, "first": first, "items": items, "items_per_s": rate}


# -- the table


def measure(
    server: Plain | Moto, folder: Path, name: str, case: dict[str, Any], most: float
) -> dict[str, Any]:
    """The row of a contestant for one delay, chunk size and number of workers."""
    data = folder / str(case["kib"]) / name.partition(",")[0]
    url = f"s3://{data.relative_to(server.folder).as_posix()}"
    server.take()
    # the copies that peers keep are gone with it, and peers may write after their end
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        os.environ["TMPDIR"] = scratch
        asked = [name, url, server.endpoint, case["workers"], most]
        try:
            found = fresh_process(Path(__file__), "--measure", *asked)
        except SystemExit as error:
            if name.startswith("globidx"):
                raise
            print(error, file=sys.stderr)
            return case | {"name": name, "failed": True, "items_per_s": 0.0}
    taken = server.take()
    traffic = Traffic.of(taken["asked"], Path(server.folder))
    more = {"requests": traffic.requests, "mib": traffic.nbytes / 2**20, "most": taken["most"]}
    again = traffic.nbytes / traffic.distinct
    a_chunk = traffic.requests / traffic.objects
    return case | {"name": name, **found, **more, "again": again, "a_chunk": a_chunk}


def told(rows: list[dict[str, Any]], items: int) -> str:
    """The rows as a table."""
    head = ["chunks, delay, workers", "", "items/s", "MiB/s", "start", "first batch"]
    cells = [[*head, "in flight", "requests", "MiB", "requests a chunk", "fetched", ""]]
    for row in rows:
        case = f"{row['kib']} KiB, {row['delay'] * 1000:.0f} ms, {row['workers']}"
        if "failed" in row:
            cells.append([case, row["name"].ljust(21), "failed", *[""] * (len(cells[0]) - 3)])
            continue
        rate = row["items_per_s"]
        line = [case, row["name"].ljust(21), f"{rate:.0f}", f"{rate * ITEM / 1024:.0f}"]
        line += [f"{row['start']:.2f} s", f"{row['first']:.2f} s", str(row["most"])]
        line += [str(row["requests"]), f"{row['mib']:.0f}", f"{row['a_chunk']:.2f}"]
        left = "" if row["items"] == items else f"left after {row['items']} items"
        cells.append([*line, f"{row['again']:.2f}", left])
    return table(cells)


def ahead(rows: list[dict[str, Any]]) -> str:
    """How many times a peer's items a second ours has, with its windows of chunks, at least and at most."""
    lines = []
    for peer in NEEDS:
        cases: dict[tuple[Any, ...], dict[str, float]] = {}
        for row in (row for row in rows if "failed" not in row):
            case = row["kib"], row["delay"], row["workers"]
            cases.setdefault(case, {})[row["name"]] = row["items_per_s"]
        times = [one["globidx, ChunkShuffle"] / one[peer] for one in cases.values() if peer in one]
        if times:
            verdict = "PASS" if min(times) >= 1 else "FAIL"
            lines.append(f"ahead of {peer}: {verdict} {min(times):.1f} to {max(times):.1f} times")
    return "\n".join(lines)


def rows_of(
    server: Plain | Moto, kib: int, present: list[str], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The rows of one chunk size, each the best of some passes."""
    folder = Path(server.folder) / BUCKET
    for kind in ("globidx", *present):
        WRITERS[kind](folder / str(kib) / kind, options.items, kib // ITEM)
    server.hold(folder / str(kib))
    names = [name for name in CONTESTANTS if name.startswith("globidx") or name in present]
    for delay, workers, name in product(options.delays, options.workers, names):
        server.delay(delay / 1000)
        case = {"kib": kib, "delay": delay / 1000, "workers": workers}
        tries = (
            measure(server, folder, name, case, options.seconds) for _ in range(options.repeats)
        )
        yield max(tries, key=lambda row: row["items_per_s"])


def read_options() -> argparse.Namespace:
    """Those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--server", choices=["plain", "moto"], default="plain")
    parser.add_argument("--quick", action="store_true", help="one small case, to see that it runs")
    parser.add_argument("--kib", type=int, nargs="+", default=[64, 512, 4096], help="of a chunk")
    parser.add_argument("--delays", type=int, nargs="+", default=[30, 100], help="in ms")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--seconds", type=float, default=20.0, help="of an epoch, at most")
    parser.add_argument("--repeats", type=int, default=2, help="passes a row is the best of")
    parser.add_argument("--items", type=int, default=2048, help="a multiple of 256")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.kib, options.delays, options.workers = [512], [30], [0]
        options.items, options.repeats = 256, 1
    return options


def main() -> None:
    """Write the data, let all read it in turn, and print what came."""
    options = read_options()
    present = [peer for peer, needed in NEEDS.items() if not missing(needed)]
    made = {"plain": partial(Plain, by_s3=True), "moto": Moto}[options.server]
    with tempfile.TemporaryDirectory() as scratch, made(scratch) as server:
        os.environ |= environment(server.endpoint)
        rows = [row for kib in options.kib for row in rows_of(server, kib, present, options)]
    print(told(rows, options.items) + "\n")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs, server {options.server}")
    if absent := sorted(set(NEEDS) - set(present)):
        print(f"not installed here: {', '.join(absent)}")
    print(ahead(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


def environment(endpoint: str) -> dict[str, str]:
    """What leads the peers to the server."""
    return {
        "AWS_ACCESS_KEY_ID": OPTIONS["key"],
        "AWS_SECRET_ACCESS_KEY": OPTIONS["secret"],
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "S3_ENDPOINT_URL": endpoint,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        logging.disable(logging.WARNING)
        warnings.simplefilter("ignore")
        name, folder, endpoint, workers, most = sys.argv[2:]
        print(json.dumps(streamed(name, folder, endpoint, int(workers), float(most))))
    else:
        main()
