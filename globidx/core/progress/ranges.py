"""Sets of sample ids as sorted, disjoint, half-open ranges: what is left out of an epoch, in few numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate


@dataclass(frozen=True)
class Ranges:
    """Ids in ``[start, stop)`` of each pair; pairs sorted, none empty, none touching the next.

    >>> some = Ranges.of([7, range(2, 5), (4, 6)])
    >>> some.pairs, len(some)
    (((2, 6), (7, 8)), 5)
    >>> (some - Ranges.of([3])).ids()
    array([2, 4, 5, 7])
    """

    pairs: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, given: Any) -> Ranges:
        """The ids of an int, a range, another ``Ranges``, or an iterable of ints, ranges and (start, stop) pairs.

        TypeError or ValueError for anything else, negative ids and strides included.
        """
        if isinstance(given, Ranges):
            return given
        if isinstance(given, np.ndarray):
            return cls.of_ids(validate.integers(given, "sample id", validate.INT64_MAX))
        if isinstance(given, range) or not isinstance(given, Iterable):
            given = [given]
        return cls._united(_pair(item) for item in given)

    @classmethod
    def of_ids(cls, ids: NDArray[np.int64]) -> Ranges:
        """The ids of an int64 array, in any sequence, repeats allowed."""
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
        """How many ids there are; unlike ``len`` not bound to 63 bits."""
        return sum(stop - start for start, stop in self.pairs)

    def __or__(self, other: Ranges) -> Ranges:
        return self._united((*self.pairs, *other.pairs))

    def __sub__(self, other: Ranges) -> Ranges:
        left: list[tuple[int, int]] = []
        gone, place = other.pairs, 0
        for start, stop in self.pairs:
            while place < len(gone) and gone[place][1] <= start:
                place += 1  # both ascend, so each is passed once
            first, at = start, place
            while at < len(gone) and gone[at][0] < stop:
                left.append((first, gone[at][0]))
                first = gone[at][1]
                at += 1
            left.append((first, stop))
        return self._united(left)

    def below(self, stop: int) -> Ranges:
        """The ids below ``stop``."""
        return self - Ranges(((stop, validate.INT64_MAX),))

    def ids(self) -> NDArray[np.int64]:
        """All ids, ascending, int64."""
        return np.concatenate([np.empty(0, np.int64), *(np.arange(start, stop) for start, stop in self.pairs)])


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
