"""The partition: which of the remaining positions a rank takes, and how many.

Remaining positions are dealt like cards: with m of them and world size W, rank r takes those at the
indices r, r + W, r + 2W, ... . So what the ranks have taken in lock-step is always a prefix, and one integer
says how far a run has come, on any number of ranks.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from globidx.core.progress.gaps import Gaps

Tail = Literal["pad", "drop", "exact"]
TAILS: Final = get_args(Tail)


def share(remaining: int, *, rank: int, world_size: int) -> int:
    """How many of ``remaining`` positions are dealt to ``rank``.

    >>> [share(11, rank=r, world_size=4) for r in range(4)]
    [3, 3, 3, 2]
    """
    # integers throughout: a float division is wrong for epochs of more than 2**53 samples
    return max(0, -(-(remaining - rank) // world_size))


def stream_length(remaining: int, *, rank: int, world_size: int, tail: Tail) -> int:
    """How many ids ``rank`` yields.

    That is its share, padded or cut to that of all ranks unless ``tail`` is ``exact``.

    >>> [[stream_length(11, rank=r, world_size=4, tail=t) for r in range(4)] for t in TAILS]
    [[3, 3, 3, 3], [2, 2, 2, 2], [3, 3, 3, 2]]
    """
    if tail == "pad":
        return -(-remaining // world_size)
    if tail == "drop":
        return remaining // world_size
    return share(remaining, rank=rank, world_size=world_size)


def stream(
    start: int,
    stop: int,
    *,
    remaining: int,
    rank: int,
    world_size: int,
    taken: Gaps | None = None,
) -> NDArray[np.int64]:
    """The remaining positions that ``rank`` yields as its ``[start, stop)``, by their index, int64.

    Past the end it wraps round to the beginning: that is the padding, and it stands last. Below,
    rank 3 of 4 pads.

    >>> [stream(0, 3, remaining=11, rank=r, world_size=4).tolist() for r in range(4)]
    [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 0]]

    Where the rank has ``taken`` other ids than the first of its stream, those stand first, and the
    others follow in their order:

    >>> stream(2, 4, remaining=8, rank=1, world_size=2, taken=Gaps.of(np.array([0, 2])))
    array([3, 7])
    """
    if taken is None:
        indices = np.arange(
            rank + start * world_size, rank + stop * world_size, world_size, dtype=np.int64
        )
    else:
        left = np.arange(start - taken.size, stop - taken.size, dtype=np.int64)
        indices = taken.forward(left) * world_size + rank
    # only a block at the end of a stream may reach past what remains; all others save the division
    if len(indices) and int(indices[-1]) >= remaining:
        indices %= remaining
    return indices
