"""Orders: which sample stands at which position of an epoch.

``Shuffle`` is the default. ``ChunkShuffle`` shuffles so that each chunk is decoded about once,
``Sequential`` takes the ids as they are, ``Weighted`` draws by weight, ``Mixture`` takes several
datasets in exact shares, ``Grouped`` makes every batch of one group, and ``Passes`` is what a
sampler's ``epoch_size`` makes of an order. ``TorchShuffle`` is bit-identical to torch's
DistributedSampler.

To write an order of your own, subclass ``Order`` and ``Arrangement``. ``Chunking`` is how a
dataset describes its chunks to ``ChunkShuffle``; see ``globidx.IdentifiedDataset``. ``Lanes`` is
who reads an epoch, for ``Order.plan``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from globidx.core.index.chunking import Chunking
from globidx.core.orders.base import Arrangement, Left, Order
from globidx.core.orders.chunk_shuffle import ChunkShuffle, PlannedChunkShuffle
from globidx.core.orders.grouped import Grouped, PlannedGrouped
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.membership import Groups, by_sequence
from globidx.core.orders.mixture import Mixture
from globidx.core.orders.passes import Passes, PlannedPasses
from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.orders.weighted import Weighted

if TYPE_CHECKING:
    from globidx.torch.torch_shuffle import TorchShuffle

__all__ = [
    "Arrangement",
    "ChunkShuffle",
    "Chunking",
    "Grouped",
    "Groups",
    "Lanes",
    "Left",
    "Mixture",
    "Order",
    "Passes",
    "PlannedChunkShuffle",
    "PlannedGrouped",
    "PlannedPasses",
    "Sequential",
    "Shuffle",
    "TorchShuffle",
    "Weighted",
    "by_sequence",
]


def __getattr__(name: str) -> Any:
    # TorchShuffle alone needs torch, so it is imported when it is asked for.
    if name == "TorchShuffle":
        from globidx.torch.torch_shuffle import TorchShuffle

        return TorchShuffle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
