"""What a training loop is given: items a second that arrive, and what is left between them and the bare codec.

python tools/bench/delivery.py [SECTION ...] [--items 8192] [--repeats 5] [--folder PATH]

Without sections, all are run. Each prints a table and what this run says of the library's promises. It reads the files
of ``read.py``, 8 of 128 x 128 uint16, from the page cache.

"one process": ``dataset.__getitems__`` and ``DataLoader`` without workers, beside two limits: "read and decode" takes
every chunk once, by the bare codec, in the order of the files; "decode alone" has the stored bytes in memory already.
Of contiguous data these are copies out of a memory map, a batch at a time, and out of memory into one buffer. Promises
are of CPU time, which is the time of a process that has a core for itself; what else runs takes away time only.

"workers": 1 and 2 worker processes with slots, as torch sends batches, and torch's loader over the same dataset.

"threads": ``workers="threads"`` beside worker processes, and torch's loader over the same dataset.

"shared": how often chunks are decoded with ``cache="shared"`` where a run goes on with other ranks, and what a hit
costs.

"peers": litdata, Mosaic's streaming and Hugging Face datasets by their own loaders over converted copies, those of
them that are installed (extras ``readbench`` and ``readbench-mosaic``).
"""

import argparse
import gc
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np
import read_data
from claims import at_least
from delivery_peers import peers
from delivery_threads import threads
from delivery_workers import workers
from measure import count, fresh_process, seconds, table
from read_contestants import BATCH, ITEM, WINDOW, files, inflate, limit
from read_data import CHUNK, FILES
from shared_cache import shared

Timed = Iterator[int]  # yields how many items came, each time some came


class Rate(NamedTuple):
    """Items a second, and CPU seconds an item."""

    items_per_s: float
    cpu: float


def rate(counts: Timed) -> Rate:
    """Of what comes after the first 0, until the end."""
    for some in counts:
        if not some:
            break
    gc.collect()
    start, used, items = perf_counter(), process_time(), 0
    for some in counts:
        items += some
    return Rate(items / (perf_counter() - start), (process_time() - used) / items)


def better(one: Rate, other: Rate) -> Rate:
    """The best of both, since whatever else runs on a machine only ever takes time away."""
    return Rate(max(one.items_per_s, other.items_per_s), min(one.cpu, other.cpu))


# -- one process

#: By layout: what the loop shall get of "read and decode".
ONE_PROCESS = {
    "zarr3 chunk 16": 0.75,
    "hdf5 gzip, zlib-ng": 0.9,
    "hdf5 gzip": None,
    "hdf5 contiguous": None,
}
READ, ALONE = "read and decode", "decode alone"


def one_process(folder: Path, items: int, repeats: int) -> None:
    """In a fresh process a layout, whose contestants take turns."""
    rows = [["layout", "contestant", "items/s", "of limit", "CPU an item", "of limit"]]
    verdicts = {}
    for layout, bar in ONE_PROCESS.items():
        read_data.write(folder, layout.partition(",")[0], items)
        measured = fresh_process(Path(__file__), "--measure", folder, layout, items, repeats)
        figures = {name: Rate(*found) for name, found in measured.items()}
        most = figures[READ]
        for name, found in figures.items():
            of_limit = [found.items_per_s / most.items_per_s, most.cpu / found.cpu]
            walls, cpus = (f"{share:.2f}" for share in of_limit)
            rows.append([layout, name, count(found.items_per_s), walls, seconds(found.cpu), cpus])
            if bar and name.startswith("loader"):
                verdicts[f"{layout}, {name} >= {bar} of the decode limit"] = at_least(
                    bar, of_limit[1]
                )
    print(table([[row[0].ljust(16), row[1].ljust(20), *row[2:]] for row in rows]) + "\n")
    for text, verdict in verdicts.items():
        print(f"{text}: {verdict}")


def measure_one_process(folder: Path, layout: str, items: int, repeats: int) -> dict[str, Rate]:
    """The best of every contestant: one round of all after the other, so that a busy minute hits all."""
    layout, _, inflater = layout.partition(", ")
    if inflater == "zlib-ng":
        # libdeflate, which is faster, is not to be found here
        sys.modules["deflate"] = None  # type: ignore[assignment]
    contestants: dict[str, Callable[[], Timed]] = {
        READ: partial(limit, folder, layout, items),
        ALONE: partial(decode_alone, folder, layout),
    }
    for order in ("sequence", "chunk"):
        contestants[f"batches, {order}"] = partial(batches, folder, layout, order, through=False)
        contestants[f"loader, {order}"] = partial(batches, folder, layout, order, through=True)
    best: dict[str, Rate] = {}
    for _ in range(repeats):
        for name, contestant in contestants.items():
            found = rate(contestant())
            best[name] = better(best.get(name, found), found)
    return best


def decode_alone(folder: Path, layout: str) -> Timed:
    """Every chunk decoded once out of memory, into one buffer where the codec can."""
    stored = list(_stored(folder, layout))
    out = np.empty(max(CHUNK, BATCH) * ITEM, np.uint8)
    yield 0
    if layout == "hdf5 contiguous":
        for data in stored:
            for start in range(0, len(data), BATCH * ITEM):
                some = data[start : start + BATCH * ITEM]
                out[: len(some)] = some
                yield len(some) // ITEM
        return
    decode: Callable[[Any], Any] = inflate()
    if layout.startswith("zarr"):
        decode = partial(import_module("numcodecs").Zstd().decode, out=out[: CHUNK * ITEM])
    for data in stored:
        decode(data)
        yield CHUNK


def batches(folder: Path, layout: str, order: str, *, through: bool) -> Timed:
    """``FileCacheDataset``, whose files are open: batch by batch, or ``through`` the loader."""
    import globidx

    dataset = globidx.FileCacheDataset(globidx.GlobalIndexManager(files(folder, layout)))
    dataset.__getitems__(range(0, len(dataset), len(dataset) // FILES))
    options = {"order": globidx.orders.ChunkShuffle(window=WINDOW)} if order == "chunk" else {}
    sampler = globidx.ResumableDistributedSampler(
        dataset, 1, 0, shuffle=order == "chunk", **options
    )
    ids = list(sampler)
    cut = [ids[start : start + BATCH] for start in range(0, len(ids), BATCH)]
    # the heap grows to what it needs
    for batch in cut[: len(cut) // 8]:
        dataset.__getitems__(batch)
    yield 0
    if through:
        yield from map(len, globidx.DataLoader(dataset, BATCH, sampler=sampler))
        return
    for batch in cut:
        yield len(dataset.__getitems__(batch))


def _stored(folder: Path, layout: str) -> Iterator[Any]:
    """The stored bytes of all chunks, or of whole files of contiguous data."""
    if layout.startswith("zarr"):
        for store in files(folder, layout):
            yield from (
                path.read_bytes() for path in sorted((store / "c").rglob("*")) if path.is_file()
            )
        return
    h5py = import_module("h5py")
    for path in files(folder, layout):
        with h5py.File(path) as file:
            data = file["x"]
            if data.chunks is None:
                yield data[:].reshape(-1).view(np.uint8)
                continue
            for first in range(0, len(data), CHUNK):
                yield data.id.read_direct_chunk((first, 0, 0))[1]


SECTIONS = {
    "one process": one_process,
    "workers": workers,
    "threads": threads,
    "shared": shared,
    "peers": peers,
}


def main() -> None:
    """Read the options; the data goes into a temporary folder unless one is given, where it is found again."""
    if sys.argv[1:2] == ["--measure"]:
        logging.disable(logging.WARNING)
        folder, layout, items, repeats = sys.argv[2:]
        print(json.dumps(measure_one_process(Path(folder), layout, int(items), int(repeats))))
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--items", type=int, default=8192, help="a multiple of 1024")
    parser.add_argument("--repeats", type=int, default=5, help="rounds a figure is the best of")
    parser.add_argument("--folder", type=Path, help="where to keep the data")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        sys.exit(f"no section {min(unknown)!r}; there is {', '.join(map(repr, SECTIONS))}")
    if options.items % 1024:
        sys.exit("--items must be a multiple of 1024")
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{options.items} items, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}\n")
        for name in options.sections or SECTIONS:
            print(f"{name}\n")
            SECTIONS[name](folder, options.items, options.repeats)


if __name__ == "__main__":
    main()
