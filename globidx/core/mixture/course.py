"""The course of a mixture over one epoch: legs, in each of which the shares are constant.

A leg begins where weights change, or where a dataset that is not started again has come to its end.
In a leg, the turns are those of one ``Interleave``; draws are counted over all legs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.mixture.interleave import Interleave

Indices = NDArray[np.int64]


class StopCriteria(StrEnum):
    """When an epoch of a mixture ends, named as ``torchdata.nodes.StopCriteria`` names them."""

    #: When each dataset was read once; those that are left share the turns of those that are not.
    ALL_DATASETS_EXHAUSTED = "ALL_DATASETS_EXHAUSTED"
    #: When the first dataset has come to its end.
    FIRST_DATASET_EXHAUSTED = "FIRST_DATASET_EXHAUSTED"
    #: When each dataset was read to its end at least once; the others start again meanwhile.
    CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED = "CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED"
    #: After a number of positions; the next epoch goes on in the middle of the passes.
    CYCLE_FOREVER = "CYCLE_FOREVER"


# far beyond any run, and its sum with another such number is still an int64
_ENDLESS = 2**61


class Change(NamedTuple):
    """Weights from a position on, as turns of a period."""

    position: int
    turns: tuple[int, ...]


class Leg(NamedTuple):
    """Turns from a position on, and how often each dataset was drawn before."""

    start: int
    interleave: Interleave
    drawn: tuple[int, ...]


class Course:
    """Which dataset each position draws from, and which of its draws that is.

    Parameters
    ----------
    sizes : sequence of int
        How many draws are a pass of each dataset.
    changes : sequence of Change
        Ascending by position, the first at 0.
    stop : StopCriteria
        When it ends.

    Examples
    --------
    >>> course = Course((4, 2), [Change(0, (1, 1))], "ALL_DATASETS_EXHAUSTED")
    >>> which, draw = course.forward(np.arange(6))
    >>> which.tolist(), draw.tolist(), course.length
    ([0, 1, 0, 1, 0, 0], [0, 0, 1, 1, 2, 3], 6)
    """

    def __init__(self, sizes: Sequence[int], changes: Sequence[Change], stop: str) -> None:
        self._sizes, self._stop = tuple(sizes), stop
        self._legs: list[Leg] = []
        self.length = 0
        ends = [change.position for change in changes[1:]]
        for change, end in zip(changes, [*ends, _ENDLESS], strict=True):
            if self._run(change.turns, end):
                break
        self._starts = np.array([leg.start for leg in self._legs], np.int64)
        # a column for each dataset
        self._drawn = np.array([leg.drawn for leg in self._legs], np.int64).reshape(-1, len(sizes))

    def forward(self, positions: Indices) -> tuple[Indices, Indices]:
        """Return the dataset of each position, and which of its draws that is."""
        legs = np.searchsorted(self._starts, positions, side="right") - 1
        which, draws = np.empty_like(positions), np.empty_like(positions)
        for number in np.unique(legs).tolist():
            here = legs == number
            which[here], draws[here] = self._legs[number].interleave.forward(
                positions[here] - self._starts[number]
            )
        return which, draws + self._drawn[legs, which]

    def inverse(self, which: int, draws: Indices) -> Indices:
        """Return the positions of draws of one dataset; they are trusted to be drawn."""
        # a leg that draws nothing of it begins with the same count as the next one
        legs = np.searchsorted(self._drawn[:, which], draws, side="right") - 1
        positions = np.empty_like(draws)
        for number in np.unique(legs).tolist():
            here, leg = legs == number, self._legs[number]
            since = draws[here] - leg.drawn[which]
            positions[here] = leg.start + leg.interleave.inverse(np.full_like(since, which), since)
        return positions

    def drawn(self, position: int) -> list[int]:
        """Return how often each dataset is drawn before a position."""
        if not self._legs:
            return [0] * len(self._sizes)
        leg = self._legs[int(np.searchsorted(self._starts, position, side="right")) - 1]
        served = leg.interleave.served(position - leg.start)
        return [before + more for before, more in zip(leg.drawn, served, strict=True)]

    # -- inside

    def _run(self, turns: tuple[int, ...], end: int) -> bool:
        """Add legs of these turns up to ``end``; return whether the course ends before."""
        while True:
            drawn = tuple(self.drawn(self.length))
            taking = self._taking(turns, drawn)
            if not any(taking):
                return True
            interleave = Interleave(taking)
            leg_end, is_over = self._end(interleave, taking, drawn)
            if self.length < min(leg_end, end):
                self._legs.append(Leg(self.length, interleave, drawn))
                self._starts = np.array([leg.start for leg in self._legs], np.int64)
            self.length = min(leg_end, end)
            # where weights change at the very end, those after it decide
            if leg_end >= end or is_over:
                return leg_end < end

    def _taking(self, turns: tuple[int, ...], drawn: tuple[int, ...]) -> tuple[int, ...]:
        """Return the turns of those that take part."""
        if self._stop != "ALL_DATASETS_EXHAUSTED":
            return turns
        left = [
            turn * (done < size) for turn, done, size in zip(turns, drawn, self._sizes, strict=True)
        ]
        # the fewest turns in this ratio: a period takes a table of its length
        common = max(1, math.gcd(*left))
        return tuple(turn // common for turn in left)

    def _end(
        self, interleave: Interleave, turns: tuple[int, ...], drawn: tuple[int, ...]
    ) -> tuple[int, bool]:
        """Return where a leg from here ends by the rule, and whether the course ends there."""
        if self._stop == "CYCLE_FOREVER":
            return _ENDLESS, True
        # which draw of a dataset is its last, counted from here; negative if it was before
        left = {
            which: size - done
            for which, (turn, size, done) in enumerate(zip(turns, self._sizes, drawn, strict=True))
            if turn
        }
        if self._stop == "FIRST_DATASET_EXHAUSTED":
            # the epoch ends where a dataset has nothing to give when its turn comes
            return self.length + min(self._at(interleave, *one) for one in left.items()), True
        last = [
            self._at(interleave, which, more - 1) + 1 for which, more in left.items() if more > 0
        ]
        if self._stop == "ALL_DATASETS_EXHAUSTED":
            return self.length + min(last), False
        return self.length + max(last, default=0), True

    @staticmethod
    def _at(interleave: Interleave, which: int, draw: int) -> int:
        return int(interleave.inverse(np.array([which]), np.array([draw]))[0])
