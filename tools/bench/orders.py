"""What the orders cost: to bind an epoch, and ids a second, over three decades of samples.

python tools/bench/orders.py
"""

from __future__ import annotations

import time
import warnings

import numpy as np

from globidx.orders import (
    ChunkShuffle,
    Grouped,
    Groups,
    Lanes,
    Mixture,
    Order,
    Passes,
    Shuffle,
    Weighted,
)

SIZES = (10**5, 10**6, 10**7)
IDS = 2**20


def orders(n: int) -> dict[str, Order]:
    """The orders, for so many samples."""
    parts = [n * 6 // 10, n * 3 // 10, n - n * 6 // 10 - n * 3 // 10]
    few = Groups([0, n // 2, n - n // 10], [0, 1, 2], n, list("abc"))
    labels = np.random.default_rng(0).integers(0, 8, n)
    return {
        "Shuffle": Shuffle(),
        "ChunkShuffle, 16 a chunk": ChunkShuffle(chunk=16),
        "Weighted": Weighted(np.ones(n)),
        "Mixture of 3, 6:3:1": Mixture(parts, [0.6, 0.3, 0.1]),
        "Mixture of 3, any weights": Mixture(parts, [0.61803, 0.28197, 0.1]),
        "Grouped, 3 runs": Grouped(few, batch=256),
        "Grouped, 8 groups mixed": Grouped(labels, batch=256),
        "Passes of n/10, Shuffle": Passes(Shuffle(), size=n // 10),
    }


def measured(order: Order, n: int) -> tuple[float, float]:
    """Milliseconds to plan and bind, and million ids a second in blocks, the best of three."""
    began = time.perf_counter()
    epoch = order.plan(range(n), n, lambda: Lanes(4, 2, 256)).bind(n, seed=1, epoch=1)
    bound = time.perf_counter() - began
    count = min(len(epoch), IDS)
    best = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        for _ids in epoch.ids(0, count):
            pass
        best = min(best, time.perf_counter() - began)
    return bound * 1e3, count / best / 1e6


def main() -> None:
    """Print a line for each order: by the number of samples, ms to bind and million ids a second."""
    warnings.simplefilter("ignore")
    print(f"{'ms to bind, million ids/s':28}" + "".join(f"{n:>20,}" for n in SIZES))
    table: dict[str, list[str]] = {}
    for n in SIZES:
        for name, order in orders(n).items():
            bound, speed = measured(order, n)
            table.setdefault(name, []).append(f"{bound:>11.2f} {speed:>8.1f}")
    for name, cells in table.items():
        print(f"{name:28}" + "".join(cells))


if __name__ == "__main__":
    main()
