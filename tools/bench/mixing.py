"""What ChunkShuffle's window does to randomness: how well batches are mixed, against a full shuffle, in one table.

    python tools/bench/mixing.py [--quick] [--json PATH]

The data are 2,000 files of 400 to 600 items in chunks of 16, sorted by class (10 classes, 200 files each): the worst
case, since neighbours are alike. 4 ranks with 2 loader workers read batches of 32. For the global batch of 128 and for
the 32 of a rank it tells

* distinct files in a batch, on average;
* chi-square of the batch's class counts against an even draw, by degree of freedom: 1 where samples are independent, k
  where a batch says no more of the data than one of a k-th of its size;
* pairs of samples in a batch that are of one chunk.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from measure import table
from numpy.typing import NDArray

from globidx.core.chunking import Chunking
from globidx.core.lanes import Lanes
from globidx.orders import ChunkShuffle, Order, Shuffle

CLASSES, CHUNK, RANKS, WORKERS, BATCH = 10, 16, 4, 2, 32
WINDOWS = (1, 2, 4, 8, 16, 32, 64)


def order_of(order: Order, chunking: Chunking, seed: int) -> NDArray[np.int64]:
    """All ids of an epoch."""
    n = chunking.num_samples
    planned = order.plan(
        SimpleNamespace(chunking=chunking), n, lambda: Lanes(inner=RANKS, outer=WORKERS, batch=RANKS * BATCH)
    )
    return planned.bind(n, seed=seed, epoch=0).take(np.arange(n))


def mixed(batches: NDArray[np.int64], chunking: Chunking) -> dict[str, float]:
    """The statistics of batches of ids, a row each."""
    files = np.searchsorted(chunking.offsets, batches, side="right") - 1
    classes = files * CLASSES // len(chunking.lengths)
    chunks = batches - (batches - chunking.offsets[files]) % CHUNK  # each named by its first id
    shares = np.add.reduceat(chunking.lengths, np.arange(CLASSES) * len(chunking.lengths) // CLASSES)
    expected = shares / shares.sum() * batches.shape[1]
    counts = np.stack([(classes == number).sum(axis=1) for number in range(CLASSES)], axis=1)
    alike = [np.unique(row, return_counts=True)[1] for row in chunks]
    return {
        "files": float(np.mean([len(np.unique(row)) for row in files])),
        "chi2": float((((counts - expected) ** 2 / expected).sum(axis=1) / (CLASSES - 1)).mean()),
        "pairs": float(np.mean([(n * (n - 1) // 2).sum() for n in alike])),
    }


def measured(order: Order, chunking: Chunking) -> dict[str, dict[str, float]]:
    """Statistics of the global batches, and of rank 0's."""
    ids = order_of(order, chunking, seed=1)
    whole = ids[: len(ids) // (RANKS * BATCH) * RANKS * BATCH]
    return {
        "global": mixed(whole.reshape(-1, RANKS * BATCH), chunking),
        "rank": mixed(whole[::RANKS].reshape(-1, BATCH), chunking),
    }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the files, two windows")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    lengths = np.random.default_rng(0).integers(400, 601, 200 if args.quick else 2000)
    chunking = Chunking.of(lengths, np.full((len(lengths), 1), CHUNK))
    orders: dict[str, Order] = {f"window {w}": ChunkShuffle(w) for w in (WINDOWS[::4] if args.quick else WINDOWS)}
    found = {name: measured(order, chunking) for name, order in {**orders, "full shuffle": Shuffle()}.items()}
    rows = [["", "files", "chi2/df", "pairs", "files (rank)", "chi2/df (rank)", "pairs (rank)"]]
    for name, both in found.items():
        told = [both[which] for which in ("global", "rank")]
        rows.append([name, *(f"{value:.2f}" for some in told for value in some.values())])
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
