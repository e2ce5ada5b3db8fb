"""The division of a rank's stream among loader workers.

A loader takes one batch from each worker in turn. So worker w of K yields the *blocks* w, w + K,
w + 2K, ... of a stream that is cut into blocks of a batch each: what the loader then delivers is the
stream in its own sequence, and what was delivered is a prefix of it.
"""

from __future__ import annotations

from collections.abc import Iterator


def runs(
    length: int, *, size: int, worker: int, workers: int, before: int = 0
) -> Iterator[tuple[int, int]]:
    """The runs ``[start, stop)`` of a stream of ``length`` ids that a worker yields.

    Blocks have ``size`` ids, and are counted from ``before`` ids ahead of this stream, those of
    streams that were yielded before it. So a block may begin in one stream and end in the next.

    >>> [list(runs(10, size=2, worker=w, workers=3)) for w in range(3)]
    [[(0, 2), (6, 8)], [(2, 4), (8, 10)], [(4, 6)]]
    >>> [list(runs(5, size=2, worker=w, workers=2, before=3)) for w in range(2)]
    [[(1, 3)], [(0, 1), (3, 5)]]
    """
    if not length:
        return
    first = before // size
    for block in range(first + (worker - first) % workers, -(-(before + length) // size), workers):
        start, stop = block * size - before, (block + 1) * size - before
        yield max(start, 0), min(stop, length)


def shares(length: int, *, size: int, workers: int) -> list[int]:
    """How many ids of a stream each worker yields.

    >>> shares(11, size=2, workers=3)
    [4, 4, 3]
    """
    blocks, rest = divmod(length, size)
    whole = [-(-(blocks - worker) // workers) * size for worker in range(workers)]
    whole[blocks % workers] += rest
    return whole
