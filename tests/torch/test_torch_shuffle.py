"""``TorchShuffle`` is an order like any other, and torch's own."""

from __future__ import annotations

import numpy as np
from torch.utils.data.distributed import DistributedSampler

from globidx.orders import Order, TorchShuffle


def test_torch_shuffle_is_bit_identical_to_torch():
    """A run under torch's DistributedSampler goes on with the same ids."""
    for n, seed, epoch in ((1, 0, 0), (7, 3, 2), (1003, 11, 5)):
        theirs = DistributedSampler(range(n), num_replicas=1, rank=0, seed=seed)
        theirs.set_epoch(epoch)
        bound = TorchShuffle().bind(n, seed=seed, epoch=epoch)
        assert bound.take(range(n)).tolist() == list(theirs)
        assert bound.inverse(np.array(list(theirs), np.int64)).tolist() == list(range(n))


def test_it_is_described_like_any_order():
    """By its algorithm and version, so that a record of it is compared with other orders."""
    assert isinstance(TorchShuffle(), Order)
    assert set(TorchShuffle().describe()) >= {"algorithm", "version"}
