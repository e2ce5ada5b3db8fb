"""Where the arrays of a batch are made: in memory of numpy's own, or where a caller has room for them.

What samples of a batch have of a field is one array, whose rows are read to their places. Who wants
it elsewhere, in a slot of shared memory say, names an allocator for the batch that is read now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Makes an array of a shape and dtype, C-contiguous and writable, whatever is in it.
Allocate = Callable[[tuple[int, ...], "np.dtype[Any]"], NDArray[Any]]

# A context of its own for each thread, so that no batch takes the memory of another's. Threads of
# free-threaded Python inherit one from 3.14 on, so an allocator looks which thread asks.
_allocate: ContextVar[Allocate] = ContextVar("globidx_allocate", default=np.empty)


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """An array for the batch that is read now; one of objects is always numpy's own."""
    if dtype.hasobject:
        return np.empty(shape, dtype)
    return _allocate.get()(shape, dtype)


@contextmanager
def made_by(allocate: Allocate) -> Iterator[None]:
    """Let ``allocate`` make the arrays of batches that this thread reads in the block.

    >>> def zeros(shape, dtype): print("make", shape); return np.zeros(shape, dtype)
    >>> with made_by(zeros): empty((2,), np.dtype("u1"))
    make (2,)
    array([0, 0], dtype=uint8)
    >>> empty((2,), np.dtype("u1")).shape
    (2,)
    """
    before = _allocate.set(allocate)
    try:
        yield
    finally:
        _allocate.reset(before)
