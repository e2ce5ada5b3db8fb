"""The ids that a rank yields of the rest of an epoch: order, progress and partition combined."""

from __future__ import annotations

from globidx.core.orders.base import Arrangement, Ids
from globidx.core.progress import partition
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.remaining import Remaining
from globidx.core.progress.segments import Progress


class EpochView:
    """What remains of one epoch after ``progress``, in the epoch's ``arrangement``."""

    def __init__(self, arrangement: Arrangement, progress: Progress) -> None:
        self._arrangement = arrangement
        self._remaining = Remaining(progress, arrangement.occurrences)
        self._count = progress.remaining

    def stream(
        self, start: int, stop: int, *, rank: int, world_size: int, taken: Gaps | None = None
    ) -> Ids:
        """Return the ids ``[start, stop)`` of the stream of ``rank``.

        Past the end of its share it is padded. What the rank has ``taken`` out of turn stands first.

        >>> from globidx.core.orders.plain import Sequential
        >>> view = EpochView(Sequential().bind(11, seed=0, epoch=0), Progress(11).extend((4,)))
        >>> [view.stream(0, 3, rank=r, world_size=3).tolist() for r in range(3)]
        [[4, 7, 10], [5, 8, 4], [6, 9, 5]]
        """
        indices = partition.stream(
            start, stop, remaining=self._count, rank=rank, world_size=world_size, taken=taken
        )
        return self._arrangement.forward(self._remaining.forward(indices))

    def positions_left(self, ids: Ranges) -> int:
        """Return how many remaining positions have one of these ids."""
        # an order that draws a sample twice has two positions of it, and both may remain
        gone, _ = self._remaining.inverse(self._arrangement.occurrences(ids.ids()))
        return int((~gone).sum())
