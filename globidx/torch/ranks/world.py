"""Rank and world size.

They are resolved late, because loaders are often built before the process group is: explicit
arguments first, then the mesh or group, then the default group, then torchrun's environment, then a
single process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import torch.distributed as dist

from globidx.core import validate


@dataclass(frozen=True)
class World:
    """Where rank and world size of the data-parallel group come from.

    Nothing is resolved before it is needed.

    ``mesh`` is a DeviceMesh of the data-parallel dimensions, one or several (ranks count row by
    row); ``group`` a process group.
    """

    num_replicas: int | None = None
    rank: int | None = None
    group: Any = None
    mesh: Any = None

    def resolve(self) -> tuple[int, int]:
        """(rank, world size); ValueError if the rank is outside ``[0, world size)``."""
        if self.num_replicas is not None and self.rank is not None:
            return _checked(self.rank, self.num_replicas)
        rank, world_size = self._looked_up()
        return _checked(
            rank if self.rank is None else self.rank,
            world_size if self.num_replicas is None else self.num_replicas,
        )

    def _looked_up(self) -> tuple[int, int]:
        if self.mesh is not None:
            return _mesh_rank(self.mesh), int(self.mesh.size())
        if is_initialized():
            return dist.get_rank(self.group), dist.get_world_size(self.group)
        # torchrun's, before init_process_group
        if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
            return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return 0, 1

    def for_child(self) -> World:
        """The same for a copy in another process, which has no process group.

        What is known by now is fixed; anything else is still resolved late.
        """
        if self.mesh is None and not is_initialized():
            return replace(self, group=None)
        rank, world_size = self.resolve()
        return World(num_replicas=world_size, rank=rank)


def is_initialized() -> bool:
    """Whether there is a default process group."""
    return dist.is_available() and dist.is_initialized()


def _mesh_rank(mesh: Any) -> int:
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ValueError(
            f"this process is not part of the mesh {mesh}; pass the mesh of its own data-parallel "
            "ranks"
        )
    rank = 0
    for index, size in zip(coordinate, mesh.shape, strict=True):
        rank = rank * size + index
    return rank


def _checked(rank: Any, world_size: Any) -> tuple[int, int]:
    if isinstance(world_size, int) and isinstance(rank, int) and world_size < 1 <= rank:
        raise ValueError(
            f"num_replicas={world_size} and rank={rank}: the world size comes first, as in torch, "
            "and is at least 1: ResumableDistributedSampler(dataset, num_replicas, rank)"
        )
    size = validate.integer(world_size, "num_replicas", low=1)
    own = validate.integer(rank, "rank", low=-(2**63))
    if not 0 <= own < size:
        raise ValueError(
            f"rank must be in [0, {size}), got {own}, where {size} is num_replicas, the world "
            "size; it comes first, as in torch: ResumableDistributedSampler(dataset, "
            "num_replicas, rank)"
        )
    return own, size
