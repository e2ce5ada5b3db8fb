"""Ranks and their talk: the only file that names torch.distributed.

Who am I is asked late, because loaders are often built before the process group is: explicit numbers first, then the
mesh or group given, then the default group, then torchrun's environment, then a single process.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as dist

from globidx.core import validate
from globidx.torch.ranks import payloads
from globidx.torch.ranks.meetings import Meetings, asked
from globidx.torch.ranks.rollcall import RollCall
from globidx.torch.ranks.siblings import Siblings


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
    """Collectives over the data-parallel ranks, on connections of its own, each bounded in time.

    Own connections, so that a record is never caught between a training step's collectives, and made past
    ``dist.new_group``, which names a group by how many the process has made: a rank that has missed one of ours would
    miss all that follow, the training loop's among them. gloo, so that it needs no GPU. Numbers and plain bytes in
    integer tensors, never pickles. Without a default group it is a world of one, and talks to itself. What gloo cannot
    do raises RuntimeError; then ``give_up``, which lets the other ranks' calls fail too.

    All that a process has for the same ``purpose`` over the same ranks shares one: see ``Channel.of``.
    """

    # by the default group, and gone with it
    _of_job: ClassVar[WeakKeyDictionary[Any, dict[tuple[str, ...], Channel]]] = WeakKeyDictionary()

    def __init__(self, purpose: str, ranks: Sequence[int], default: Any) -> None:
        self._group: Any = None
        self._ranks, self.is_alone = list(ranks), default is None
        self._default = ref(default) if default is not None else _nobody
        self.rank, self.world_size = 0, 1
        self._busy, self._busy_in = threading.Lock(), 0  # and in which thread
        self._held: list[torch.Tensor] = []
        self._number: int | None = None  # of the meeting
        self._left: int | None = None  # number of the one that this rank has given up itself
        self._was_late = False  # and was told so in the turn before
        if default is not None:
            self.rank, self.world_size = self._ranks.index(dist.get_rank()), len(self._ranks)
            among = "all" if self._is_whole else ",".join(map(str, ranks))
            self._meetings = Meetings(_store(), f"globidx/{purpose}/{among}")
            self._flag = torch.zeros(1, dtype=torch.int64)

    @classmethod
    def of(cls, purpose: str, group: Any) -> Channel:
        """The one for this purpose over the ranks of ``group``, or of the default group; nothing is sent."""
        default = dist.group.WORLD if is_initialized() else None
        if default is None:
            return cls(purpose, [0], None)
        ranks = dist.get_process_group_ranks(group if group is not None else default)
        mine = cls._of_job.setdefault(default, {})
        return mine.setdefault((purpose, *map(str, ranks)), cls(purpose, ranks, default))

    def take(self, patience: float) -> bool:
        """Keep other threads off until ``release``; False if this one has it, or another for ``patience`` seconds."""
        here = threading.get_ident()
        if self._busy_in == here or not self._busy.acquire(timeout=patience):
            return False
        self._busy_in = here
        return True

    def release(self) -> None:
        """Let other threads have it."""
        self._busy_in = 0
        self._busy.release()

    def meet(self, over: str, timeout: float, *, look: bool = True) -> bool:
        """Be connected to the other ranks, which do ``over``, within ``timeout`` seconds.

        False, once, where they have been here for just that and have given up waiting for this rank. With
        ``look=False`` connections that are there are taken to be good, and nobody is late.
        """
        if self.is_alone or (self._group is not None and not look):
            return True
        self._held.clear()
        until = time.monotonic() + timeout
        newest, given_up = self._meetings.newest(timeout)
        if newest != self._number:
            self._group, self._number = None, newest
            is_late = look and given_up == over and self._left != newest - 1
            if is_late and not self._was_late:
                self._was_late = True
                return False
        if self._group is None:
            store = dist.distributed_c10d.PrefixStore(self._meetings.prefix(newest), _store())
            left = timedelta(seconds=max(until - time.monotonic(), 0.001))
            self._group = dist.distributed_c10d.ProcessGroupGloo(store, self.rank, self.world_size, left)
        self._was_late = False
        return True

    @property
    def _is_whole(self) -> bool:
        return len(self._ranks) == dist.get_world_size()

    def siblings(self, name: str) -> Siblings | None:
        """Groups of this job that do the same under that name; there can be none where this is all of it."""
        if self.is_alone or self._is_whole:
            return None
        return Siblings(_store(), name, dist.get_rank())

    @property
    def is_stale(self) -> bool:
        """Whether the default process group is another by now, or gone."""
        return not is_initialized() or self._default() is not dist.group.WORLD

    def limit(self, seconds: float) -> None:
        """Let collectives from here on wait so long, where this torch can change it."""
        if hasattr(self._group, "set_timeout"):
            self._group.set_timeout(timedelta(seconds=max(seconds, 0.001)))

    def exchange(self, row: Sequence[int]) -> list[list[int]]:
        """Every rank's row of numbers, in rank order, on every rank."""
        if self._group is None:
            return [list(row)]
        rows = [torch.zeros(len(row), dtype=torch.int64) for _ in range(self.world_size)]
        own = torch.tensor(row, dtype=torch.int64)
        self._hold(own, *rows)
        self._group.allgather([rows], [own]).wait()
        return [found.tolist() for found in rows]

    def share(self, payload: bytes, sizes: Sequence[int]) -> list[bytes]:
        """Every rank's payload, of these sizes, in rank order, on every rank."""
        if self._group is None:
            return [payload]
        parts, own = payloads.room(sizes), payloads.to_tensor(payload, max(sizes))
        self._hold(own, *parts)
        self._group.allgather([parts], [own]).wait()
        return payloads.to_bytes(parts, sizes)

    def collect(self, payload: bytes, sizes: Sequence[int]) -> list[bytes]:
        """Every rank's payload, of these sizes, in rank order, on rank 0; nothing on the others."""
        if self._group is None:
            return [payload]
        parts, own = payloads.room(sizes) if self.rank == 0 else [], payloads.to_tensor(payload, max(sizes))
        self._hold(own, *parts)
        options = dist.distributed_c10d.GatherOptions()
        options.rootRank = 0
        self._group.gather([parts] if parts else [], [own], options).wait()
        return payloads.to_bytes(parts, sizes) if parts else []

    def spread(self, payload: bytes, size: int) -> bytes:
        """Rank 0's payload, of this size, on every rank."""
        if self._group is None or not size:
            return payload
        tensor = payloads.to_tensor(payload, size)
        self._hold(tensor)
        options = dist.distributed_c10d.BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        self._group.broadcast([tensor], options).wait()
        return payloads.to_bytes([tensor], [size])[0]

    def greatest(self, number: int) -> int:
        """The greatest of the ranks' numbers: one collective on a tensor that is kept."""
        if self._group is None:
            return number
        self._flag[0] = number
        options = dist.distributed_c10d.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX  # type: ignore[assignment]
        self._group.allreduce([self._flag], options).wait()
        return int(self._flag[0])

    def rest(self) -> None:
        """Let the ranks come to rest, after their last collective for now.

        gloo's threads let go of a collective's Python tensors a little after it is done, and abort the process if they
        are the last to do so while that exits. A barrier holds none: behind it they have mostly let go. Small tensors
        are held here until the next turn, besides, so that gloo is not the last.
        """
        if self._group is not None:
            self._group.barrier().wait()

    def _hold(self, *tensors: torch.Tensor) -> None:
        if sum(tensor.nbytes for tensor in tensors) <= 2**20:
            self._held += tensors

    def give_up(self, over: str, patience: float) -> list[int] | None:
        """Close the connections, and find out within some ``patience`` seconds which ranks do not answer.

        Ranks that wait for one that is waiting for a dead one would else hear of it only when their own time is up. The
        next ``meet`` makes new ones. None where it cannot be told who is missing. Without torchrun the store by which
        it is told lives in rank 0: if that is silent, so is rank 0.
        """
        self._group = None
        if self.is_stale:
            return None
        self._left = number = self._number if self._number is not None else 0
        call = RollCall(_store(), self._meetings.prefix(number), dist.get_rank(), self._ranks)

        def called() -> list[int]:
            self._meetings.give_up(number, over)
            return call.missing(patience)

        found = asked(called, 1.5 * patience)
        if found is None and 0 in self._ranks and not dist.is_torchelastic_launched():
            return [self._ranks.index(0)]
        return found


def _store() -> Any:
    """The store by which all ranks of the job have found each other."""
    ask = getattr(dist.group.WORLD, "get_group_store", None)  # not in torch 2.4
    return (ask or dist.distributed_c10d._get_default_store)()


def _nobody() -> None:
    return None


def _mesh_rank(mesh: Any) -> int:
    coordinate = mesh.get_coordinate()
    if coordinate is None:
        raise ValueError(f"this process is not part of the mesh {mesh}; pass the mesh of its own data-parallel ranks")
    rank = 0
    for place, size in zip(coordinate, mesh.shape, strict=True):
        rank = rank * size + place
    return rank


def _checked(rank: Any, world_size: Any) -> tuple[int, int]:
    if isinstance(world_size, int) and isinstance(rank, int) and world_size < 1 <= rank:
        raise ValueError(
            f"num_replicas={world_size} and rank={rank}: the world size comes first, as in torch, and is at least 1: "
            "ResumableDistributedSampler(dataset, num_replicas, rank)"
        )
    size = validate.integer(world_size, "num_replicas", low=1)
    place = validate.integer(rank, "rank", low=-(2**63))
    if not 0 <= place < size:
        raise ValueError(
            f"rank must be in [0, {size}), got {place}, where {size} is num_replicas, the world size; it comes first, "
            "as in torch: ResumableDistributedSampler(dataset, num_replicas, rank)"
        )
    return place, size
