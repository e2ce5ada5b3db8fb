"""How long documents take to be packed, and how full the packs are, by method, in one table.

    python tools/bench/packing.py [--documents N] [--budget TOKENS] [--window N ...]

Lengths are log-normal (mu 5.5, sigma 1.2: 500 tokens on average), as those of web text, cut at the budget. Times are
of one process, without its start; memory is what the packs hold.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
from measure import table

from globidx.core.packing.contents import METHODS, Packs, pack


def lengths(count: int, budget: int) -> np.ndarray:
    """As many lengths of documents."""
    drawn = np.random.default_rng(0).lognormal(5.5, 1.2, count)
    return np.clip(drawn, 1, budget).astype(np.int32)


def held(packs: Packs) -> int:
    """The bytes of all arrays of packs."""
    return sum(array.nbytes for array in (packs.lengths, packs._offsets, *packs._pieces))


def rows(count: int, budget: int, windows: list[int]) -> Iterator[list[str]]:
    """A row for each method, and for each window of first-fit-decreasing."""
    documents = lengths(count, budget)
    for method in METHODS:
        for window in windows if method == "first_fit_decreasing" else [count]:
            began = time.perf_counter()
            packs = pack(documents, budget, method=method, window=window)
            took = time.perf_counter() - began
            name = f"{method}, windows of {window:,}" if window < count else method
            filled = f"{packs.efficiency:.4f}"
            yield [name, f"{took:.1f}", f"{len(packs):,}", filled, f"{held(packs) / 2**20:.0f}"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=10**7)
    parser.add_argument("--budget", type=int, default=4096)
    parser.add_argument("--window", type=int, nargs="+", default=[10**7, 2**20, 2**16])
    asked = parser.parse_args()
    print(f"{asked.documents:,} documents, budget {asked.budget} tokens")
    head = ["method", "seconds", "packs", "efficiency", "MiB"]
    print(table([head, *rows(asked.documents, asked.budget, asked.window)]))


if __name__ == "__main__":
    main()
