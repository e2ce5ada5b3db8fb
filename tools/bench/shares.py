"""What mixtures, mini-epochs, groups and changed weights come to, in figures: ``python tools/bench/shares.py``.

Every run is of ranks in step, in one process, that are stopped and resumed on other numbers of ranks. Shares are
compared with exact ones in every window of 1,000 samples of the global order.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from measure import table

from globidx import DataLoader, ResumableDistributedSampler, merge_states
from globidx.mixture import InterleavedDataset
from globidx.orders import Grouped, Weighted

WINDOW = 1000


class Ranks:
    """The ranks of one run."""

    def __init__(
        self, dataset: Any, world_size: int, batch: int, record: Any = None, **options: Any
    ) -> None:
        self.samplers = [
            ResumableDistributedSampler(dataset, world_size, rank, seed=5, tail="exact", **options)
            for rank in range(world_size)
        ]
        self.loaders = [
            DataLoader(range(len(dataset)), batch, sampler=sampler) for sampler in self.samplers
        ]
        for sampler in self.samplers if record else ():
            sampler.load_state_dict(record)

    def steps(self, most: int | None = None) -> Iterator[list[int]]:
        """The global batches of a pass, or the first ones of it, as the order has them."""
        passes = [iter(loader) for loader in self.loaders]
        for step in itertools.count(1):
            parts = [
                [] if part is None else part.tolist()
                for part in (next(one, None) for one in passes)
            ]
            if not any(parts):
                break
            rows = itertools.zip_longest(*parts)
            yield [id for row in rows for id in row if id is not None]
            # with the batch that each loop holds, which a loop that is left does not
            self.record = merge_states([sampler.state_dict() for sampler in self.samplers])
            if step == most:
                break


def worst_share(which: np.ndarray, weights: Sequence[float]) -> float:
    """How far a dataset's count is from its exact share, in the worst window."""
    worst = 0.0
    for number, weight in enumerate(weights):
        served = np.concatenate([[0], np.cumsum(which == number)])
        apart = np.abs(served[WINDOW:] - served[:-WINDOW] - WINDOW * weight)
        worst = max(worst, float(apart.max()))
    return worst


def repeats_in_passes(own: np.ndarray, size: int) -> int:
    """How many samples of a dataset come twice in one of its own passes."""
    passes = [own[at : at + size] for at in range(0, len(own), size)]
    return sum(len(one) - len(np.unique(one)) for one in passes)


def mixture(worlds: Sequence[int], weights: Sequence[Sequence[float]]) -> list[str]:
    """Three datasets over 10^5 positions, resumed in the middle, perhaps with other weights."""
    sizes, half = (7001, 2503, 977), 50_000
    seen, record, worst = [], None, 0.0
    for world_size, given in zip(worlds, weights, strict=True):
        options = {"stop": "CYCLE_FOREVER", "num_samples": 2 * half}
        mixed = InterleavedDataset([range(size) for size in sizes], list(given), **options)
        ranks, part = Ranks(mixed, world_size, 125, record, order=mixed.order), []
        for batch in ranks.steps(half // (125 * world_size)):
            part += batch
        record = ranks.record
        worst = max(worst, worst_share(np.digitize(part, np.cumsum(sizes)[:-1]), given))
        seen += part
    ids, which = np.array(seen), np.digitize(seen, np.cumsum(sizes)[:-1])
    if len(set(map(tuple, weights))) == 1:
        worst = worst_share(which, weights[0])
    repeated = [repeats_in_passes(ids[which == one], size) for one, size in enumerate(sizes)]
    name = "mixture" if len(set(map(tuple, weights))) == 1 else "mixture, other weights"
    return [
        name,
        " -> ".join(map(str, worlds)),
        f"{len(seen):,}",
        f"{worst:.2f}",
        f"{sum(repeated)}",
    ]


def weighted() -> list[str]:
    """Draws by weights that change from 0.6/0.3/0.1 to 0.1/0.1/0.8 of three kinds of sample."""
    kinds, seen, record, worst = np.arange(900) % 3, [], None, 0.0
    for world_size, shares in ((2, (0.6, 0.3, 0.1)), (3, (0.1, 0.1, 0.8))):
        order = Weighted(np.array(shares)[kinds], 60_000)
        ranks, part = Ranks(range(900), world_size, 100, record, order=order), []
        for batch in ranks.steps(30_000 // (100 * world_size)):
            part += batch
        record, seen = ranks.record, seen + part
        worst = max(worst, worst_share(kinds[part], shares))
    return ["Weighted, other weights", "2 -> 3", f"{len(seen):,}", f"{worst:.2f}", "drawn"]


def mini_epochs() -> str:
    """20 passes of 50 steps on 2, 3 and 1 ranks over 1,003 samples, two of them left in the middle."""
    seen: Counter[int] = Counter()
    record, passes, apart = None, 0, 0
    for world_size, many in ((2, 7), (3, 7), (1, 6)):
        ranks = Ranks(range(1003), world_size, 4, record, epoch_steps=50)
        for number in range(many):
            for sampler in ranks.samplers:
                sampler.set_epoch(max(passes, sampler.epoch))
            for batch in ranks.steps(25 if number == many - 1 else None):
                seen.update(batch)
                counts = [seen[id] for id in range(1003)]
                apart = max(apart, max(counts) - min(counts))
            passes += 1
        record = ranks.record
    return (
        f"epoch_steps=50: {passes} passes on 2 -> 3 -> 1, {seen.total():,} reads of 1,003 samples; "
        f"after any step the most seen one is at most {apart} ahead of the least seen"
    )


def groups(batches: Sequence[int]) -> str:
    """Groups of 1,003, 517 and 64 on 4, 3 and 8 ranks."""
    labels = np.repeat([0, 1, 2], [1003, 517, 64])
    np.random.default_rng(0).shuffle(labels)
    seen: list[int] = []
    record, kinds = None, []
    for world_size, batch, most in zip((4, 3, 8), batches, (17, 17, None), strict=True):
        ranks = Ranks(range(1584), world_size, batch, record, order=Grouped(labels))
        for ids in ranks.steps(most):
            seen += ids
            kinds.append(len(set(labels[ids].tolist())))
        record = ranks.record
    mixed, sizes = (
        sum(kind > 1 for kind in kinds),
        [w * b for w, b in zip((4, 3, 8), batches, strict=True)],
    )
    counts = Counter(seen)
    return (
        f"Grouped, global batches of {sizes}: {len(kinds)} batches, {mixed} of several groups (the tail's), "
        f"{1584 - len(counts)} missing, {len(seen) - len(counts)} repeated"
    )


def interleaved() -> str:
    """Chi-square of the groups of batches in ten stretches of an epoch, over 200 epochs."""
    labels = np.repeat([0, 1, 2], [1003, 517, 64])
    order, counts = Grouped(labels, batch=8), np.zeros((10, 3))
    for epoch in range(200):
        ids = order.bind(1584, seed=0, epoch=epoch).take(range(0, 8 * 197, 8))
        for stretch in range(10):
            counts[stretch] += np.bincount(
                labels[ids[stretch * 19 : stretch * 19 + 19]], minlength=3
            )
    expected = np.array([125, 64, 8]) / 197 * 19 * 200
    chi2 = float(((counts - expected) ** 2 / expected).sum())
    return f"Grouped, batches of 8: chi-square of groups in stretches of 200 epochs is {chi2:.1f} of 20 degrees"


def main() -> None:
    """Print all of it."""
    weights = (0.6, 0.3, 0.1)
    rows = [mixture(worlds, (weights, weights)) for worlds in ((1, 1), (1, 3), (3, 8), (8, 1))]
    rows += [mixture(worlds, (weights, (0.1, 0.1, 0.8))) for worlds in ((1, 3), (3, 8))]
    head = ["order", "ranks", "samples", f"worst of {WINDOW:,}", "repeated in a pass"]
    print(table([head, *rows, weighted()]))
    print(mini_epochs())
    print(groups((6, 8, 3)))
    print(groups((5, 2, 7)))
    print(interleaved())


if __name__ == "__main__":
    main()
