"""What remains of an epoch, enumerated: a history as a few maps from index to index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from globidx.core.progress.bands import Bands
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.segments import Progress, Segment, Skip
from globidx.errors import RecordError

Numbers = NDArray[np.int64]


class Remaining:
    """The remaining positions of an epoch, enumerated.

    It is a history with its skips looked up in the epoch's order.

    Parameters
    ----------
    progress
        The history.
    where
        Returns the positions of ids, each once, in any sequence: ``Arrangement.occurrences``.
    few, effort
        A segment of at most ``few`` committed numbers is listed, as gaps, and joined with its
        neighbours, until ``effort`` numbers were listed or joined. All else stays arithmetic: so
        no history costs more time than that to begin with.

    Raises
    ------
    RecordError
        If the history says another number of positions that are left out than the order has for
        these ids.

    Examples
    --------
    >>> some = Remaining(Progress(14).extend((3, 2, 1, 2)), where=np.asarray)
    >>> some.forward(np.arange(6))
    array([ 6,  9, 10, 11, 12, 13])
    """

    def __init__(
        self,
        progress: Progress,
        where: Callable[[Numbers], Numbers],
        *,
        few: int = 2**14,
        effort: int = 2**22,
    ) -> None:
        self._maps: list[Gaps | Bands] = []
        self._few, self._effort = few, effort
        skips = [
            np.sort(where(layer.ids.ids())) for layer in progress.history if isinstance(layer, Skip)
        ]
        skipped = _Followed(np.concatenate([np.empty(0, np.int64), *skips]))
        for layer in progress.history:
            if isinstance(layer, Skip):
                found: Gaps | Bands = Gaps.of(
                    skipped.take(len(skips.pop(0)), expected=layer.positions)
                )
            else:
                found = self._map_of(layer)
            skipped.follow(found)
            self._add(found)
        self._join(0)

    def forward(self, numbers: Numbers) -> Numbers:
        """Return the positions at some indices, which are trusted to be in ``[0, remaining)``."""
        for layer in reversed(self._maps):
            numbers = layer.forward(numbers)
        return numbers

    def inverse(self, positions: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        """Return whether each position is gone, and else its index among those that remain.

        Gone is what is committed or left out.
        """
        followed = _Followed(positions)
        for layer in self._maps:
            followed.follow(layer)
        return followed.gone, followed.numbers

    # -- inside

    def _map_of(self, segment: Segment) -> Gaps | Bands:
        if segment.is_prefix:
            return Gaps(np.zeros(1, np.int64), np.array([segment.committed], np.int64))
        if segment.committed > min(self._few, self._effort):
            return segment.bands
        self._effort -= segment.committed
        return Gaps.of(np.sort(segment.numbers()))

    def _add(self, found: Gaps | Bands) -> None:
        """Add a map, and join it with earlier ones that are gaps as well."""
        if isinstance(found, Bands):
            self._join(0)
        self._maps.append(found)
        if isinstance(found, Gaps):
            self._join(len(found))

    def _join(self, longest: int) -> None:
        """Join the last two maps while both are gaps and the first is not much longer.

        With ``longest`` 0 the number of runs does not matter.
        """
        while len(self._maps) > 1:
            first, second = self._maps[-2:]
            if not (isinstance(first, Gaps) and isinstance(second, Gaps)) or self._effort < len(
                first
            ) + len(second):
                return
            if longest and len(first) > 2 * len(second):
                return
            self._effort -= len(first) + len(second)
            self._maps[-2:] = [first.then(second)]


class _Followed:
    """Numbers that are followed through a sequence of maps, until they are gone or taken."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers, self.gone = numbers, np.zeros(len(numbers), bool)

    def follow(self, found: Gaps | Bands) -> None:
        """Apply the next map."""
        if len(self.numbers):
            gone, numbers = found.inverse(self.numbers)
            self.numbers = np.where(self.gone, self.numbers, numbers)
            self.gone |= gone

    def take(self, count: int, *, expected: int) -> Numbers:
        """Remove the first ``count`` indices, and return those of them that are not gone.

        RecordError unless there are as many as ``expected``.
        """
        numbers, gone = self.numbers[:count], self.gone[:count]
        self.numbers, self.gone = self.numbers[count:], self.gone[count:]
        if int((~gone).sum()) != expected:
            raise RecordError(
                f"the record leaves out {expected} positions, but its ids have {int((~gone).sum())} in its order; it "
                "was edited or damaged"
            )
        return numbers[~gone]
