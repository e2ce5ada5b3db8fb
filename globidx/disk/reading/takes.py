"""What the samples of a batch take of an array, and what each is given of the rows that were read."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.cached import cached_property
from globidx.core.reading import arrays, planning
from globidx.core.reading.planning import Plan
from globidx.core.windows.anchors import Offsets
from globidx.disk.index.snapshot import Snapshot

#: What the samples of a batch have of a field: an array whose first axis is theirs, or one each.
Column = NDArray[Any] | Sequence[NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Take:
    """What samples take of an array: distinct rows, and for each sample which of them.

    ``places`` is samples, or samples x offsets, or all rows of all samples where ``counts`` says
    how many each has. Where ``inside`` is False nothing is taken.
    """

    plan: Plan
    places: NDArray[np.intp]
    inside: NDArray[np.bool_] | None = None
    counts: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, now: Snapshot, sample_ids: Sequence[int], offsets: Offsets | None) -> Take:
        """What samples take that need these rows around their anchors."""
        samples = now.samples
        if samples is None:
            plan = planning.plan(*now.index.locate_many(sample_ids))
            return cls(plan, plan.places)
        if offsets is None and now.table.inner.whole:
            # each array is one row of its own
            first = np.zeros(len(sample_ids), np.int64)
            plan = planning.plan(samples.index.first_units(sample_ids), first)
            return cls(plan, plan.places)
        if offsets is None:
            units, rows, counts = samples.index.whole(sample_ids)
            plan = planning.plan(units, rows)
            return cls(plan, plan.places, None, counts)
        units, rows, inside = samples.index.rows(sample_ids, offsets)
        shape = units.shape[:1] if isinstance(offsets, int) else units.shape
        if samples.window.pad != "zero" or inside.all():
            plan = planning.plan(units.ravel(), rows.ravel())
            return cls(plan, plan.places.reshape(shape), inside.reshape(shape))
        # zeros are not read
        plan = planning.plan(units[inside], rows[inside])
        places = np.zeros(units.shape, np.intp)
        places[inside] = plan.places
        return cls(plan, places.reshape(shape), inside.reshape(shape))

    @cached_property
    def targets(self) -> NDArray[np.intp] | None:
        """Where in ``places``, one behind the other, each distinct row goes.

        None where a row is taken twice, and so has more places than one.
        """
        wanted, targets = self.plan.places, np.empty(len(self.plan.items), np.intp)
        if len(wanted) > len(targets):
            return None
        where = np.arange(len(wanted))
        if len(wanted) < self.places.size:
            # zeros are not read
            assert self.inside is not None, "only what is outside is not read"
            where = np.flatnonzero(self.inside)
        targets[wanted] = where
        return targets

    def shaped(self, rows: NDArray[Any], nothing: Any = None) -> Column:
        """The rows at all places, one behind the other, as the samples have them.

        With ``nothing``, that is where no row is.
        """
        if self.counts is not None:
            return np.split(rows, np.cumsum(self.counts)[:-1])
        block = rows.reshape(*self.places.shape, *rows.shape[1:])
        if nothing is not None and self.inside is not None and not self.inside.all():
            block[~self.inside] = nothing
        return block

    def given(self, rows: NDArray[Any], nothing: NDArray[Any] | None = None) -> Column:
        """What the samples have of the distinct ``rows``, each its own, writable.

        With ``nothing``, that is where no row is.
        """
        if self.counts is None and not len(rows):
            # nothing was read: all of it is padding
            block = arrays.empty((self.places.size, *rows.shape[1:]), rows.dtype)
            block[...] = np.zeros((), rows.dtype)
            return self.shaped(block, nothing)
        if self.targets is not None and nothing is None and self.counts is None:
            if self.places.ndim == 1:
                return [rows[place, ...] for place in self.places.tolist()]
            if (np.diff(self.places.ravel()) == 1).all():
                return self.shaped(rows)
        return self.shaped(_taken(rows, self.places.ravel()), nothing)


def _taken(rows: NDArray[Any], places: NDArray[np.intp]) -> NDArray[Any]:
    """The rows at these places; objects that are taken again are copies."""
    block = arrays.empty((len(places), *rows.shape[1:]), rows.dtype)
    if len(places):
        # without a check of all places for each row: none is outside
        np.take(rows, places, axis=0, out=block, mode="clip")
    if rows.dtype == object and len(rows) < places.size:
        again = np.ones(places.size, bool)
        again[np.unique(places, return_index=True)[1]] = False
        for place in np.flatnonzero(again).tolist():
            block[place] = copy.deepcopy(block[place])
    return block


def rows_of(column: Column) -> Sequence[NDArray[Any]]:
    """What each sample has of a field: the rows of its column, where that is one array.

    >>> rows_of(np.arange(2)), rows_of([np.zeros(1)])
    ([array(0), array(1)], [array([0.])])
    """
    if not isinstance(column, np.ndarray):
        return column
    # iteration gives numbers where a row has no dimension, and objects
    return list(column) if column.ndim > 1 else [column[place, ...] for place in range(len(column))]
