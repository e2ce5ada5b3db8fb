"""Threads beside worker processes, for ``delivery.py``: items a second that arrive, and the memory it takes.

python tools/bench/delivery_threads.py rate|memory|idle FOLDER LAYOUT LOADER WORKERS CACHE_MIB

prints JSON: items a second of the best of some passes, or the memory of the process tree near the end of one,
or before any.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import read_data
from claims import at_least, at_most
from measure import count, fresh_process, mebibytes, rate, table
from read_contestants import BATCH, WINDOW, files

LAYOUTS = ("zarr3 chunk 16", "hdf5 gzip")
#: Who delivers: torch's loader over the same dataset, ours with processes, and with threads.
LOADERS = ("torch", "processes", "threads")
#: What threads shall be of processes: their rate at 2, and their memory at 8.
RATE, MEMORY = 0.85, 0.25
#: What a process keeps of decoded chunks: the default, and enough for a long window of large items.
CACHES = (64, 256)


def threads(folder: Path, items: int, repeats: int) -> None:
    """Each figure in a fresh process; all take turns, so that a busy minute hits all."""
    for layout in LAYOUTS:
        read_data.write(folder, layout, items)
    verdicts = _rates(folder, repeats) | _memory(folder)
    for text, verdict in verdicts.items():
        print(f"{text}: {verdict}")


def _rates(folder: Path, repeats: int) -> dict[str, str]:
    rows, verdicts = (
        [["items/s of a chunk shuffle", "workers", *LOADERS, "threads / processes"]],
        {},
    )
    for layout in LAYOUTS:
        for workers in (1, 2):
            best: dict[str, float] = {}
            for _ in range(repeats):
                for loader in LOADERS:
                    found = _measured("rate", folder, layout, loader, workers, CACHES[0])
                    best[loader] = max(best.get(loader, 0.0), found)
            ratio = best["threads"] / best["processes"]
            rows.append(
                [layout, str(workers), *(count(best[name]) for name in LOADERS), f"{ratio:.2f}"]
            )
            if workers == 2:
                verdicts[f"{layout}, 2 threads >= {RATE} of 2 processes"] = at_least(RATE, ratio)
    print(table(rows) + "\n")
    return verdicts


def _memory(folder: Path) -> dict[str, str]:
    """Of a full shuffle, in which every worker comes by nearly all chunks."""
    heading = [
        "MiB at 8, full shuffle",
        "cache, MiB",
        *LOADERS,
        "threads / processes",
        "above idle",
    ]
    rows, verdicts = [heading], {}
    for cache in CACHES:
        found = {
            loader: _measured("memory", folder, LAYOUTS[0], loader, 8, cache) for loader in LOADERS
        }
        # what a process takes that has imported all and reads nothing is the same for all
        idle = _measured("idle", folder, LAYOUTS[0], "threads", 8, cache)
        ratio = found["threads"] / found["processes"]
        above = (found["threads"] - idle) / (found["processes"] - idle)
        used = [mebibytes(found[loader]) for loader in LOADERS]
        rows.append([LAYOUTS[0], str(cache), *used, f"{ratio:.2f}", f"{above:.2f}"])
        text = f"memory of 8 threads <= {MEMORY} of 8 processes, with a cache of {cache} MiB"
        verdicts[text] = at_most(MEMORY, ratio)
    print(table(rows) + "\n")
    return verdicts


def _measured(what: str, *arguments: object) -> float:
    return float(fresh_process(Path(__file__), what, *arguments)["figure"])


def memory(batches: Any) -> float:
    """Bytes that the process and its workers take together, when nearly all batches have come."""
    stream = iter(batches)
    for _ in range(len(batches) - 20):
        next(stream)
    return float(_tree_pss(os.getpid()))


def idle(batches: Any) -> float:
    """The same before anything is read."""
    assert len(batches)
    return float(_tree_pss(os.getpid()))


def _tree_pss(process: int) -> int:
    """What the kernel counts as a process's own, of shared pages its share; with its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    own = next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return own + sum(_tree_pss(int(child)) for child in children)


def _loader(folder: Path, layout: str, loader: str, workers: int, **options: Any) -> Any:
    import torch

    import globidx

    order = options.pop("order", None)
    manager = globidx.GlobalIndexManager(files(folder, layout))
    dataset = globidx.FileCacheDataset(manager, **options)
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, order=order)
    settings: dict[str, Any] = {"batch_size": BATCH, "num_workers": workers, "sampler": sampler}
    if loader == "torch":
        # nobody tells its sampler what was trained on: each pass reads the same epoch
        return torch.utils.data.DataLoader(dataset, **settings)
    return globidx.DataLoader(dataset, workers=loader, **settings)


def main() -> None:
    """One measurement."""
    import globidx

    logging.disable(logging.WARNING)
    # more workers than cores are asked for on purpose
    warnings.simplefilter("ignore")
    what, folder, layout, loader, workers, cache = sys.argv[1:]
    options: dict[str, Any] = {"cache_bytes": int(cache) << 20}
    if what == "rate":
        options["order"] = globidx.orders.ChunkShuffle(window=WINDOW)
    batches = _loader(Path(folder), layout, loader, int(workers), **options)
    print(json.dumps({"figure": {"rate": rate, "memory": memory, "idle": idle}[what](batches)}))


if __name__ == "__main__":
    main()
