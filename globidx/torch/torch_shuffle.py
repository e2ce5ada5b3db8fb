"""The order of torch's own DistributedSampler, for taking over a run that began under it."""

from __future__ import annotations

import numpy as np
import torch

from globidx.core.orders.base import Arrangement, Ids, Order


class TorchShuffle(Order):
    """The order of ``DistributedSampler(shuffle=True)`` of the same seed and epoch, in the installed torch.

    Use it to take over a run that began under that sampler. Prefer ``Shuffle`` for new runs.

    Notes
    -----
    It is ``torch.randperm``: O(num_samples) memory and time. torch does not promise the same result in every version.

    Examples
    --------
    >>> from torch.utils.data.distributed import DistributedSampler
    >>> theirs = DistributedSampler(range(10), num_replicas=2, rank=1, seed=3)
    >>> ours = TorchShuffle().bind(10, seed=3, epoch=0)
    >>> ours.take(range(1, 10, 2)).tolist() == list(theirs)
    True
    """

    algorithm = "torch-shuffle"

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return ``torch.randperm(num_samples)`` of a generator seeded with ``seed + epoch``."""
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

    def inverse(self, sample_ids: Ids) -> Ids:
        if self._inverse is None:
            self._inverse = np.argsort(self._table)
        return self._inverse[sample_ids]
