"""What remains of an epoch, enumerated: a history of segments and skips as a few maps from numbers to numbers."""

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
    """The remaining positions of an epoch, enumerated: a history with its skips looked up in the epoch's order.

    Parameters
    ----------
    progress
        The history.
    where
        Gives the positions of ids, each once, in any sequence.
    few, effort
        A segment of at most ``few`` committed numbers is listed, as gaps, and joined with its neighbours, until
        ``effort`` numbers were listed or joined. All else stays arithmetic: so no history costs more time than that to
        begin with.

    Raises
    ------
    RecordError
        Where the history leaves out another number of positions than the order has for these ids.

    Examples
    --------
    >>> some = Remaining(Progress(14).extend((3, 2, 1, 2)), where=np.asarray)
    >>> some.forward(np.arange(6))
    array([ 6,  9, 10, 11, 12, 13])
    """

    def __init__(
        self, progress: Progress, where: Callable[[Numbers], Numbers], *, few: int = 2**14, effort: int = 2**22
    ) -> None:
        self._maps: list[Gaps | Bands] = []
        self._few, self._effort = few, effort
        skips = [np.sort(where(layer.ids.ids())) for layer in progress.history if isinstance(layer, Skip)]
        skipped = _Followed(np.concatenate([np.empty(0, np.int64), *skips]))
        for layer in progress.history:
            if isinstance(layer, Skip):
                found: Gaps | Bands = Gaps.of(skipped.take(len(skips.pop(0)), expected=layer.positions))
            else:
                found = self._map_of(layer)
            skipped.follow(found)
            self._add(found)
        self._join(0)

    def forward(self, numbers: Numbers) -> Numbers:
        """Positions of the ``numbers``-th remaining ones, int64; numbers are trusted to be in ``[0, remaining)``."""
        for layer in reversed(self._maps):
            numbers = layer.forward(numbers)
        return numbers

    def inverse(self, positions: Numbers) -> tuple[NDArray[np.bool_], Numbers]:
        """The inverse.

        Whether each position is gone (committed or left out), and if not, which of the remaining ones it is.
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
        """One more map; gaps are joined with those before that are not much longer, so each is joined a few times."""
        if isinstance(found, Bands):
            self._join(0)
        self._maps.append(found)
        if isinstance(found, Gaps):
            self._join(len(found))

    def _join(self, longest: int) -> None:
        """Make one of the last two maps while both are gaps, and the former has not over twice ``longest`` runs.

        0 is for any length.
        """
        while len(self._maps) > 1:
            first, second = self._maps[-2:]
            if not (isinstance(first, Gaps) and isinstance(second, Gaps)) or self._effort < len(first) + len(second):
                return
            if longest and len(first) > 2 * len(second):
                return
            self._effort -= len(first) + len(second)
            self._maps[-2:] = [first.then(second)]


class _Followed:
    """Numbers that are followed through maps, until they are taken or found to be gone."""

    def __init__(self, numbers: Numbers) -> None:
        self.numbers, self.gone = numbers, np.zeros(len(numbers), bool)

    def follow(self, found: Gaps | Bands) -> None:
        """What became of them behind one more map."""
        if len(self.numbers):
            gone, numbers = found.inverse(self.numbers)
            self.numbers = np.where(self.gone, self.numbers, numbers)
            self.gone |= gone

    def take(self, count: int, *, expected: int) -> Numbers:
        """The first ``count`` of them, as far as they are not gone; they are followed no more.

        RecordError unless ``expected`` are not gone.
        """
        numbers, gone = self.numbers[:count], self.gone[:count]
        self.numbers, self.gone = self.numbers[count:], self.gone[count:]
        if int((~gone).sum()) != expected:
            raise RecordError(f"the record leaves out {expected} positions where its order has {int((~gone).sum())}")
        return numbers[~gone]
