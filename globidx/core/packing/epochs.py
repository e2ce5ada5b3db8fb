"""Packs that are made anew in each epoch, and orders in which an epoch is no whole one of its samples."""

from __future__ import annotations

from typing import Any

from globidx.core.datasets.known import nested_datasets
from globidx.core.orders.base import Order
from globidx.core.orders.mixture import Mixture
from globidx.core.orders.passes import Passes


def refuse_other_epochs(dataset: Any, order: Order) -> None:
    """ValueError where ids of several epochs of packs would be read as those of one.

    Ids of two epochs mean other packs, so that documents would be lost and repeated.

    >>> from types import SimpleNamespace as Dataset
    >>> refuse_other_epochs(Dataset(repack=False), Passes(Mixture([4], [1]), size=2))
    """
    if isinstance(order, (Passes, Mixture)) and is_repacked(dataset):
        option = "epoch_size= or epoch_steps=" if isinstance(order, Passes) else "a mixture"
        raise ValueError(
            f"PackedDataset(repack=True) has other packs in each epoch of the sampler, and with {option} such an epoch "
            "is not one in which each pack comes once, so that documents would be lost; leave out repack"
        )


def is_repacked(dataset: Any) -> bool:
    """Whether it, or a dataset inside it, has other packs in each epoch."""
    return any(getattr(one, "repack", None) is True for one in nested_datasets(dataset))
