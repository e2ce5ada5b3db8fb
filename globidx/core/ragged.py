"""Ragged runs of numbers, of any lengths, without a loop over them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def spread(starts: Numbers, counts: Numbers) -> Numbers:
    """The numbers ``starts[i], ..., starts[i] + counts[i] - 1`` of all i, one after the other.

    >>> spread(np.array([5, 0]), np.array([2, 3]))
    array([5, 6, 0, 1, 2])
    """
    shifts = starts - (np.cumsum(counts) - counts)
    numbers: Numbers = np.arange(int(counts.sum())) + np.repeat(shifts, counts)
    return numbers
