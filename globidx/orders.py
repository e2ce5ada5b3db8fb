"""Orders: which sample stands at which position of an epoch.

``Shuffle`` is the default, ``Sequential`` takes the ids as they are, ``TorchShuffle`` is bit-identical to torch's
DistributedSampler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from globidx.core.orders import Arrangement, Order, Sequential, Shuffle

if TYPE_CHECKING:
    from globidx.torch.torch_shuffle import TorchShuffle

__all__ = ["Arrangement", "Order", "Sequential", "Shuffle", "TorchShuffle"]


def __getattr__(name: str) -> Any:
    if name == "TorchShuffle":  # the only one that needs torch
        from globidx.torch.torch_shuffle import TorchShuffle

        return TorchShuffle
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
