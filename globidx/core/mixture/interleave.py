"""Whose turn it is: a periodic pattern in which everybody comes up as often as its share says.

The pattern solves the chairman assignment problem [1]_: among the first t turns of a period, the
number of each one's turns differs from its exact share by less than 1. It is computed once, by
serving the turn with the earliest deadline, in integers.

A pattern of ten turns would give every tenth turn to the same one, and so to the same one of ten
ranks. So the pattern is turned on by one place from block to block of at least 1,024 turns. Within
each block every share is exact, and a window that crosses from one block to the next differs from
one without a crossing by one turn.

.. [1] R. Tijdeman, "The chairman assignment problem", Discrete Mathematics 32, 1980.
"""

from __future__ import annotations

import heapq
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# at least so many turns are taken before the pattern is turned on by one place
_BLOCK = 2**10


class Interleave:
    """An endless sequence of turns, ``turns[i]`` of each period for number i.

    >>> some = Interleave((3, 2, 1))
    >>> whose, before = some.forward(np.arange(6))
    >>> whose.tolist(), before.tolist()
    ([0, 1, 0, 2, 0, 1], [0, 0, 1, 0, 2, 1])
    >>> some.inverse(whose, before)
    array([0, 1, 2, 3, 4, 5])
    """

    def __init__(self, turns: tuple[int, ...]) -> None:
        self._turns = np.array(turns, np.int64)
        self._table = _table(turns)
        self._period = int(self._turns.sum())
        self._periods = -(-_BLOCK // self._period)
        self._block = self._periods * self._period

    def forward(self, at: Indices) -> tuple[Indices, Indices]:
        """Return whose turn each is, and how many turns were theirs before it."""
        block, within = np.divmod(at, self._block)
        first = block % self._period
        laps, spot = np.divmod(first + within, self._period)
        whose = self._table.whose[spot]
        seen = laps * self._turns[whose] + self._table.rank[spot] - self._before(whose, first)
        return whose, block * self._periods * self._turns[whose] + seen

    def inverse(self, whose: Indices, before: Indices) -> Indices:
        """Return at which turn each is served that had ``before`` turns: ``forward``, undone."""
        each = self._turns[whose]
        block, rest = np.divmod(before, self._periods * each)
        first = block % self._period
        laps, rank = np.divmod(rest + self._before(whose, first), each)
        spot = self._table.spots[self._table.starts[whose] + rank]
        at: Indices = block * self._block + laps * self._period + spot - first
        return at

    def served(self, turns: int) -> list[int]:
        """Return how many of the first ``turns`` turns are each one's."""
        block, within = divmod(turns, self._block)
        everybody = np.arange(len(self._turns))
        first = np.full_like(everybody, block % self._period)
        laps, spot = np.divmod(first + within, self._period)
        seen = laps * self._turns + self._before(everybody, spot) - self._before(everybody, first)
        return [
            block * self._periods * each + int(more)
            for each, more in zip(self._turns.tolist(), seen, strict=True)
        ]

    def _before(self, whose: Indices, spots: Indices) -> Indices:
        """Return how many turns of the period before ``spots`` are theirs."""
        keys = whose * self._period + spots
        before: Indices = np.searchsorted(self._table.keys, keys) - self._table.starts[whose]
        return before


class _Table(NamedTuple):
    # spot of the period -> whose turn, and which of theirs
    whose: Indices
    rank: Indices
    # the spots of number 0, then those of number 1, ...; where each begins; both as one number
    spots: Indices
    starts: Indices
    keys: Indices


@lru_cache(maxsize=16)
def _table(turns: tuple[int, ...]) -> _Table:
    whose = np.array(_pattern(turns), np.int64)
    spots = np.argsort(whose, kind="stable")
    starts = np.concatenate([[0], np.cumsum(turns)[:-1]]).astype(np.int64)
    rank = np.empty(len(whose), np.int64)
    rank[spots] = np.arange(len(whose)) - starts[whose[spots]]
    return _Table(whose, rank, spots, starts, whose[spots] * len(whose) + spots)


def _pattern(turns: tuple[int, ...]) -> list[int]:
    """Return whose turn each of one period is.

    The j-th turn of number i must not come before its share of the turns so far exceeds j by
    1 / (2 m - 2), for m that take part, and not after the share exceeds j + 1 by less than that:
    then serving the earliest deadline meets them all.
    """
    period, many = sum(turns), sum(map(bool, turns))
    slack = max(1, 2 * many - 2)

    def release(one: int, served: int) -> int:
        # the first turn t with t * share >= served + 1 / slack
        return -(-(served * slack + 1) * period // (turns[one] * slack))

    def deadline(one: int, served: int) -> int:
        return ((served + 1) * slack - 1) * period // (turns[one] * slack)

    coming = [(release(one, 0), one, 0) for one, count in enumerate(turns) if count]
    heapq.heapify(coming)
    ready: list[tuple[int, int, int]] = []
    pattern = []
    for turn in range(1, period + 1):
        while coming and coming[0][0] <= turn:
            _, one, served = heapq.heappop(coming)
            heapq.heappush(ready, (deadline(one, served), one, served))
        _, one, served = heapq.heappop(ready)
        pattern.append(one)
        if served + 1 < turns[one]:
            heapq.heappush(coming, (max(turn + 1, release(one, served + 1)), one, served + 1))
    return pattern
