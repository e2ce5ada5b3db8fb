"""Sets of sample ids as sorted, disjoint, half-open ranges."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate


@dataclass(frozen=True)
class Ranges:
    """A set of sample ids, as ranges.

    Parameters
    ----------
    pairs : tuple of (int, int)
        The ids ``[start, stop)`` of each pair. Pairs ascend, none is empty, and none touches the
        next.

    Examples
    --------
    >>> some = Ranges.of([7, range(2, 5), (4, 6)])
    >>> some.pairs, len(some)
    (((2, 6), (7, 8)), 5)
    >>> (some - Ranges.of([3])).ids()
    array([2, 4, 5, 7])
    """

    pairs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, ids: Any) -> Ranges:
        """Make a set of the ids that a user passes.

        Parameters
        ----------
        ids : int, range, Ranges, numpy.ndarray or iterable
            An iterable may hold ints, ranges of step 1 and (start, stop) pairs. TypeError or
            ValueError for anything else, negative ids included.

        Returns
        -------
        Ranges
            The set.
        """
        if isinstance(ids, Ranges):
            return ids
        if isinstance(ids, np.ndarray):
            return cls.of_ids(validate.integers(ids, "sample id", validate.INT64_MAX))
        if isinstance(ids, range) or not isinstance(ids, Iterable):
            ids = [ids]
        return cls._united(_pair(item) for item in ids)

    @classmethod
    def of_ids(cls, ids: NDArray[np.int64]) -> Ranges:
        """Make a set of the ids of an array.

        Parameters
        ----------
        ids : numpy.ndarray
            Ids, int64, in any sequence; they may repeat.

        Returns
        -------
        Ranges
            The set.
        """
        sorted_ids = np.unique(ids)
        breaks = np.flatnonzero(np.diff(sorted_ids) != 1) + 1
        runs = np.split(sorted_ids, breaks) if len(sorted_ids) else []
        return cls(tuple((int(run[0]), int(run[-1]) + 1) for run in runs))

    @classmethod
    def _united(cls, pairs: Iterable[tuple[int, int]]) -> Ranges:
        merged: list[tuple[int, int]] = []
        for start, stop in sorted(pair for pair in pairs if pair[0] < pair[1]):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
            else:
                merged.append((start, stop))
        return cls(tuple(merged))

    def __len__(self) -> int:
        return self.size

    @property
    def size(self) -> int:
        """The number of ids; unlike ``len`` not limited to 63 bits."""
        return sum(stop - start for start, stop in self.pairs)

    def __or__(self, other: Ranges) -> Ranges:
        return self._united((*self.pairs, *other.pairs))

    def __sub__(self, other: Ranges) -> Ranges:
        left: list[tuple[int, int]] = []
        gone, row = other.pairs, 0
        for start, stop in self.pairs:
            # Both lists ascend, so each pair is passed once.
            while row < len(gone) and gone[row][1] <= start:
                row += 1
            first, at = start, row
            while at < len(gone) and gone[at][0] < stop:
                left.append((first, gone[at][0]))
                first = gone[at][1]
                at += 1
            left.append((first, stop))
        return self._united(left)

    def below(self, stop: int) -> Ranges:
        """Return the ids below a limit.

        Parameters
        ----------
        stop : int
            The limit.

        Returns
        -------
        Ranges
            Those of the ids that are smaller.
        """
        return self - Ranges(((stop, validate.INT64_MAX),))

    def ids(self) -> NDArray[np.int64]:
        """Return all ids.

        Returns
        -------
        numpy.ndarray
            The ids, ascending, int64.
        """
        return np.concatenate(
            [np.empty(0, np.int64), *(np.arange(start, stop) for start, stop in self.pairs)]
        )


def _pair(item: Any) -> tuple[int, int]:
    if isinstance(item, range):
        if item.step != 1:
            raise ValueError(f"a range of ids must have step 1, got {item}")
        return validate.integer(item.start, "sample id"), max(item.start, item.stop)
    if isinstance(item, (tuple, list)):
        if len(item) != 2:
            raise ValueError(f"a range of ids is a (start, stop) pair, got {item!r}")
        start, stop = (validate.integer(end, "sample id") for end in item)
        if start > stop:
            raise ValueError(f"a range of ids must not end before it starts, got {item!r}")
        return start, stop
    start = validate.integer(item, "sample id", high=validate.INT64_MAX - 1)
    return start, start + 1
