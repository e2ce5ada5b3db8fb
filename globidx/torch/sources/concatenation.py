"""Sources one after the other, each of which is asked once for what a batch has of it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch.utils.data

from globidx.torch.loops.moments import DatedIds, SharedMoment
from globidx.torch.loops.quarantine import SubstitutedSamples


class Concatenated:
    """Sources one after the other, as ``ConcatDataset`` joins them; one of them, too, is read by its parts.

    The last source may grow. The others keep the lengths that they had, so that no id comes to mean
    another sample.

    >>> whole = Concatenated(["abc", "", "de"])
    >>> len(whole), whole.ends, whole.__getitems__([4, 0, 3])
    (5, [3, 3, 5], ['e', 'a', 'd'])
    """

    def __init__(self, sources: Sequence[Any]) -> None:
        self._sources = [
            Concatenated(one.datasets) if type(one) is torch.utils.data.ConcatDataset else one
            for one in sources
        ]
        self._starts = list(accumulate(map(len, self._sources[:-1]), initial=0))

    def __len__(self) -> int:
        return self._starts[-1] + len(self._sources[-1])

    @property
    def ends(self) -> list[int]:
        """The id behind the last one of each source."""
        return [*self._starts[1:], len(self)]

    @property
    def may_substitute(self) -> bool:
        """Whether a source may replace a sample by another, and say so."""
        return any(getattr(source, "may_substitute", False) for source in self._sources)

    def __getitem__(self, id: int) -> Any:
        return self.__getitems__([id])[0]

    def __getitems__(self, ids: Sequence[int]) -> list[Any]:
        """The samples of a batch of ids, in the same sequence."""
        if len(self._sources) == 1:
            return _read(self._sources[0], ids)
        places: dict[int, list[int]] = {}
        for place, id in enumerate(ids):
            places.setdefault(bisect_right(self._starts, id) - 1, []).append(place)
        samples: list[Any] = [None] * len(ids)
        replaced: list[int] = []
        for number, where in places.items():
            start = self._starts[number]
            own: list[int] = [ids[place] - start for place in where]
            if isinstance(ids, DatedIds):
                own = DatedIds(own, ids.moment)
            read = _read(self._sources[number], own)
            for place, sample in zip(where, read, strict=True):
                samples[place] = sample
            if isinstance(read, SubstitutedSamples):
                replaced += [where[index] for index in read.replaced]
        return SubstitutedSamples(samples, tuple(sorted(replaced))) if replaced else samples


def _read(source: Any, ids: Sequence[int]) -> list[Any]:
    """The samples of one source, all at once if it can."""
    getitems = getattr(source, "__getitems__", None)
    try:
        if not callable(getitems):
            return [source[id] for id in ids]
        takes_moment = isinstance(source, Concatenated) or isinstance(
            getattr(source, "moment", None), SharedMoment
        )
        # any other class is given a list and nothing else
        samples = getitems(ids if takes_moment else list(ids))
    except Exception as error:
        few = ", ".join(map(str, ids[:5])) + (", ..." if len(ids) > 5 else "")
        error.add_note(f"raised by the source {type(source).__name__}, for its sample ids {few}")
        raise
    if len(samples) != len(ids):
        raise ValueError(
            f"__getitems__ of {type(source).__name__} returned {len(samples)} samples for {len(ids)} ids; it must "
            "return a list of one sample for each id"
        )
    read: list[Any] = samples
    return read
