"""Collectives over the data-parallel ranks, on connections of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

import torch
import torch.distributed as dist

from globidx.torch.ranks import payloads
from globidx.torch.ranks.meetings import Meetings, answer_of
from globidx.torch.ranks.rollcall import RollCall
from globidx.torch.ranks.world import is_initialized

# of tensors that are kept until the next turn
_MOST_HELD_BYTES = 2**20


class Channel:
    """Collectives over some ranks, each bounded in time.

    Without a default group it is a world of one.

    A record is never caught between a training step's collectives, because the connections are the
    channel's own. They are made without ``dist.new_group``, which names a group by how many the
    process has made: a rank that has missed one of ours would miss all that follow, those of the
    training loop included. The backend is gloo, so that no GPU is needed. Integers and plain bytes
    travel in integer tensors, never pickles.

    Any failure of gloo is a RuntimeError; call ``give_up`` then, which lets the other ranks' calls
    fail too. All that a process has for one ``purpose`` over the same ranks shares a channel: see
    ``Channel.of``.
    """

    # by default group, and freed with it: managers that are made anew each epoch must share their
    # connections
    _of_job: ClassVar[WeakKeyDictionary[Any, dict[tuple[str, ...], Channel]]] = WeakKeyDictionary()

    def __init__(self, purpose: str, ranks: Sequence[int], default: Any) -> None:
        self._group: Any = None
        self._ranks, self.is_alone = list(ranks), default is None
        self._default = ref(default) if default is not None else _no_reference
        self.rank, self.world_size = 0, 1
        self._busy = threading.Lock()
        # the thread that holds it
        self._busy_in = 0
        self._held: list[torch.Tensor] = []
        self._meeting: int | None = None
        # the meeting that this rank itself has given up
        self._given_up: int | None = None
        # whether this rank was late in the turn before, and its caller has learnt so
        self._was_late = False
        if default is not None:
            self.rank, self.world_size = self._ranks.index(dist.get_rank()), len(self._ranks)
            among = "all" if len(ranks) == dist.get_world_size() else ",".join(map(str, ranks))
            self._meetings = Meetings(_store(), f"globidx/{purpose}/{among}")
            self._flag = torch.zeros(1, dtype=torch.int64)

    @classmethod
    def of(cls, purpose: str, group: Any) -> Channel:
        """The channel for this purpose over the ranks of ``group``, or of the default group.

        Nothing is sent.
        """
        default = dist.group.WORLD if is_initialized() else None
        if default is None:
            return cls(purpose, [0], None)
        ranks = dist.get_process_group_ranks(group if group is not None else default)
        mine = cls._of_job.setdefault(default, {})
        return mine.setdefault((purpose, *map(str, ranks)), cls(purpose, ranks, default))

    def take(self, patience: float) -> bool:
        """Keep other threads off until ``release``.

        False if this thread has it already, or another one has it for ``patience`` seconds.
        """
        here = threading.get_ident()
        # a lock that this thread holds would never be released while it waits here
        if self._busy_in == here or not self._busy.acquire(timeout=patience):
            return False
        self._busy_in = here
        return True

    def release(self) -> None:
        """Let other threads have it."""
        self._busy_in = 0
        self._busy.release()

    def meet(self, subject: str, timeout: float, *, look: bool = True) -> bool:
        """Connect to the other ranks, which make the call ``subject``, within ``timeout`` seconds.

        False, once, if they have made that very call and have given up waiting for this rank. With
        ``look=False`` existing connections are taken to be good, and no rank is late.
        """
        if self.is_alone or (self._group is not None and not look):
            return True
        # what gloo may still have held at the end of the last turn it has released by now
        self._held.clear()
        deadline = time.monotonic() + timeout
        # the store knows how often ranks have failed to meet; no rank counts that by itself
        newest, abandoned = self._meetings.newest(timeout)
        if newest != self._meeting:
            self._group, self._meeting = None, newest
            is_late = look and abandoned == subject and self._given_up != newest - 1
            if is_late and not self._was_late:
                self._was_late = True
                return False
        if self._group is None:
            store = dist.distributed_c10d.PrefixStore(self._meetings.prefix(newest), _store())
            left = timedelta(seconds=max(deadline - time.monotonic(), 0.001))
            # past new_group, whose names count all groups that a process has made
            self._group = dist.distributed_c10d.ProcessGroupGloo(
                store, self.rank, self.world_size, left
            )
        self._was_late = False
        return True

    @property
    def is_stale(self) -> bool:
        """Whether the default process group is another by now, or gone."""
        return not is_initialized() or self._default() is not dist.group.WORLD

    def limit(self, seconds: float) -> None:
        """Let collectives from here on wait so long, where this torch can change it."""
        if hasattr(self._group, "set_timeout"):
            self._group.set_timeout(timedelta(seconds=max(seconds, 0.001)))

    # -- collectives

    def all_gather_row(self, row: Sequence[int]) -> list[list[int]]:
        """Every rank's row of integers, in rank order, on every rank."""
        if self._group is None:
            return [list(row)]
        rows = [torch.zeros(len(row), dtype=torch.int64) for _ in range(self.world_size)]
        own = torch.tensor(row, dtype=torch.int64)
        self._hold(own, *rows)
        self._group.allgather([rows], [own]).wait()
        return [gathered.tolist() for gathered in rows]

    def all_gather(self, payload: bytes, sizes: Sequence[int]) -> list[bytes]:
        """Every rank's payload, of these sizes, in rank order, on every rank."""
        if self._group is None:
            return [payload]
        parts, own = payloads.room(sizes), payloads.to_tensor(payload, max(sizes))
        self._hold(own, *parts)
        self._group.allgather([parts], [own]).wait()
        return payloads.to_bytes(parts, sizes)

    def gather(self, payload: bytes, sizes: Sequence[int]) -> list[bytes]:
        """Every rank's payload, of these sizes, in rank order, on rank 0.

        On the others, an empty list.
        """
        if self._group is None:
            return [payload]
        # only rank 0 has the memory of all parts
        parts = payloads.room(sizes) if self.rank == 0 else []
        own = payloads.to_tensor(payload, max(sizes))
        self._hold(own, *parts)
        options = dist.distributed_c10d.GatherOptions()
        options.rootRank = 0
        self._group.gather([parts] if parts else [], [own], options).wait()
        return payloads.to_bytes(parts, sizes) if parts else []

    def broadcast(self, payload: bytes, size: int) -> bytes:
        """Rank 0's payload, of this size, on every rank."""
        if self._group is None or not size:
            return payload
        tensor = payloads.to_tensor(payload, size)
        self._hold(tensor)
        options = dist.distributed_c10d.BroadcastOptions()
        options.rootRank = options.rootTensor = 0
        self._group.broadcast([tensor], options).wait()
        return payloads.to_bytes([tensor], [size])[0]

    def all_reduce_max(self, value: int) -> int:
        """The greatest of the ranks' values: one collective on a tensor that is kept."""
        if self._group is None:
            return value
        self._flag[0] = value
        options = dist.distributed_c10d.AllreduceOptions()
        options.reduceOp = dist.ReduceOp.MAX  # type: ignore[assignment]
        self._group.allreduce([self._flag], options).wait()
        return int(self._flag[0])

    def barrier(self) -> None:
        """Wait for all ranks, after the last collective for now.

        gloo's threads release a collective's Python tensors a little after it is done, and abort
        the process if they are the last to do so while it exits. A barrier holds no tensor, so
        behind it they have mostly released them. Besides, small tensors are held here until the
        next turn, so that gloo is not the last.
        """
        if self._group is not None:
            self._group.barrier().wait()

    def _hold(self, *tensors: torch.Tensor) -> None:
        # small ones only: what is held stays in memory until the next turn
        if sum(tensor.nbytes for tensor in tensors) <= _MOST_HELD_BYTES:
            self._held += tensors

    def give_up(self, subject: str, patience: float) -> list[int] | None:
        """Close the connections, and return the ranks that do not answer.

        They have about ``patience`` seconds.

        Ranks that wait for one that waits for a dead one would otherwise notice only when their own
        time is up. The next ``meet`` makes new connections. None if the store does not answer,
        which then is what is lost. Without torchrun the store is in rank 0: if it does not answer,
        neither does rank 0.
        """
        self._group = None
        if self.is_stale:
            return None
        self._given_up = meeting = self._meeting if self._meeting is not None else 0
        # under the prefix of this meeting, so that an answer to an earlier call does not count
        call = RollCall(_store(), self._meetings.prefix(meeting), dist.get_rank(), self._ranks)

        def called() -> list[int]:
            self._meetings.give_up(meeting, subject)
            return call.missing(patience)

        # longer than the call itself takes, and still bounded if the store hangs
        missing = answer_of(called, 1.5 * patience)
        if missing is None and 0 in self._ranks and not dist.is_torchelastic_launched():
            return [self._ranks.index(0)]
        return missing


def _store() -> Any:
    """The store by which all ranks of the job have found each other."""
    # not in torch 2.4
    own_store = getattr(dist.group.WORLD, "get_group_store", None)
    return (own_store or dist.distributed_c10d._get_default_store)()


def _no_reference() -> None:
    return None
