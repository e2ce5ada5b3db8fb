"""Regrouped: what ranks have committed in whose streams there are holes, as one set of positions.

A batch sampler that regroups ids delivers some of them before others that come first. So a rank has
committed several runs of its stream, and all ranks together a set of cells of the table whose
column r is dealt to rank r. Its first cells by column are a segment, as ever; the others are the
set that this module makes, without a list of the cells that all ranks have committed.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from globidx.core.progress.bands import Bands
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.limits import refuse_scattered
from globidx.core.progress.ranges import Ranges

Indices = NDArray[np.int64]


def beyond(runs: Sequence[Ranges], counts: Sequence[int]) -> Ranges:
    """What ranks have committed past their first ``counts``, by index of what remains after those.

    ``runs[r]`` is all that rank r has committed of its stream, the first ``counts[r]`` included.
    Below, rank 0 has committed 0, 4 and 6, rank 1 has 1, 3, 5 and 7; the segment leaves 2, 4, 6, 8::

        0 1
        2 3
        4 5
        6 7

    >>> beyond([Ranges.of([0, range(2, 4)]), Ranges.of(range(4))], (1, 4))
    Ranges(pairs=((1, 3),))
    """
    rest = [run - Ranges(((0, count),)) for run, count in zip(runs, counts, strict=True)]
    if not any(run.pairs for run in rest):
        return Ranges()
    rows = _rows_of_all(runs)
    scattered = [run - rows for run in rest]
    refuse_scattered(sum(run.size for run in scattered))
    world_size, whole = len(runs), Gaps.of_ranges(rows)
    cells = np.concatenate([run.ids() * world_size + rank for rank, run in enumerate(scattered)])
    bands = Bands(counts)

    def left_before(cells: Indices) -> Indices:
        # above the first band nothing is left
        return np.maximum(bands.inverse(cells)[1], 0)

    return Gaps.united(
        left_before(np.concatenate([whole.starts * world_size, cells])),
        left_before(np.concatenate([whole.ends * world_size, cells + 1])),
    ).ranges


def _rows_of_all(runs: Sequence[Ranges]) -> Ranges:
    """The rows of which every rank has committed its cell.

    >>> _rows_of_all([Ranges.of(range(5)), Ranges.of([0, range(2, 9)])])
    Ranges(pairs=((0, 1), (2, 5)))
    """
    bounds = np.array([pair for run in runs for pair in run.pairs], np.int64)
    rows = np.concatenate([bounds[:, 0], bounds[:, 1]])
    order = np.argsort(rows, kind="stable")
    # how many ranks have committed the rows from each bound to the next
    ranks = np.cumsum(np.repeat([1, -1], len(bounds))[order])
    whole = np.flatnonzero(ranks == len(runs))
    # the last bound is an end, so none that all ranks have is last
    return Gaps.united(rows[order][whole], rows[order][whole + 1]).ranges
