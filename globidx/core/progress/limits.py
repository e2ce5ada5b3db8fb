"""Limits: how much history a sampler state may hold, for writers and readers.

No real run reaches them; they bound the cost of a forged state. Within them the first id of an
epoch takes about 0.1 s and 100 MB, whatever the history. Each id that is left out costs one more
look-up in the order of the epoch, and one in every uneven segment before it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Layer, Segment, Skip, Taken
from globidx.errors import RecordError

#: Ranks of one segment.
MAX_WORLD_SIZE = 2**17
#: Segments and skips of one epoch.
MAX_LAYERS = 2**12
#: Uneven segments of one epoch, and the ranks of all of them together: 1,024 of 256, or 64 of
#: 4,096.
MAX_UNEVEN, MAX_RANKS = 2**10, 2**18
#: Ids of a list, and the ranges they are in.
MAX_IDS, MAX_RANGES = 2**21, 2**16
#: Ids that a batch sampler may pass over in one pass before it yields them.
MAX_PASSED_OVER = MAX_RANGES - 1
#: Ids that some ranks have committed ahead of others.
MAX_SCATTERED = 2**22
#: Ids that are left out, times the uneven segments before them.
MAX_LOOKUPS = 2**26

_CATCH_UP = (
    "a segment is forgotten once all ranks have read past it: save again when the ranks that are behind have gone on, "
    "or end the epoch with finish_epoch()"
)
_REGROUP_LESS = "let the batch sampler regroup ids within smaller windows of its sampler, and keep none back for long"


def refuse_too_much(history: Iterable[Layer]) -> None:
    """Refuse a history that would cost too much to go on from.

    Raises
    ------
    RecordError
        If one of the limits is exceeded; the message names it.
    """
    layers = list(history)
    # a prefix is one integer, whatever the world size was
    uneven = [layer for layer in layers if isinstance(layer, Segment) and not layer.is_prefix]
    skips = [layer for layer in layers if isinstance(layer, Skip)]
    taken = [layer for layer in layers if isinstance(layer, Taken)]
    _at_most(
        MAX_WORLD_SIZE,
        max((layer.world_size for layer in uneven), default=0),
        "ranks in a segment",
        "use fewer",
    )
    _at_most(MAX_LAYERS, len(layers), "segments and skips in one epoch", _CATCH_UP)
    _at_most(MAX_UNEVEN, len(uneven), "segments of uneven ranks in one epoch", _CATCH_UP)
    _at_most(
        MAX_RANKS,
        sum(layer.world_size for layer in uneven),
        "ranks in an epoch's uneven segments",
        _CATCH_UP,
    )
    _at_most(
        2 * MAX_RANGES,
        sum(len(layer.indices.pairs) for layer in taken),
        "ranges of ids committed before others of the order",
        _REGROUP_LESS,
    )
    fewer = "leave whole files out of the index instead"
    _at_most(
        2 * MAX_RANGES,
        sum(len(layer.ids.pairs) for layer in skips),
        "ranges of ids left out",
        fewer,
    )
    _at_most(MAX_IDS, sum(layer.ids.size for layer in skips), "ids left out", fewer)
    # without both, each id is looked up in nothing but runs
    if uneven and skips:
        _at_most(
            MAX_LOOKUPS,
            _lookups(layers),
            "ids left out times uneven segments before them",
            _CATCH_UP,
        )


def refuse_scattered(ids: int) -> None:
    """RecordError if ranks have committed too many ids ahead of others to make one set of them."""
    _at_most(
        MAX_SCATTERED, ids, "ids that some ranks have committed ahead of others", _REGROUP_LESS
    )


def bounded(ranges: Ranges, what: str) -> Ranges:
    """Return ``ranges``; RecordError, beginning with ``what``, if a record cannot hold so many."""
    if len(ranges.pairs) > MAX_RANGES or ranges.size > MAX_IDS:
        raise RecordError(
            f"{what} {ranges.size} ids in {len(ranges.pairs)} ranges, but at most {MAX_IDS} in {MAX_RANGES} are "
            "allowed; leave whole files out of the index instead"
        )
    return ranges


def _lookups(layers: Sequence[Layer]) -> int:
    uneven = lookups = 0
    for layer in layers:
        if isinstance(layer, Skip):
            lookups += uneven * layer.ids.size
        else:
            uneven += isinstance(layer, Segment) and not layer.is_prefix
    return lookups


def _at_most(most: int, count: int, what: str, advice: str) -> None:
    if count > most:
        raise RecordError(
            f"there are {count} {what}, but the most that a record may hold is {most}; {advice}"
        )
