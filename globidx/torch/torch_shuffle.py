"""The order of torch's own DistributedSampler, for taking over a run that began under it."""

from __future__ import annotations

import numpy as np
import torch

from globidx.core.orders.base import Arrangement, Ids, Order


class TorchShuffle(Order):
    """The order of torch's own ``DistributedSampler(shuffle=True)``.

    It is that of the same seed and epoch in the installed torch.

    Use it to take over a run that began under torch's sampler, and ``Shuffle`` for new runs.

    Notes
    -----
    It calls ``torch.randperm``, so it takes O(num_samples) memory and time, and may differ between
    torch versions.

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
        """The order of one epoch.

        It is ``torch.randperm(num_samples)`` of a generator seeded with ``seed + epoch``.

        Parameters
        ----------
        num_samples : int
            Length of the dataset.
        seed, epoch : int
            Which of the orders.

        Returns
        -------
        Arrangement
            The bijection of positions and ids.

        Examples
        --------
        >>> arrangement = TorchShuffle().bind(10, seed=3, epoch=0)
        >>> sorted(arrangement.take(range(10)).tolist()) == list(range(10))
        True
        """
        generator = torch.Generator()
        # as torch's sampler does; so seed 1 in epoch 0 has the order of seed 0 in epoch 1
        generator.manual_seed(seed + epoch)
        return _Permutation(torch.randperm(num_samples, generator=generator).numpy())


class _Permutation(Arrangement):
    def __init__(self, ids: Ids) -> None:
        super().__init__(len(ids))
        self._table = ids
        self._inverse: Ids | None = None

    def forward(self, positions: Ids) -> Ids:
        return self._table[positions]

    def inverse(self, sample_ids: Ids) -> Ids:
        if self._inverse is None:
            # only records and lookups need it, and it costs as much as the order
            self._inverse = np.argsort(self._table)
        return self._inverse[sample_ids]
