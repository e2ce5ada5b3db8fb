"""The order of torch's own DistributedSampler, for taking over a run that began under it."""

from __future__ import annotations

import numpy as np
import torch

from globidx.core.orders.base import Arrangement, Ids, Order


class TorchShuffle(Order):
    """Bit-identical to ``DistributedSampler(shuffle=True)`` of the same seed and epoch, in the torch that is installed.

    It is ``torch.randperm``: O(num_samples) memory and time, and not promised to stay the same between torch versions.
    Prefer ``Shuffle`` for new runs.

    >>> from torch.utils.data.distributed import DistributedSampler
    >>> theirs = DistributedSampler(range(10), num_replicas=2, rank=1, seed=3)
    >>> TorchShuffle().bind(10, seed=3, epoch=0).take(range(1, 10, 2)).tolist() == list(theirs)
    True
    """

    algorithm = "torch-shuffle"

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """``torch.randperm(num_samples)`` of a generator seeded with ``seed + epoch``."""
        generator = torch.Generator()
        generator.manual_seed(seed + epoch)
        return _Listed(torch.randperm(num_samples, generator=generator).numpy())


class _Listed(Arrangement):
    def __init__(self, ids: Ids) -> None:
        super().__init__(len(ids))
        self._table = ids
        self._inverse: Ids | None = None

    def forward(self, positions: Ids) -> Ids:
        return self._table[positions]

    def inverse(self, ids: Ids) -> Ids:
        if self._inverse is None:
            self._inverse = np.argsort(self._table)
        return self._inverse[ids]
