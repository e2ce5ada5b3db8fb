"""Gathering: unites the states of all ranks for one record, or names the rank that disagrees."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from globidx.core.json import strict
from globidx.errors import CommitError, RecordMismatchError

Merge = Callable[[list[dict[str, Any]]], Mapping[str, Any]]


def united(parts: Sequence[Mapping[str, Any]], merges: Mapping[str, Merge]) -> dict[str, Any]:
    """Unite the states of all ranks, by name.

    Each part has its ``step``, its ``states`` by name, and in ``ranks`` the (rank, world size) of
    each object that knows its own. Such an object has one state for each of its ranks: the parts
    of tensor-parallel peers, which have the same rank, must be equal. States that may differ by
    rank are united by their function in ``merges``. All others must be equal on every rank;
    RecordMismatchError names the rank whose state is not.

    >>> parts = [{"step": 1, "states": {"lr": {"now": lr}}, "ranks": {}} for lr in (3, 3)]
    >>> united(parts, {})
    {'lr': {'now': 3}}
    >>> united(parts, {"lr": lambda states: {"sum": sum(state["now"] for state in states)}})
    {'lr': {'sum': 6}}
    """
    _same("step", [part["step"] for part in parts])
    _same("objects", [list(part["states"]) for part in parts])
    return {name: _united(name, parts, merges.get(name)) for name in parts[0]["states"]}


def _united(name: str, parts: Sequence[Mapping[str, Any]], merge: Merge | None) -> dict[str, Any]:
    # an object that knows no rank of its own has that of the process which brings it
    ranked = [(rank, part["states"][name]) for rank, part in enumerate(parts)]
    if any(name in part["ranks"] for part in parts):
        ranked = _by_own_rank(name, parts)
    states: list[dict[str, Any]] = [state for _, state in ranked]
    if merge is not None:
        merged: dict[str, Any] = strict.plain(dict(merge(states)), f"states[{name!r}]")
        return merged
    _refuse_difference(name, ranked)
    return states[0]


def _by_own_rank(name: str, parts: Sequence[Mapping[str, Any]]) -> list[tuple[int, dict[str, Any]]]:
    """Return (process that has it, state) for each rank of the objects of that name.

    They are in rank order.
    """
    # (0, 0) disagrees with every world size: an object ranked on one process only is refused
    own = [part["ranks"].get(name, (0, 0)) for part in parts]
    _same(f"a world size of {name!r},", [size for _, size in own])
    ranks, size = [int(rank) for rank, _ in own], int(own[0][1])
    # the process group was made after the manager, or the manager has a smaller group
    if size > len(parts):
        raise CommitError(
            f"the sampler {name!r} has {size} ranks, but the manager gathers from {len(parts)}; call "
            "init_process_group first, or pass the same group= to both"
        )
    # tensor-parallel peers have the same rank, and each rank has as many of them
    if sorted(ranks) != sorted([*range(size)] * (len(parts) // size)):
        raise RecordMismatchError(
            f"the samplers {name!r} of ranks [0, {len(parts)}) have the ranks {ranks} of {size}, but each of these "
            "must be there equally often; pass no rank=, or the right one"
        )
    for rank in range(size):
        _refuse_difference(
            name, [(who, parts[who]["states"][name]) for who, r in enumerate(ranks) if r == rank]
        )
    # of equal peers the first speaks for its rank
    return [(ranks.index(rank), parts[ranks.index(rank)]["states"][name]) for rank in range(size)]


def _same(what: str, values: Sequence[Any]) -> None:
    for rank, value in enumerate(values):
        if value != values[0]:
            raise RecordMismatchError(
                f"rank {rank} saves {what} {value}, but rank 0 saves {values[0]}; save the same on every rank"
            )


def _refuse_difference(name: str, ranked: Sequence[tuple[int, Mapping[str, Any]]]) -> None:
    first, expected = ranked[0]
    for rank, state in ranked:
        if state != expected:
            raise RecordMismatchError(
                f"the state of {name!r} differs between ranks {first} and {rank}: "
                f"{_first_difference(expected, state)}; make it equal on all ranks, or give the object a method "
                "merge_states(states) that returns one state for all"
            )


def _first_difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    key = next(
        key
        for key in [*one, *other]
        if key not in one or key not in other or one[key] != other[key]
    )
    return f"{key} is {one.get(key)!r:.80} and {other.get(key)!r:.80}"
