"""What remains of an epoch, enumerated: a history as a few maps from index to index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from globidx.core.progress.bands import Bands
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.segments import Progress, Segment, Skip, Taken
from globidx.errors import RecordError

Indices = NDArray[np.int64]


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
        A segment of at most ``few`` committed positions is listed, as gaps, and joined with its
        neighbours, until ``effort`` of them were listed or joined. All else stays arithmetic: so
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
        where: Callable[[Indices], Indices],
        *,
        few: int = 2**14,
        effort: int = 2**22,
    ) -> None:
        self._maps: list[Gaps | Bands] = []
        self._few, self._effort = few, effort
        # Sorted within each skip: what is left out becomes runs, and runs are found in sequence.
        skips = [
            np.sort(where(layer.ids.ids())) for layer in progress.history if isinstance(layer, Skip)
        ]
        # All ids of later skips go through a layer together, and once: a look-up for each skip and
        # each layer before it would cost a long history their product.
        skipped = _Followed(np.concatenate([np.empty(0, np.int64), *skips]))
        for layer in progress.history:
            if isinstance(layer, Skip):
                gone: Gaps | Bands = Gaps.of(
                    skipped.take(len(skips.pop(0)), expected=layer.positions)
                )
            else:
                gone = self._map_of(layer)
            skipped.follow(gone)
            self._add(gone)
        self._join(0)

    def forward(self, indices: Indices) -> Indices:
        """Return the positions at some indices, which are trusted to be in ``[0, remaining)``."""
        # each layer maps what remains after it to what remained before it; the last comes first
        for layer in reversed(self._maps):
            indices = layer.forward(indices)
        return indices

    def inverse(self, positions: Indices) -> tuple[NDArray[np.bool_], Indices]:
        """Return whether each position is gone, and else its index among those that remain.

        Gone is what is committed or left out.
        """
        followed = _Followed(positions)
        for layer in self._maps:
            followed.follow(layer)
        return followed.gone, followed.indices

    # -- inside

    def _map_of(self, layer: Segment | Taken) -> Gaps | Bands:
        if isinstance(layer, Taken) or layer.is_prefix:
            return layer.gaps
        if layer.committed > min(self._few, self._effort):
            return layer.bands
        self._effort -= layer.committed
        return layer.gaps

    def _add(self, layer: Gaps | Bands) -> None:
        """Add a map, and join it with earlier ones that are gaps as well."""
        if isinstance(layer, Bands):
            # nothing after bands can be joined with what is before them
            self._join(0)
        self._maps.append(layer)
        if isinstance(layer, Gaps):
            self._join(len(layer))

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
            # As sorted files are merged in a log-structured tree: a list is copied only when
            # another of about its size has come, so each run is copied a few times in all.
            if longest and len(first) > 2 * len(second):
                return
            self._effort -= len(first) + len(second)
            # committed positions soon fill each other's holes, so the runs of both are few
            self._maps[-2:] = [first.then(second)]


class _Followed:
    """Indices that are followed through a sequence of maps, until they are gone or taken."""

    def __init__(self, indices: Indices) -> None:
        self.indices, self.gone = indices, np.zeros(len(indices), bool)

    def follow(self, layer: Gaps | Bands) -> None:
        """Apply the next map."""
        if len(self.indices):
            gone, indices = layer.inverse(self.indices)
            # an index that is gone stays what it was: it means nothing to later maps
            self.indices = np.where(self.gone, self.indices, indices)
            self.gone |= gone

    def take(self, count: int, *, expected: int) -> Indices:
        """Remove the first ``count`` indices, and return those of them that are not gone.

        RecordError unless there are as many as ``expected``.
        """
        indices, gone = self.indices[:count], self.gone[:count]
        self.indices, self.gone = self.indices[count:], self.gone[count:]
        # A state is JSON that anybody may have edited: its count of skipped positions is compared
        # with the order, or else ids would be shifted.
        if int((~gone).sum()) != expected:
            raise RecordError(
                f"the record leaves out {expected} positions, but its ids have {int((~gone).sum())} in its order; it "
                "was edited or damaged"
            )
        return indices[~gone]
