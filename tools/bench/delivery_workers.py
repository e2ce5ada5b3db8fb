"""Worker processes, with slots and as torch sends batches, for ``delivery.py``.

python tools/bench/delivery_workers.py FOLDER LAYOUT REPEATS

prints JSON: by loader and workers, items a second and CPU seconds of the main process an item, of the best pass.
"""

import json
import logging
import os
import sys
from itertools import islice
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import read_data
from claims import at_least, at_most
from measure import count, fresh_process, seconds, table
from read_contestants import BATCH, WINDOW, files

#: By layout: how many times torch's loader the slots shall be, and one process of ours.
BARS = {"hdf5 contiguous": (2, None), "zarr3 chunk 16": (None, 1.5)}
#: torch's loader over the same dataset; ours without slots; ours.
LOADERS = ("torch", "no slots", "slots")
#: CPU of the main process an item.
MAIN_S = 3e-6
#: So many times the items of the other sections: caches of all workers fill up, and then a pass begins.
_MORE = 4
#: How many batches at both ends of a pass are not measured: the first fill caches of 64 MiB, which takes
#: new memory, and at the last workers end.
_FIRST, _LAST = 80, 10


def workers(folder: Path, items: int, repeats: int) -> None:
    """In a fresh process a layout, whose contestants take turns, so that a busy minute hits all."""
    folder = folder / "workers"
    rows, verdicts = [["layout", "workers", "loader", "items/s", "main process an item"]], {}
    for layout, (above_torch, above_one) in BARS.items():
        read_data.write(folder, layout, _MORE * items)
        found = fresh_process(Path(__file__), folder, layout, repeats)
        for name, (rate, cpu) in found.items():
            loader, number = name.rsplit(" ", 1)
            rows.append([layout, number, loader, count(rate), seconds(cpu)])
        for number in (1, 2):
            ours, cpu = found[f"slots {number}"]
            if above_torch:
                text = f"{layout}, {number} workers >= {above_torch} x torch's loader"
                verdicts[text] = at_least(above_torch, ours / found[f"torch {number}"][0])
                text = f"{layout}, {number} workers: main process <= {seconds(MAIN_S)} an item"
                verdicts[text] = at_most(1, cpu / MAIN_S)
        if above_one:
            text = f"{layout}, 2 workers on {os.cpu_count()} cores >= {above_one} x one process"
            verdicts[text] = at_least(above_one, found["slots 2"][0] / found["slots 0"][0])
    print(table(rows) + "\n")
    for text, verdict in verdicts.items():
        print(f"{text}: {verdict}")


def measured(folder: Path, layout: str, repeats: int) -> dict[str, tuple[float, float]]:
    """The best of every contestant."""
    best: dict[str, tuple[float, float]] = {}
    for _ in range(repeats):
        for number in (0, 1, 2):
            for name in LOADERS:
                rate, cpu = _pass(_loader(folder, layout, name, number))
                before = best.get(f"{name} {number}", (0.0, 1.0))
                best[f"{name} {number}"] = max(rate, before[0]), min(cpu, before[1])
    return best


def _pass(batches: Any) -> tuple[float, float]:
    """Items a second, and what each takes of the main process, while workers neither start nor end."""
    stream, number = iter(batches), len(batches)
    # less where there are few
    first = min(_FIRST, number // 4)
    for _ in range(first):
        next(stream)
    amid = islice(stream, number - first - min(_LAST, number // 4))
    start, used, items = perf_counter(), process_time(), sum(map(len, amid))
    return items / (perf_counter() - start), (process_time() - used) / items


def _loader(folder: Path, layout: str, name: str, number: int) -> Any:
    import torch

    import globidx

    dataset = globidx.FileCacheDataset(globidx.GlobalIndexManager(files(folder, layout)))
    order = None if layout.endswith("contiguous") else globidx.orders.ChunkShuffle(window=WINDOW)
    sampler = globidx.ResumableDistributedSampler(dataset, 1, 0, order=order)
    if name == "torch":
        return torch.utils.data.DataLoader(dataset, BATCH, sampler=sampler, num_workers=number)
    slots = None if name == "slots" else 0
    return globidx.DataLoader(dataset, BATCH, sampler=sampler, num_workers=number, slots=slots)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    place, of_layout, rounds = sys.argv[1:]
    print(json.dumps(measured(Path(place), of_layout, int(rounds))))
