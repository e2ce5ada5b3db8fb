"""Limits: how much history a sampler's state may hold, for whoever writes one and whoever reads one.

They are beyond what runs come to, and bound what a state costs that somebody made up. Within them the first id of an
epoch is there in some 0.1 s and some 100 MB, whatever the history; each id that was left out costs a look-up in the
epoch's order besides, and one in every uneven segment before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Segment, Skip
from globidx.errors import RecordError

#: Ranks of one segment.
MAX_WORLD_SIZE = 2**17
#: Segments and skips of one epoch.
MAX_LAYERS = 2**12
#: Uneven segments of one epoch, and the ranks of all of them together: 1,024 of 256, or 64 of 4,096.
MAX_UNEVEN, MAX_RANKS = 2**10, 2**18
#: Ids of a list, and the ranges they are in.
MAX_IDS, MAX_RANGES = 2**21, 2**16
#: Look-ups of ids that are left out in uneven segments before them.
MAX_LOOKUPS = 2**26

_CATCH_UP = (
    "a segment is forgotten once all ranks have read past it: save again when the ranks that are behind have gone on, "
    "or end the epoch with finish_epoch()"
)


def refuse_too_much(history: Iterable[Segment | Skip]) -> None:
    """Refuse a history that would cost too much to go on from.

    Raises
    ------
    RecordError
        Naming what there is too much of, how much it may be, and what to do.
    """
    layers = list(history)
    uneven = [layer for layer in layers if isinstance(layer, Segment) and not layer.is_prefix]
    skips = [layer for layer in layers if isinstance(layer, Skip)]
    _at_most(MAX_WORLD_SIZE, max((layer.world_size for layer in uneven), default=0), "ranks in a segment", "use fewer")
    _at_most(MAX_LAYERS, len(layers), "segments and skips in one epoch", _CATCH_UP)
    _at_most(MAX_UNEVEN, len(uneven), "segments of uneven ranks in one epoch", _CATCH_UP)
    _at_most(MAX_RANKS, sum(layer.world_size for layer in uneven), "ranks in an epoch's uneven segments", _CATCH_UP)
    fewer = "leave whole files out of the index instead"
    _at_most(2 * MAX_RANGES, sum(len(layer.ids.pairs) for layer in skips), "ranges of ids left out", fewer)
    _at_most(MAX_IDS, sum(layer.ids.size for layer in skips), "ids left out", fewer)
    if uneven and skips:
        _at_most(MAX_LOOKUPS, _lookups(layers), "ids left out times uneven segments before them", _CATCH_UP)


def bounded(ranges: Ranges, what: str) -> Ranges:
    """``ranges``, if a record may hold as many; RecordError, beginning with ``what``, if not."""
    if len(ranges.pairs) > MAX_RANGES or ranges.size > MAX_IDS:
        raise RecordError(
            f"{what} {ranges.size} ids in {len(ranges.pairs)} ranges, the most is {MAX_IDS} in {MAX_RANGES}; leave "
            "whole files out of the index instead"
        )
    return ranges


def _lookups(layers: Sequence[Segment | Skip]) -> int:
    uneven = lookups = 0
    for layer in layers:
        if isinstance(layer, Skip):
            lookups += uneven * layer.ids.size
        else:
            uneven += not layer.is_prefix
    return lookups


def _at_most(most: int, found: int, what: str, cure: str) -> None:
    if found > most:
        raise RecordError(f"there are {found} {what}, the most that a record may hold is {most}; {cure}")
