"""Gaps: positions that are left out, as runs, and the enumeration of those that stay.

Many layers of a history commit or leave out few positions each. Such a layer is a list of runs, and
two in a row are one: so a thousand uneven restarts cost one binary search for each index.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.progress.ranges import Ranges

Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Gaps:
    """Positions in ``[starts[i], ends[i])`` are left out.

    Parameters
    ----------
    starts, ends
        Bounds of the runs, int64, ascending. No run is empty, none touches the next.

    Examples
    --------
    >>> gaps = Gaps.of(np.array([0, 1, 2, 5]))
    >>> gaps.starts.tolist(), gaps.ends.tolist()
    ([0, 5], [3, 6])
    >>> gaps.forward(np.arange(4))
    array([3, 4, 6, 7])
    """

    starts: Indices
    ends: Indices

    @classmethod
    def of(cls, positions: Indices) -> Gaps:
        """The gaps that leave out ``positions``, ascending and distinct."""
        # of no position there is no run: neither a first nor a last
        ends = min(1, len(positions))
        breaks = np.flatnonzero(np.diff(positions) != 1)
        firsts = np.concatenate([np.zeros(ends, np.int64), breaks + 1])
        lasts = np.concatenate([breaks, np.full(ends, len(positions) - 1, np.int64)])
        return cls(positions[firsts], positions[lasts] + 1)

    @classmethod
    def of_ranges(cls, ranges: Ranges) -> Gaps:
        """The gaps that leave out the positions of a set."""
        bounds = np.array(ranges.pairs, np.int64).reshape(-1, 2)
        return cls(bounds[:, 0], bounds[:, 1])

    @classmethod
    def united(cls, starts: Indices, ends: Indices) -> Gaps:
        """The gaps that leave out ``[starts[i], ends[i])``.

        Runs come in any sequence, and may be empty, overlap or touch.
        """
        runs = np.flatnonzero(starts < ends)
        runs = runs[np.argsort(starts[runs], kind="stable")]
        # A run ends where the furthest of those before it does, since a long one may hold others.
        starts, reach = starts[runs], np.maximum.accumulate(ends[runs])
        first = np.concatenate([np.ones(min(1, len(starts)), bool), starts[1:] > reach[:-1]])
        last = np.concatenate([first[1:], np.ones(min(1, len(starts)), bool)])
        return cls(starts[first], reach[last])

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def ranges(self) -> Ranges:
        """The positions that are left out, as a set."""
        return Ranges(tuple(zip(self.starts.tolist(), self.ends.tolist(), strict=True)))

    @property
    def size(self) -> int:
        """How many positions are left out."""
        return int(self._gone[-1])

    @cached_property
    def _gone(self) -> Indices:
        """How many positions the first i runs leave out."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.ends - self.starts)])

    @cached_property
    def _before(self) -> Indices:
        """How many positions stay before each run."""
        return self.starts - self._gone[:-1]

    def forward(self, indices: Indices) -> Indices:
        """The positions at ``indices`` of those that stay."""
        return indices + self._gone[np.searchsorted(self._before, indices, side="right")]

    def inverse(self, positions: Indices) -> tuple[NDArray[np.bool_], Indices]:
        """The inverse of ``forward``: whether each position is left out, and its index if not."""
        run = np.searchsorted(self.starts, positions, side="right")
        # a run that begins at or before a position leaves it out if it ends behind it
        gone = np.concatenate([np.zeros(1, np.int64), self.ends])[run] > positions
        return gone, positions - self._gone[run]

    def below(self, positions: Indices) -> Indices:
        """How many of those that stay are before each position.

        >>> Gaps.of(np.array([1, 2])).below(np.arange(5))
        array([0, 1, 1, 1, 2])
        """
        gone, counts = self.inverse(positions)
        # inside a run nothing stays, so the count is that at its start
        run = np.searchsorted(self.starts, positions[gone], side="right") - 1
        counts[gone] = self._before[run]
        return counts

    def before(self, number: int) -> Gaps:
        """The runs that lie before the ``number``-th of those that stay.

        >>> Gaps.of(np.array([0, 3])).before(2).starts
        array([0])
        """
        runs = int(np.searchsorted(self._before, number, side="left"))
        return Gaps(self.starts[:runs], self.ends[:runs])

    def then(self, later: Gaps) -> Gaps:
        """These gaps and ``later`` ones, whose positions are indices of what stays here, as one."""
        # A run of here lies within a later one, apart from it, or touches it. The last index of a
        # later run is mapped, not its end: that is past the run, perhaps behind a run of here.
        starts = np.concatenate([self.starts, self.forward(later.starts)])
        return Gaps.united(starts, np.concatenate([self.ends, self.forward(later.ends - 1) + 1]))
