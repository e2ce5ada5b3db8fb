"""Lanes: which positions of an epoch the workers of the ranks read, each lane a stretch of its own.

Position p belongs to global batch s = p // G and slot q = p % G. With W ranks of K loader workers each, rank r is dealt
the slots q = r modulo W, and its i-th batch goes to worker i modulo K. So lane (s mod K) * W + (q mod W) is read by one
worker of one rank, one item after another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


class Lanes(NamedTuple):
    """``ranks`` ranks of ``workers`` workers each, and the global batch: items of all ranks in a step.

    >>> lanes = Lanes(ranks=2, workers=2, batch=4)
    >>> lane, number = lanes.forward(np.arange(12))
    >>> lane.tolist(), number.tolist()
    ([0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3])
    """

    ranks: int = 1
    workers: int = 1
    batch: int = 1

    @property
    def total(self) -> int:
        """How many lanes there are."""
        return self.ranks * self.workers

    def _shares(self, slots: int) -> Numbers:
        """How many of the first ``slots`` slots of a batch each rank is dealt."""
        shares: Numbers = np.maximum(0, (slots - np.arange(self.ranks, dtype=np.int64) + self.ranks - 1) // self.ranks)
        return shares

    def quotas(self, positions: int) -> Numbers:
        """How many of the first ``positions`` positions each lane has; no divisibility is asked for.

        >>> Lanes(ranks=2, workers=2, batch=3).quotas(8).tolist()
        [3, 2, 2, 1]
        """
        rounds, rest = divmod(positions, self.workers * self.batch)
        batches, slots = divmod(rest, self.batch)
        share = self._shares(self.batch)
        quotas = np.tile(rounds * share, (self.workers, 1))
        quotas[:batches] += share
        if slots:
            quotas[batches] += self._shares(slots)
        return quotas.ravel()

    def forward(self, positions: Numbers) -> tuple[Numbers, Numbers]:
        """Lane of each position, and its number in that lane."""
        batch = positions // self.batch
        slot = positions - batch * self.batch
        turn = batch // self.workers
        row = slot // self.ranks
        rank = slot - row * self.ranks
        share = self.batch // self.ranks if self.batch % self.ranks == 0 else self._shares(self.batch)[rank]
        return (batch - turn * self.workers) * self.ranks + rank, turn * share + row

    def inverse(self, lanes: Numbers, numbers: Numbers) -> Numbers:
        """The inverse of ``forward``."""
        worker, rank = np.divmod(lanes, self.ranks)
        turn, row = np.divmod(numbers, self._shares(self.batch)[rank])
        positions: Numbers = (turn * self.workers + worker) * self.batch + row * self.ranks + rank
        return positions
