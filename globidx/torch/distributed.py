"""Ranks and their talk: the only file that names torch.distributed.

Who am I is asked late, because loaders are often built before the process group is: explicit numbers first, then the
mesh or group given, then the default group, then torchrun's environment, then a single process.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from globidx.core import checks


@dataclass(frozen=True)
class World:
    """Where rank and world size of the data-parallel group come from; nothing is asked before it is needed.

    ``mesh`` is a DeviceMesh of the data-parallel dimensions, one or several (ranks count row by row); ``group`` a
    process group.
    """

    num_replicas: int | None = None
    rank: int | None = None
    group: Any = None
    mesh: Any = None

    def resolve(self) -> tuple[int, int]:
        """(rank, world size); ValueError where the rank is outside ``[0, world size)``."""
        if self.num_replicas is not None and self.rank is not None:
            return _checked(self.rank, self.num_replicas)
        rank, world_size = self._found()
        return _checked(
            rank if self.rank is None else self.rank, world_size if self.num_replicas is None else self.num_replicas
        )

    def _found(self) -> tuple[int, int]:
        if self.mesh is not None:
            return _mesh_rank(self.mesh), int(self.mesh.size())
        if is_initialized():
            return dist.get_rank(self.group), dist.get_world_size(self.group)
        if "RANK" in os.environ and "WORLD_SIZE" in os.environ:  # torchrun's, before init_process_group
            return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return 0, 1

    def for_child(self) -> World:
        """The same for a pickled copy, which has no process group.

        What is known by now is written down, the rest is still asked late.
        """
        if self.mesh is None and not is_initialized():
            return replace(self, group=None)
        rank, world_size = self.resolve()
        return World(num_replicas=world_size, rank=rank)


def is_initialized() -> bool:
    """Whether there is a default process group."""
    return dist.is_available() and dist.is_initialized()


class Channel:
    """Collectives over the data-parallel ranks, on a process group of its own, each bounded by ``timeout`` seconds.

    Own group, so that a record is never caught between a training step's collectives; gloo, so that it needs no GPU.
    Without a default group it is a world of one, and talks to itself.
    """

    def __init__(self, group: Any, timeout: float) -> None:
        self._group: Any = None
        self.rank, self.world_size = 0, 1
        if is_initialized():
            ranks = dist.get_process_group_ranks(group if group is not None else dist.group.WORLD)
            # Everybody comes where the group is everybody; a smaller one is made among its own ranks, which torch can
            # do only where those have made as many groups as each other.
            self._group = dist.new_group(
                ranks,
                backend="gloo",
                timeout=timedelta(seconds=timeout),
                use_local_synchronization=group is not None and len(ranks) < dist.get_world_size(),
            )
            self.rank, self.world_size = dist.get_rank(self._group), len(ranks)

    @property
    def is_alone(self) -> bool:
        """Whether it was made before there was anybody to talk to."""
        return self._group is None

    def gather(self, payload: bytes) -> list[bytes]:
        """Every rank's payload, in rank order, on every rank; sent as plain bytes, never as pickles."""
        if self._group is None:
            return [payload]
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.world_size)]
        dist.all_gather(sizes, torch.tensor([len(payload)]), group=self._group)
        longest = max(int(size) for size in sizes)
        mine = torch.zeros(longest, dtype=torch.uint8)
        mine[: len(payload)] = _to_tensor(payload)
        parts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.world_size)]
        dist.all_gather(parts, mine, group=self._group)
        # gloo's thread frees a collective's Python tensors a little after it is done, and aborts the process if that
        # is exiting by then. A barrier holds none: behind it nothing of ours is left to free.
        dist.barrier(group=self._group)
        return [part[: int(size)].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]


def _to_tensor(payload: bytes) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(payload, np.uint8).copy())


def _mesh_rank(mesh: Any) -> int:
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ValueError(f"this process is not part of the mesh {mesh}; pass the mesh of its own data-parallel ranks")
    rank = 0
    for place, size in zip(coordinate, mesh.shape, strict=True):
        rank = rank * size + place
    return rank


def _checked(rank: Any, world_size: Any) -> tuple[int, int]:
    size = checks.integer(world_size, "num_replicas", low=1)
    place = checks.integer(rank, "rank", low=-(2**63))
    if not 0 <= place < size:
        raise ValueError(f"rank must be in [0, {size}), the world size, got {place}")
    return place, size
