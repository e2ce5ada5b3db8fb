"""globidx: stop an epoch at any step, and resume it on any number of ranks.

Every sample is trained on exactly once.

The names below are imported when they are first used: ``import globidx`` alone does nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from globidx import collate, errors, metrics, orders, packing, policies, testing
    from globidx.core.datasets.identity import IdentifiedDataset
    from globidx.core.generator import sample_rng
    from globidx.core.index.changes import Changes
    from globidx.core.index.constants import Constant
    from globidx.core.index.index import GlobalIndex, Location
    from globidx.core.index.table import ArrayInfo
    from globidx.core.progress.merge import merge_states
    from globidx.core.progress.ranges import Ranges
    from globidx.core.windows.anchors import Window
    from globidx.core.windows.sampling import SequenceList, Where
    from globidx.disk.index.absent import AbsentChunks
    from globidx.disk.index.manager import GlobalIndexManager
    from globidx.disk.records.folder import read_record
    from globidx.torch.checkpoint import CheckpointManager
    from globidx.torch.dataset import FileCacheDataset
    from globidx.torch.loader import DataLoader
    from globidx.torch.loops.moments import batch_rng
    from globidx.torch.preemption import PreemptionGuard
    from globidx.torch.ranks.peers import RankPeers
    from globidx.torch.sampler import ResumableDistributedSampler
    from globidx.torch.sources.map_dataset import MapDataset
    from globidx.torch.training.dataloaders import dataloaders
    from globidx.torch.training.run import Run

__version__ = "0.1.0"

_HOMES = {
    "AbsentChunks": "globidx.disk.index.absent",
    "ArrayInfo": "globidx.core.index.table",
    "Changes": "globidx.core.index.changes",
    "CheckpointManager": "globidx.torch.checkpoint",
    "Constant": "globidx.core.index.constants",
    "DataLoader": "globidx.torch.loader",
    "FileCacheDataset": "globidx.torch.dataset",
    "GlobalIndex": "globidx.core.index.index",
    "GlobalIndexManager": "globidx.disk.index.manager",
    "IdentifiedDataset": "globidx.core.datasets.identity",
    "Location": "globidx.core.index.index",
    "MapDataset": "globidx.torch.sources.map_dataset",
    "PreemptionGuard": "globidx.torch.preemption",
    "Ranges": "globidx.core.progress.ranges",
    "RankPeers": "globidx.torch.ranks.peers",
    "ResumableDistributedSampler": "globidx.torch.sampler",
    "Run": "globidx.torch.training.run",
    "SequenceList": "globidx.core.windows.sampling",
    "Where": "globidx.core.windows.sampling",
    "Window": "globidx.core.windows.anchors",
    "merge_states": "globidx.core.progress.merge",
    "read_record": "globidx.disk.records.folder",
    "batch_rng": "globidx.torch.loops.moments",
    "dataloaders": "globidx.torch.training.dataloaders",
    "sample_rng": "globidx.core.generator",
}

__all__ = [
    "AbsentChunks",
    "ArrayInfo",
    "Changes",
    "CheckpointManager",
    "Constant",
    "DataLoader",
    "FileCacheDataset",
    "GlobalIndex",
    "GlobalIndexManager",
    "IdentifiedDataset",
    "Location",
    "MapDataset",
    "PreemptionGuard",
    "Ranges",
    "RankPeers",
    "ResumableDistributedSampler",
    "Run",
    "SequenceList",
    "Where",
    "Window",
    "batch_rng",
    "collate",
    "dataloaders",
    "errors",
    "merge_states",
    "metrics",
    "orders",
    "packing",
    "policies",
    "read_record",
    "sample_rng",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in ("collate", "errors", "metrics", "orders", "packing", "policies", "testing"):
        value = import_module(f"globidx.{name}")
    else:
        raise AttributeError(f"module 'globidx' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
