"""The frontier of an epoch: where the part begins of which nothing was committed.

An order that changes in mid-epoch, with other weights or another batch size, changes there: what was
dealt before it keeps its samples.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace

import numpy as np

from globidx.core.orders.base import Arrangement, Left
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress, Segment, Skip


def left_at(progress: Progress, arrangement: Arrangement, *, seed: int, epoch: int) -> Left:
    """Return where an epoch was left.

    >>> from globidx.core.orders.plain import Sequential
    >>> order = Sequential().bind(14, seed=0, epoch=0)
    >>> left_at(Progress(14).extend((3, 2, 1, 2)), order, seed=0, epoch=0)
    Left(epoch=0, position=9, holes=1, seed=0)
    """
    history = progress.history
    if all(isinstance(layer, Segment) and layer.is_prefix for layer in history):
        return Left(epoch, progress.committed, 0, seed)
    position = 0
    for number, layer in enumerate(history):
        if not isinstance(layer, Skip):
            last = (
                layer.holes + layer.committed
                if isinstance(layer, Segment)
                else layer.indices.pairs[-1][1]
            ) - 1
            before = Remaining(replace(progress, history=history[:number]), arrangement.occurrences)
            position = max(position, int(before.forward(np.array([last]))[0]) + 1)
    remaining = Remaining(progress, arrangement.occurrences)
    holes = bisect_left(
        range(progress.remaining),
        position,
        key=lambda index: int(remaining.forward(np.array([index]))[0]),
    )
    return Left(epoch, position, holes, seed)


def rearranged(progress: Progress, arrangement: Arrangement) -> Progress:
    """Return the same progress in another arrangement that differs behind the frontier only.

    Its length may be another one, and ids that are left out may come at other positions, or at more
    or fewer.
    """
    again = replace(progress, length=arrangement.length, history=(), skipped=0)
    for layer in progress.history:
        kept = layer
        if isinstance(layer, Skip):
            so_far = Remaining(again, arrangement.occurrences)
            gone, _ = so_far.inverse(arrangement.occurrences(layer.ids.ids()))
            kept = replace(layer, positions=int((~gone).sum()))
            again = replace(again, skipped=again.skipped + kept.positions)
        again = replace(again, history=(*again.history, kept))
    return again
