"""What ChunkShuffle's window does to randomness: how well batches are mixed, against a full shuffle, in one table.

    python tools/bench/mixing.py [--quick] [--json PATH]

The data are 2,000 files of 400 to 600 items in chunks of 16, sorted by class (10 classes, 200 files each): the worst
case, since neighbours are alike. 4 ranks with 2 loader workers read batches of 32. For the global batch of 128 and for
the 32 of a rank it tells

* distinct files in a batch, on average;
* chi-square of the batch's class counts against an even draw, by degree of freedom: 1 where samples are independent, k
  where a batch says no more of the data than one of a k-th of its size;
* pairs of samples in a batch that are of one chunk;

and of the order, how often a chunk is decoded by workers whose caches hold a window, and what an id costs to compute.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from measure import table
from numpy.typing import NDArray

from globidx.core.index.chunking import Chunking
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.orders.base import Arrangement
from globidx.core.orders.lanes import Lanes
from globidx.core.reading.estimate import estimate
from globidx.orders import ChunkShuffle, Order, Shuffle

CLASSES, CHUNK, RANKS, WORKERS, BATCH = 10, 16, 4, 2, 32
WINDOWS = (1, 2, 4, 8, 16, 32, 64)


def bound(order: Order, chunking: Chunking) -> Arrangement:
    """An epoch."""
    n = chunking.num_samples
    planned = order.plan(
        SimpleNamespace(chunking=chunking),
        n,
        lambda: Lanes(ranks=RANKS, workers=WORKERS, batch=RANKS * BATCH),
    )
    return planned.bind(n, seed=1, epoch=0)


def decodes(order: Order, lengths: NDArray[np.int64], window: int) -> float:
    """Decodes a chunk, where each worker keeps ``window`` chunks."""
    array = ArrayInfo("x", (), "uint8", CHUNK, "x")
    entries = [
        Entry("hdf5", length, (array,), bytes(16), ((0, 0, 0, 0),)) for length in lengths.tolist()
    ]
    files = Table.of([f"{number:04}.h5" for number in range(len(entries))], entries)
    ranks = {"world_size": RANKS, "workers": WORKERS, "batch_size": BATCH}
    return estimate(
        files, order, **ranks, cache_bytes=window * CHUNK, most_samples=2**20
    ).decodes_per_chunk


def nanoseconds(epoch: Arrangement) -> float:
    """For an id, in a rank's blocks of 2**14: the fastest of some."""
    times = []
    for start in range(0, len(epoch) - RANKS * 2**14 + 1, 2**16):
        positions = np.arange(start, start + RANKS * 2**14, RANKS)
        begun = time.perf_counter()
        epoch.forward(positions)
        times.append((time.perf_counter() - begun) / len(positions))
    return min(times, default=float("nan")) * 1e9


def mixed(batches: NDArray[np.int64], chunking: Chunking) -> dict[str, float]:
    """The statistics of batches of ids, a row each."""
    files = np.searchsorted(chunking.offsets, batches, side="right") - 1
    classes = files * CLASSES // len(chunking.lengths)
    chunks = batches - (batches - chunking.offsets[files]) % CHUNK  # each named by its first id
    shares = np.add.reduceat(
        chunking.lengths, np.arange(CLASSES) * len(chunking.lengths) // CLASSES
    )
    expected = shares / shares.sum() * batches.shape[1]
    counts = np.stack([(classes == number).sum(axis=1) for number in range(CLASSES)], axis=1)
    alike = [np.unique(row, return_counts=True)[1] for row in chunks]
    return {
        "files": float(np.mean([len(np.unique(row)) for row in files])),
        "chi2": float((((counts - expected) ** 2 / expected).sum(axis=1) / (CLASSES - 1)).mean()),
        "pairs": float(np.mean([(n * (n - 1) // 2).sum() for n in alike])),
    }


def measured(order: Order, chunking: Chunking, window: int) -> dict[str, dict[str, float]]:
    """Statistics of the global batches, of rank 0's, and of the order."""
    epoch = bound(order, chunking)
    ids = epoch.take(np.arange(len(epoch)))
    whole = ids[: len(ids) // (RANKS * BATCH) * RANKS * BATCH]
    return {
        "global": mixed(whole.reshape(-1, RANKS * BATCH), chunking),
        "rank": mixed(whole[::RANKS].reshape(-1, BATCH), chunking),
        "order": {"decodes": decodes(order, chunking.lengths, window), "ns": nanoseconds(epoch)},
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, two windows")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lengths = np.random.default_rng(0).integers(400, 601, 200 if args.quick else 2000)
    chunking = Chunking.of(lengths, np.full((len(lengths), 1), CHUNK))
    windows = WINDOWS[::4] if args.quick else WINDOWS
    found = {
        f"window {window}": measured(ChunkShuffle(window), chunking, window) for window in windows
    }
    found["full shuffle"] = measured(Shuffle(), chunking, 8)
    rows = [
        [
            "",
            *"files|chi2/df|pairs|files (rank)|chi2/df (rank)|pairs (rank)|decodes|ns/id".split(
                "|"
            ),
        ]
    ]
    rows += [
        [name, *(f"{v:.2f}" for some in told.values() for v in some.values())]
        for name, told in found.items()
    ]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
