"""Threads beside worker processes, for ``delivery.py``: items a second that arrive at 1 and 2, and memory at 8.

python tools/bench/delivery_threads.py FOLDER LAYOUT LOADER WORKERS ITEMS PASSES

prints JSON: items a second of the best pass, and the memory of the process tree in the middle of one.
"""

import json
import logging
import os
import sys
import warnings
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import read_data
from claims import at_least, at_most
from measure import count, fresh_process, mebibytes, table
from read_contestants import BATCH, WINDOW, files

LAYOUTS = ("zarr3 chunk 16", "hdf5 gzip")
#: Who delivers: torch's loader over the same dataset, ours with processes, and with threads.
LOADERS = ("torch", "processes", "threads")
#: What threads shall be of processes: their rate at 2, and their memory at 8.
RATE, MEMORY = 0.85, 0.25


def threads(folder: Path, items: int, repeats: int) -> None:
    """Each figure in a fresh process; all take turns, so that a busy minute hits all."""
    rows, verdicts = [["layout", "workers", *LOADERS, "threads / processes", "MiB, " + " / ".join(LOADERS[1:])]], {}
    for layout in LAYOUTS:
        read_data.write(folder, layout, items)
        for workers in (1, 2, 8):
            best: dict[str, float] = {}
            memory: dict[str, float] = {}
            for _ in range(repeats):
                for loader in LOADERS:
                    found = fresh_process(Path(__file__), folder, layout, loader, workers, items, 2)
                    best[loader] = max(best.get(loader, 0.0), found["items_per_s"])
                    memory[loader] = min(memory.get(loader, float("inf")), found["pss"])
            of_rate = best["threads"] / best["processes"]
            of_memory = memory["threads"] / memory["processes"]
            rates = [count(best[loader]) for loader in LOADERS]
            used = " / ".join(mebibytes(memory[loader]) for loader in LOADERS[1:])
            rows.append([layout, str(workers), *rates, f"{of_rate:.2f}", used])
            if workers == 2:
                verdicts[f"{layout}, 2 threads >= {RATE} of 2 processes"] = at_least(RATE, of_rate)
            if workers == 8:
                verdicts[f"{layout}, memory at 8 <= {MEMORY} of processes"] = at_most(MEMORY, of_memory)
    print(table([[row[0].ljust(16), *row[1:]] for row in rows]) + "\n")
    for text, verdict in verdicts.items():
        print(f"{text}: {verdict}")


def measure(folder: Path, layout: str, loader: str, workers: int, passes: int) -> dict[str, float]:
    """The best of some passes, from the first batch on; then memory in the middle of another."""
    batches = _loader(folder, layout, loader, workers)
    best = 0.0
    for _ in range(passes):
        stream = iter(batches)
        next(stream)
        start, items = perf_counter(), sum(map(len, stream))
        best = max(best, items / (perf_counter() - start))
    stream = iter(batches)
    for _ in range(len(batches) // 2):
        next(stream)
    # what was asked for in advance is there
    sleep(0.5)
    return {"items_per_s": best, "pss": tree_pss(os.getpid())}


def tree_pss(process: int) -> int:
    """Proportional memory of a process and of its children, in bytes."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return _pss(process) + sum(tree_pss(int(child)) for child in children)


def _pss(process: int) -> int:
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def _loader(folder: Path, layout: str, loader: str, workers: int) -> Any:
    import torch

    import globidx

    dataset = globidx.FileCacheDataset(globidx.GlobalIndexManager(files(folder, layout)))
    order = globidx.orders.ChunkShuffle(window=WINDOW)
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, order=order)
    options: dict[str, Any] = {"batch_size": BATCH, "num_workers": workers, "sampler": sampler}
    if loader == "torch":
        # its pass is committed by hand, so that the next one is another epoch
        return _Torchs(torch.utils.data.DataLoader(dataset, **options), sampler)
    return globidx.DataLoader(dataset, workers=loader, **options)


class _Torchs:
    """torch's loader, whose sampler goes on to the next epoch with each pass."""

    def __init__(self, batches: Any, sampler: Any) -> None:
        self._batches, self._sampler = batches, sampler

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Any:
        self._sampler.reset()
        return iter(self._batches)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    # more workers than cores are asked for on purpose
    warnings.simplefilter("ignore")
    folder, layout, loader, workers, _, passes = sys.argv[1:]
    print(json.dumps(measure(Path(folder), layout, loader, int(workers), int(passes))))
