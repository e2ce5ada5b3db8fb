"""How random is Shuffle? The same statistics over it and over numpy's Generator.permutation, as z-scores, in one table.

    python tools/bench/shuffle_quality.py [--json PATH]

A z-score is how many standard deviations a figure lies from what the uniform law expects: beyond 5 something is wrong.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from globidx.orders import Shuffle

Draw = Callable[[int, int, int], NDArray[np.int64]]  # (n, seed, epoch) -> a permutation of [0, n)


def ours(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Shuffle's order."""
    return Shuffle().bind(n, seed=seed, epoch=epoch).take(np.arange(n))


def numpys(n: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """numpy's order."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def correlation(draw: Draw, n: int) -> float:
    """Of value with position."""
    return float(np.corrcoef(np.arange(n), draw(n, 1, 0))[0, 1]) * math.sqrt(n - 1)


def neighbours(draw: Draw, n: int) -> float:
    """Of each value with the next."""
    ids = draw(n, 1, 0)
    return float(np.corrcoef(ids[:-1], ids[1:])[0, 1]) * math.sqrt(n - 1)


def differences(draw: Draw, n: int) -> float:
    """Mean distance of neighbours: a third of n; its spread is estimated from numpy's own permutations."""
    spread = np.std([np.abs(np.diff(numpys(n, seed, 9))).mean() for seed in range(40)])
    return float((np.abs(np.diff(draw(n, 1, 0))).mean() - (n + 1) / 3) / spread)


def fixed_points(draw: Draw, n: int) -> float:
    """Values at their own position, over 50 seeds: Poisson, one a permutation."""
    found = sum(int((draw(n, seed, 0) == np.arange(n)).sum()) for seed in range(50))
    return (found - 50) / math.sqrt(50)


def all_permutations(draw: Draw, n: int, per_cell: int = 40) -> float:
    """Chi-square over all n! permutations."""
    cells = dict.fromkeys(itertools.permutations(range(n)), 0)
    for seed in range(per_cell * len(cells)):
        cells[tuple(draw(n, seed, 3).tolist())] += 1
    return _chi_square(np.array(list(cells.values())), per_cell, len(cells) - 1)


def pairs(draw: Draw, n: int, draws: int = 3000) -> float:
    """Chi-square over (position, value) of many seeds: every value is as likely everywhere."""
    counts = np.zeros((n, n))
    for seed in range(draws):
        counts[np.arange(n), draw(n, seed, 1)] += 1
    return _chi_square(counts, draws / n, (n - 1) ** 2)


def avalanche(draw: Draw, n: int, what: str) -> float:
    """What one flipped bit leaves alone, over 20 bits.

    Of seed or epoch: positions that keep their value. Of the index: images that move by one given amount.
    """
    kept, trials = 0, 0
    for bit in range(20):
        one, other = (
            draw(n, 5, 5),
            draw(n, 5 ^ (1 << bit) * (what == "seed"), 5 ^ (1 << bit) * (what == "epoch")),
        )
        if what == "index":
            x = np.arange(n - n % (2 << bit))
            moved = (one[x ^ (1 << bit)] - one[x]) % n
            kept, trials = kept + int((moved == n // 3).sum()), trials + len(x)
        else:
            kept, trials = kept + int((one == other).sum()), trials + n
    expected = trials / n
    return (kept - expected) / math.sqrt(expected)


def _chi_square(counts: NDArray[np.float64], expected: float, freedom: int) -> float:
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    return (chi2 - freedom) / math.sqrt(2 * freedom)


TESTS: dict[str, Callable[[Draw], float]] = {
    "position-value correlation, n = 65,536": partial(correlation, n=65_536),
    "position-value correlation, n = 1,000,003": partial(correlation, n=1_000_003),
    "neighbours' correlation, n = 1,000,003": partial(neighbours, n=1_000_003),
    "neighbours' distance, n = 100,003": partial(differences, n=100_003),
    "fixed points, n = 1,009": partial(fixed_points, n=1_009),
    "fixed points, n = 100,003": partial(fixed_points, n=100_003),
    "all permutations equally likely, n = 4": partial(all_permutations, n=4),
    "all permutations equally likely, n = 5": partial(all_permutations, n=5),
    "value by position, n = 12": partial(pairs, n=12),
    "value by position, n = 97": partial(pairs, n=97),
    "avalanche over seed, n = 100,003": partial(avalanche, n=100_003, what="seed"),
    "avalanche over epoch, n = 100,003": partial(avalanche, n=100_003, what="epoch"),
    "avalanche over index, n = 100,003": partial(avalanche, n=100_003, what="index"),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = {}
    print(f"{'z-score of':45}{'Shuffle':>9}{'numpy':>9}")
    for name, test in TESTS.items():
        rows[name] = {"Shuffle": test(ours), "numpy": test(numpys)}
        print(f"{name:45}{rows[name]['Shuffle']:9.2f}{rows[name]['numpy']:9.2f}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
