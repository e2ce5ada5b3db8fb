"""Mixtures: several datasets in exact shares, each shuffled anew on passes of its own.

``InterleavedDataset`` joins datasets and brings the order that they are read in;
``globidx.orders.Mixture`` is that order. ``StopCriteria`` says when an epoch ends.
"""

from __future__ import annotations

from globidx.core.mixture.course import StopCriteria
from globidx.core.orders.mixture import Mixture
from globidx.torch.sources.interleaved import InterleavedDataset

__all__ = ["InterleavedDataset", "Mixture", "StopCriteria"]
