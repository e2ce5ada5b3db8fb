"""How many shards, and rows of known shards, ranks and workers have left of an epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from globidx.core.streams.shard_progress import Part, ShardProgress
from globidx.core.streams.shard_state import ShardState


def parts_left(state: ShardState, rank: int) -> list[Part]:
    """What a rank has left up to the end of the epoch of ``state``, as far as ``state`` knows.

    >>> state = ShardState(5, "", False, 0, world_size=2, rank=0)
    >>> [part.shard for part in parts_left(state, 1)]
    [1, 3]
    """
    is_own = rank == state.rank
    its = state if is_own else replace(state, rank=rank, own=ShardProgress())
    return list(its.left(state.end))


def rows_in(state: ShardState, parts: Sequence[Part], lengths: Sequence[int]) -> int:
    """How many rows are left of some shards, by the length of each shard as the user lists them.

    >>> state = ShardState(3, "", False, 0)
    >>> rows_in(state, [Part(0, 4), Part(2, 0)], lengths=[5, 6, 7])
    8
    """
    numbers = state.numbers([part.shard for part in parts])
    return sum(lengths[number] for number in numbers) - sum(part.start for part in parts)


def divided(
    state: ShardState, workers: int, worker: int | None, count: Callable[[list[Part]], int]
) -> dict[str, Any]:
    """How what is left is divided, as ``count`` counts it; ``worker`` is who asks, if a worker does."""
    left = [parts_left(state, rank) for rank in range(state.world_size)]
    per_rank = [count(parts) for parts in left]
    per_worker = [count(left[state.rank][number::workers]) for number in range(workers)]
    return {
        "total": sum(per_rank),
        "per_rank": per_rank,
        "per_worker": per_worker,
        "assigned": per_rank[state.rank] if worker is None else per_worker[worker],
    }
