"""``ChunkShuffle``: a shuffle that reads each chunk of the files about once. ARCHITECTURE.md tells its algebra."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.datasets.known import chunking_of
from globidx.core.index.chunking import Chunking
from globidx.core.json import schema
from globidx.core.orders.base import Arrangement, Ids, Order
from globidx.core.orders.ground import Ground, Tiling
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.permutation import LIMIT
from globidx.core.orders.weighted import counter_key, split_mix
from globidx.errors import RecordError, RecordMismatchError

_MOST_LANES, _MOST_IN_ALL, _MOST = 2**17, 2**21, 2**40
#: Items of windows that are computed at a time and kept, one window at least.
_AT_ONCE = 2**18


class ChunkShuffle(Order):
    """A shuffle within windows of ``window`` chunks, so that each chunk is decoded about once an epoch.

    Chunks are shuffled over the whole dataset and dealt to *lanes*, one for each loader worker of each rank; within a
    lane, samples are shuffled in windows. A worker whose cache holds ``window`` decoded chunks decodes nearly every
    chunk once. A larger window mixes better and wants a larger cache.

    The chunks are the dataset's own (``FileCacheDataset`` tells them as ``dataset.chunking``); for data that does not
    tell, ``chunk`` says how many successive samples to keep together. ``lanes`` is (ranks, loader workers of a rank)
    and ``batch`` the global batch size: by default they are the sampler's world size and what ``globidx.DataLoader``
    tells of itself, as an epoch begins. The epoch keeps them, also where it is resumed on other ranks: then only fewer
    samples are found decoded, until the next epoch is planned for the new ranks.

    >>> order = ChunkShuffle(window=2, chunk=4).plan(range(24), 24, lambda: Lanes(ranks=1))
    >>> order.bind(24, seed=0, epoch=0).take(range(24)).reshape(3, 8)
    array([[ 0, 21,  1,  3, 20,  2, 23, 22],
           [12,  5,  6, 14, 15, 13,  7,  4],
           [17, 18, 16, 10,  8, 19, 11,  9]])
    """

    algorithm = "chunk-shuffle"

    def __init__(
        self,
        window: int = 8,
        lanes: tuple[int, int] | None = None,
        *,
        batch: int | None = None,
        chunk: int | None = None,
    ) -> None:
        self._window = validate.integer(window, "window", low=1, high=_MOST)
        self._lanes = None if lanes is None else _lanes(lanes)
        self._batch = None if batch is None else validate.integer(batch, "batch", low=1, high=_MOST)
        self._chunk = None if chunk is None else validate.integer(chunk, "chunk", low=1, high=_MOST)

    def parameters(self) -> dict[str, Any]:
        """Window and chunk; what is given of the lanes stays out, since each epoch has its own."""
        return {"window": self._window, "chunk": self._chunk, "plan": None}

    def plan(self, dataset: Any, num_samples: int, lanes: Callable[[], Lanes]) -> PlannedChunkShuffle:
        """The order of an epoch that begins now; what was not given of the lanes is asked from ``lanes()``.

        TypeError where ``dataset`` does not tell its chunks and ``chunk`` is not given.
        """
        told = Lanes(1, 1, 1) if self._lanes is not None and self._batch is not None else lanes()
        ranks, workers = self._lanes or (told.ranks, min(told.workers, max(1, _MOST_IN_ALL // told.ranks)))
        batch = told.batch if self._batch is None else self._batch
        return self._planned(Lanes(ranks, workers, batch), self._chunking(dataset, num_samples))

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Whether a record describes this order, for whatever lanes; RecordError where its plan is malformed."""
        if "plan" not in described or {**described, "plan": None} != self.describe():
            return False
        _read(described["plan"])
        return True

    def recorded(self, described: Mapping[str, Any], dataset: Any, num_samples: int) -> PlannedChunkShuffle:
        """The order as the epoch of a record has it; RecordMismatchError where its chunks were others."""
        plan = _read(described["plan"])
        digest = plan.pop("chunking")
        chunking = self._chunking(dataset, num_samples)
        if digest != chunking.digest:
            error = RecordMismatchError(
                f"the record's epoch was ordered by chunks of digest {digest!r}, these are {chunking.digest!r}, so its "
                "ids stand elsewhere: open the files in the chunks they had (the same key, too), or start a new run"
            )
            error.field = "order"
            raise error
        return self._planned(Lanes(**plan), chunking)

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """As planned for one rank without workers, where ``chunk`` says all there is to know of the data."""
        return self.plan(range(num_samples), num_samples, Lanes).bind(num_samples, seed=seed, epoch=epoch)

    def _planned(self, lanes: Lanes, chunking: Chunking) -> PlannedChunkShuffle:
        return PlannedChunkShuffle(self, self._window, lanes, chunking)

    def _chunking(self, dataset: Any, num_samples: int) -> Chunking:
        if self._chunk is not None:
            return Chunking.single(num_samples, self._chunk)
        try:
            return chunking_of(dataset, num_samples)
        except TypeError as error:
            raise TypeError(
                f"ChunkShuffle must know the chunks of the data, and {error}; or pass chunk=, how many successive "
                "samples to keep together, or use orders.Shuffle()"
            ) from None

    def __repr__(self) -> str:
        given = {"lanes": self._lanes, "batch": self._batch, "chunk": self._chunk}
        told = "".join(f", {name}={value}" for name, value in given.items() if value is not None)
        return f"ChunkShuffle(window={self._window}{told})"


class PlannedChunkShuffle(Order):
    """``ChunkShuffle`` for the lanes and chunks of one epoch."""

    algorithm = ChunkShuffle.algorithm

    def __init__(self, order: ChunkShuffle, window: int, lanes: Lanes, chunking: Chunking) -> None:
        self._order, self._window, self.lanes, self.chunking = order, window, lanes, chunking

    def parameters(self) -> dict[str, Any]:
        """Those of the order, and the plan."""
        return {**self._order.parameters(), "plan": {**self.lanes._asdict(), "chunking": self.chunking.digest}}

    @cached_property
    def tiling(self) -> Tiling:
        """How the files are cut into blocks and units."""
        return Tiling.of(self.chunking, self._window, max(1, self.lanes.batch // self.lanes.ranks))

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """One epoch's order; ValueError for another number of samples than it was planned for."""
        n = validate.integer(num_samples, "num_samples", high=LIMIT)
        if n != self.chunking.num_samples:
            raise ValueError(f"planned over {self.chunking.num_samples} samples, bound over {n}; plan it anew")
        return _ChunkShuffled(self.tiling, self.lanes, validate.integer(seed, "seed"), validate.integer(epoch, "epoch"))


class _ChunkShuffled(Arrangement):
    """Position -> (lane, number in it) -> place on the ground -> sample id.

    A lane reads two stretches of the ground: first whole units, its windows; then its share of what is left over.
    """

    def __init__(self, tiling: Tiling, lanes: Lanes, seed: int, epoch: int) -> None:
        super().__init__(tiling.chunking.num_samples)
        self._ground, self._window, self._lanes = Ground(tiling, seed, epoch), tiling.unit, lanes
        quotas = lanes.quotas(self.length)
        self._whole = _dealt(quotas // self._window, self._ground.units) * self._window
        self._starts = np.zeros(2 * lanes.total + 1, np.int64)  # first stretches of all lanes, then second ones
        np.cumsum(np.concatenate([self._whole, quotas - self._whole]), out=self._starts[1:])
        self._least, self._units = int(self._whole.min()), self._starts // self._window
        # the windows of the last call, keys and ids: the next one mostly goes on in them
        self._recent: tuple[Ids, Ids] = np.empty(0, np.int64), np.empty((0, self._window), np.int64)
        self._key = counter_key(f"chunk-shuffle.1 windows {seed} {epoch}")

    def forward(self, positions: Ids) -> Ids:
        lanes, numbers = self._lanes.forward(positions)
        if len(numbers) and numbers.max() >= self._least:
            second = numbers >= self._whole[lanes]
            numbers[second] -= self._whole[lanes[second]]
            lanes[second] += self._lanes.total
        ids = np.empty_like(positions)
        for some, keys, rows, within in self._by_window(lanes, numbers + self._starts[lanes]):
            known, table = self._recent
            if not np.isin(keys, known).all():
                known, table = self._recent = keys, self._table(keys)
            ids[some] = table.ravel()[np.searchsorted(known, keys)[rows] * self._window + within]
        return ids

    def inverse(self, ids: Ids) -> Ids:
        places = self._ground.inverse(ids)
        stretches = np.searchsorted(self._starts, places, side="right") - 1
        numbers = -self._starts[stretches]
        for some, keys, rows, within in self._by_window(stretches, places):
            units, shuffled = self._shuffled(keys)
            numbers[some] += units[rows] * self._window + np.argsort(shuffled, axis=1)[rows, within]
        second, lanes = stretches // self._lanes.total, stretches % self._lanes.total
        return self._lanes.inverse(lanes, numbers + second * self._whole[lanes])

    def _by_window(self, stretches: Ids, places: Ids) -> Iterator[tuple[Any, Ids, Ids, Ids]]:
        """Windows, some at a time: which of the places are in them, their keys, and row and item of each place.

        A key is of a unit and a stretch: where a stretch ends within a unit, the unit is two windows.
        """
        units = places // self._window
        within = places - units * self._window
        keys, rows = _distinct((units - self._units[stretches]) * len(self._starts) + stretches)
        size = max(1, _AT_ONCE // self._window)
        if len(keys) <= size:
            yield slice(None), keys, rows, within
            return
        for first in range(0, len(keys), size):
            some = np.flatnonzero((rows >= first) & (rows < first + size))
            yield some, keys[first : first + size], rows[some] - first, within[some]

    def _table(self, keys: Ids) -> Ids:
        """Ids of windows, a row each, in their sequence."""
        units, shuffled = self._shuffled(keys)
        table: Ids = np.take_along_axis(self._ground.forward_units(units), shuffled, axis=1)
        return table

    def _shuffled(self, keys: Ids) -> tuple[Ids, Ids]:
        """Units of windows, and, a row each, their items in the new sequence: sorted by random numbers.

        Items of the unit that are before or behind the stretch stay where they are.
        """
        units, stretches = np.divmod(keys, len(self._starts))
        units += self._units[stretches]
        items = np.arange(self._window)
        low = np.uint64((1 << max(1, (self._window - 1).bit_length())) - 1)
        begins = units * self._window
        drawn = split_mix(self._key, begins[:, None] + items) & ~low  # low bits tell the item, and break ties
        before, behind = self._starts[stretches] - begins, self._starts[stretches + 1] - begins
        for row in np.flatnonzero((before > 0) | (behind < self._window)).tolist():
            drawn[row, : max(0, int(before[row]))] = 0
            drawn[row, int(behind[row]) :] = ~low
        drawn |= items.astype(np.uint64)
        drawn.sort(axis=1)
        return units, (drawn & low).astype(np.int64)


def _dealt(wanted: Ids, units: int) -> Ids:
    """As many of ``units`` for each lane as it wants, or, where there are not enough, nearly as many."""
    short = max(0, int(wanted.sum()) - units)
    less, more = divmod(short, len(wanted))
    given = np.maximum(0, wanted - less - (np.arange(len(wanted)) < more))
    dealt: Ids = np.diff(np.minimum(np.cumsum(given), units), prepend=0)
    return dealt


def _distinct(keys: Ids) -> tuple[Ids, NDArray[np.intp]]:
    """The different keys, ascending, and which of them each one is."""
    if not len(keys):
        return keys, np.empty(0, np.intp)
    low, high = int(keys.min()), int(keys.max())
    if high - low > 4 * len(keys) + 4096:  # marking costs their range, sorting their number
        distinct, rows = np.unique(keys, return_inverse=True)
        return distinct, rows.ravel()
    seen = np.zeros(high - low + 1, bool)
    seen[keys - low] = True
    return np.flatnonzero(seen) + low, (np.cumsum(seen) - 1)[keys - low]


def _lanes(lanes: Any) -> tuple[int, int]:
    if not isinstance(lanes, (tuple, list)) or len(lanes) != 2:
        raise TypeError(f"lanes must be a pair (ranks, loader workers of a rank), got {lanes!r}")
    ranks = validate.integer(lanes[0], "lanes: ranks", low=1, high=_MOST_LANES)
    workers = validate.integer(lanes[1], "lanes: loader workers", low=1, high=min(_MOST_LANES, _MOST_IN_ALL // ranks))
    return ranks, workers


def _read(plan: Any) -> dict[str, Any]:
    """A record's plan; RecordError where it is malformed, or has more lanes than anybody may."""
    found = schema.fields(plan, "sampler state: order: plan", _PLAN)
    if found["ranks"] * found["workers"] > _MOST_IN_ALL:
        raise RecordError(
            f"sampler state: order: plan: {found['ranks']} ranks of {found['workers']} workers are too many; "
            f"at most {_MOST_IN_ALL} lanes are allowed"
        )
    return found


_PLAN = {
    "ranks": schema.Integer(1, _MOST_LANES),
    "workers": schema.Integer(1, _MOST_LANES),
    "batch": schema.Integer(1, _MOST),
    "chunking": schema.Text(32),
}
