"""Lanes: which positions of an epoch each loader worker of each rank reads.

Position p belongs to global batch s = p // G and slot q = p % G. With W ranks of K loader workers
each, rank r is dealt the slots q = r modulo W, and its i-th batch goes to worker i modulo K. So
lane (s mod K) * W + (q mod W) is read by one worker of one rank, one item after another.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


class Lanes(NamedTuple):
    """Who reads an epoch: the bijection between positions and (lane, index in the lane).

    Parameters
    ----------
    ranks : int
        The number of ranks.
    workers : int
        The number of loader workers of a rank, at least 1.
    batch : int
        The global batch size: the samples of all ranks in a step.

    Examples
    --------
    >>> lanes = Lanes(ranks=2, workers=2, batch=4)
    >>> lane, index = lanes.forward(np.arange(12))
    >>> lane.tolist(), index.tolist()
    ([0, 1, 0, 1, 2, 3, 2, 3, 0, 1, 0, 1], [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3])
    """

    ranks: int = 1
    workers: int = 1
    batch: int = 1

    @property
    def total(self) -> int:
        """The number of lanes."""
        return self.ranks * self.workers

    def _shares(self, slots: int) -> Indices:
        """Return how many of the first ``slots`` slots of a batch each rank is dealt."""
        # the slots q = rank modulo ranks that are below `slots`
        shares: Indices = np.maximum(
            0, (slots - np.arange(self.ranks, dtype=np.int64) + self.ranks - 1) // self.ranks
        )
        return shares

    def quotas(self, positions: int) -> Indices:
        """Return how many of the first ``positions`` positions each lane has.

        Nothing need divide anything.

        Parameters
        ----------
        positions : int
            The length of the epoch.

        Returns
        -------
        numpy.ndarray
            A count for each lane, int64.

        Examples
        --------
        >>> Lanes(ranks=2, workers=2, batch=3).quotas(8).tolist()
        [3, 2, 2, 1]
        """
        rounds, rest = divmod(positions, self.workers * self.batch)
        batches, slots = divmod(rest, self.batch)
        share = self._shares(self.batch)
        # whole rounds of all workers, then the batches that are begun, then a part of a batch
        quotas = np.tile(rounds * share, (self.workers, 1))
        quotas[:batches] += share
        if slots:
            quotas[batches] += self._shares(slots)
        return quotas.ravel()

    def forward(self, positions: Indices) -> tuple[Indices, Indices]:
        """Map positions to lanes.

        Parameters
        ----------
        positions : numpy.ndarray
            Positions, int64.

        Returns
        -------
        lanes, indices : numpy.ndarray
            The lane of each position, and its index in that lane.
        """
        batch = positions // self.batch
        slot = positions - batch * self.batch
        turn = batch // self.workers
        row = slot // self.ranks
        rank = slot - row * self.ranks
        share = (
            self.batch // self.ranks
            # the usual case: one division in place of a look-up for each position
            if self.batch % self.ranks == 0
            else self._shares(self.batch)[rank]
        )
        return (batch - turn * self.workers) * self.ranks + rank, turn * share + row

    def inverse(self, lanes: Indices, indices: Indices) -> Indices:
        """Map lanes to positions: the inverse of ``forward``.

        Parameters
        ----------
        lanes, indices : numpy.ndarray
            Lanes, and indices in those lanes, int64.

        Returns
        -------
        numpy.ndarray
            The positions, int64.
        """
        worker, rank = np.divmod(lanes, self.ranks)
        turn, row = np.divmod(indices, self._shares(self.batch)[rank])
        positions: Indices = (turn * self.workers + worker) * self.batch + row * self.ranks + rank
        return positions
