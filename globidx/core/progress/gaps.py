"""Gaps: numbers that are left out, as runs, and the numbering of those that stay.

Many layers of a history commit or leave out few numbers each. Such a layer is a list of runs, and
two in a row are one: so a thousand uneven restarts cost one binary search for each number.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property

Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class Gaps:
    """Numbers in ``[starts[i], ends[i])`` are left out.

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

    starts: Numbers
    ends: Numbers

    @classmethod
    def of(cls, numbers: Numbers) -> Gaps:
        """The gaps that leave out ``numbers``, ascending and distinct."""
        breaks = np.flatnonzero(np.diff(numbers) != 1)
        firsts = np.concatenate([np.zeros(min(1, len(numbers)), np.int64), breaks + 1])
        lasts = np.concatenate([breaks, np.full(min(1, len(numbers)), len(numbers) - 1, np.int64)])
        return cls(numbers[firsts], numbers[lasts] + 1)

    @classmethod
    def united(cls, starts: Numbers, ends: Numbers) -> Gaps:
        """The gaps that leave out ``[starts[i], ends[i])``, in any sequence; runs may be empty, overlap or touch."""
        runs = np.flatnonzero(starts < ends)
        runs = runs[np.argsort(starts[runs], kind="stable")]
        starts, reach = starts[runs], np.maximum.accumulate(ends[runs])
        first = np.concatenate([np.ones(min(1, len(starts)), bool), starts[1:] > reach[:-1]])
        last = np.concatenate([first[1:], np.ones(min(1, len(starts)), bool)])
        return cls(starts[first], reach[last])

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def size(self) -> int:
        """How many numbers are left out."""
        return int(self._gone[-1])

    @cached_property
    def _gone(self) -> Numbers:
        """How many numbers the first i runs leave out."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.ends - self.starts)])

    @cached_property
    def _before(self) -> Numbers:
        """How many numbers stay before each run."""
        return self.starts - self._gone[:-1]

    def forward(self, numbers: Numbers) -> Numbers:
        """The ``numbers``-th of those that stay."""
        return numbers + self._gone[np.searchsorted(self._before, numbers, side="right")]

    def inverse(self, numbers: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        """The inverse of ``forward``: whether each number is left out, and if not, which of those that stay it is."""
        run = np.searchsorted(self.starts, numbers, side="right")
        gone = np.concatenate([np.zeros(1, np.int64), self.ends])[run] > numbers
        return gone, numbers - self._gone[run]

    def below(self, numbers: Numbers) -> Numbers:
        """How many of those that stay are less than each number.

        >>> Gaps.of(np.array([1, 2])).below(np.arange(5))
        array([0, 1, 1, 1, 2])
        """
        gone, ranks = self.inverse(numbers)
        run = np.searchsorted(self.starts, numbers[gone], side="right") - 1
        ranks[gone] = self._before[run]
        return ranks

    def before(self, number: int) -> Gaps:
        """The runs that lie before the ``number``-th of those that stay.

        >>> Gaps.of(np.array([0, 3])).before(2).starts
        array([0])
        """
        runs = int(np.searchsorted(self._before, number, side="left"))
        return Gaps(self.starts[:runs], self.ends[:runs])

    def then(self, later: Gaps) -> Gaps:
        """These gaps and ``later`` ones, which are given as numbers of what stays here, as one."""
        # a run of here lies within a later one, apart from it, or touches it
        starts = np.concatenate([self.starts, self.forward(later.starts)])
        return Gaps.united(starts, np.concatenate([self.ends, self.forward(later.ends - 1) + 1]))
