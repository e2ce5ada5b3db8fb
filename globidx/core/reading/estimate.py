"""What reading an epoch will cost, played out against a model of each worker's cache.

No file is read.

The model is that of ``globidx.disk``: a worker keeps decoded chunks up to a number of bytes and
drops the least recently used, a batch is read by file and item, and a chunk that alone exceeds
the cache is decoded for every batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.index.table import Table, whole_items
from globidx.core.orders.base import BLOCK, Arrangement, Ids, Order
from globidx.core.orders.lanes import Lanes
from globidx.core.reading.lru import ByteLru
from globidx.core.reading.planning import CACHE_BYTES
from globidx.core.windows.anchors import Offsets
from globidx.core.windows.sampling import Samples
from globidx.core.windows.sequence_table import Units

#: Samples that are played out, at most; of larger epochs one worker's stretch stands for all.
MOST_SAMPLES = 2**19


@dataclass(frozen=True)
class Estimate:
    """One epoch, all ranks and workers together.

    ``bytes_read`` are those of stored chunks as if nothing were compressed, which an index does
    not know.

    ``files_per_batch`` is the mean number of files in a batch, ``open_files`` the most that a
    worker has open at a time. ``played`` is how many samples were played out: all, or a part that
    stands for the rest. ``decodes_of`` is how often a chunk of each field is decoded.
    """

    samples: int
    chunks: int
    decodes: int
    decodes_per_chunk: float
    bytes_useful: int
    bytes_read: int
    bytes_per_useful_byte: float
    files_per_batch: float
    open_files: int
    played: int
    decodes_of: Mapping[str, float]


def estimate(
    table: Table,
    order: Order,
    *,
    batch_size: int,
    world_size: int = 1,
    workers: int = 0,
    cache_bytes: int = CACHE_BYTES,
    max_open_files: int = 128,
    seed: int = 0,
    epoch: int = 0,
    most_samples: int = MOST_SAMPLES,
    samples: Samples | None = None,
) -> Estimate:
    """Estimate the cost of an epoch in ``order`` over the files of ``table``.

    ``GlobalIndexManager(...).now.table`` is one.

    ``samples`` are those that a window takes (``now.samples``); without them each item is one. Each
    of ``world_size`` ranks reads batches of ``batch_size`` in ``workers`` processes (0: in its own), in turn.
    """
    chunking = table.chunking() if samples is None else samples.chunking
    num_samples = chunking.num_samples
    batch = validate.integer(batch_size, "batch_size", low=1)
    ranks = validate.integer(world_size, "world_size", low=1)
    processes = max(1, validate.integer(workers, "workers"))
    capacity = validate.integer(cache_bytes, "cache_bytes")
    lanes = Lanes(ranks, processes, ranks * batch)
    # all that an order asks of a dataset when it plans an epoch
    data = SimpleNamespace(chunking=chunking)
    planned = order.plan(data, num_samples, lambda: lanes)
    arrangement = planned.bind(num_samples, seed=seed, epoch=epoch)
    model = _Model(table, samples)
    total = _Cost()
    played = 0
    if len(arrangement) <= most_samples:
        for lane, length in enumerate(lanes.quotas(len(arrangement)).tolist()):
            # each worker of each rank has a cache of its own
            cache = ByteLru[bool](capacity)
            for ids, starts in _batches(arrangement, lanes, lane, range(length)):
                total += model.read(ids, starts, cache)
    else:
        cache, length = ByteLru[bool](capacity), int(lanes.quotas(len(arrangement))[0])
        # from the middle on, at the beginning of a batch: neither end of an epoch is typical
        middle = length // (2 * batch) * batch
        for ids, starts in _batches(arrangement, lanes, 0, range(middle, length)):
            cost = model.read(ids, starts, cache)
            played += cost.samples
            # the first half filled the cache
            if played > most_samples // 2:
                total += cost
            if played >= most_samples:
                break
    return model.estimate(
        total, len(arrangement), min(max_open_files, -(-len(arrangement) // (ranks * processes)))
    )


@dataclass
class _Cost:
    samples: int = 0
    batches: int = 0
    decodes: Counter[str] = field(default_factory=Counter)
    bytes_read: int = 0
    files: int = 0

    def __iadd__(self, other: _Cost) -> _Cost:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)
        return self


def _misses(
    cache: ByteLru[bool], groups: list[int], keys: list[int], sizes: list[int]
) -> list[int]:
    """The indices of those chunks, read group by group, that the cache does not hold.

    Those of a group that are there are read first, before others can push them out.
    """
    missed, start = [], 0
    while start < len(groups):
        stop = bisect_right(groups, groups[start])
        absent = [index for index in range(start, stop) if not cache.get(keys[index])]
        for index in absent:
            cache.put(keys[index], True, sizes[index])
        missed += absent
        start = stop
    return missed


class _Field(NamedTuple):
    """What one field takes of each sample, and the chunks of its array, each with an id of its own."""

    name: str
    row_bytes: int
    offsets: Offsets | None
    chunks: NDArray[np.int64]
    firsts: NDArray[np.int64]


class _Model:
    """The chunks of all arrays, and which of them each sample needs."""

    def __init__(self, table: Table, samples: Samples | None) -> None:
        self._samples = samples
        self._units = Units.of_files(table) if samples is None else samples.sequences.units
        chunks = whole_items(self._units.chunk_lengths, table.arrays)
        lengths = self._units.index.lengths
        # An array without chunks (contiguous, say) has none here: its rows are read as they are.
        counts = np.where(chunks > 0, -(-lengths[:, None] // np.maximum(1, chunks)), 0)
        if samples is not None:
            # what no sequence that is used lies in is not read, and does not count
            counts[~samples.used_units] = 0
        # fields that read one array have its chunks in common
        shared = table.shared
        counts[:, [column for column, first in enumerate(shared) if column != first]] = 0
        self._chunks_of = {
            info.name: int(counts[:, shared[column]].sum())
            for column, info in enumerate(table.arrays)
        }
        self._num_chunks = int(counts.sum())
        firsts = (np.cumsum(counts) - counts.ravel()).reshape(counts.shape)
        self._fields = [
            _Field(
                info.name,
                info.item_bytes,
                None
                if samples is None or samples.window.is_whole
                else samples.window.of(info.name),
                chunks[:, column],
                firsts[:, shared[column]],
            )
            for column, info in enumerate(table.arrays)
        ]
        self._num_files = int(np.count_nonzero(table.lengths))

    def read(self, ids: Ids, starts: NDArray[np.int64], cache: ByteLru[bool]) -> _Cost:
        """Batches of ids, beginning at ``starts``, read one after another."""
        batch_of = np.searchsorted(starts, np.arange(len(ids)), side="right")
        cost = _Cost(samples=len(ids), batches=len(starts))
        wanted = [
            self._wanted(field, turn, batch_of, ids, cost)
            for turn, field in enumerate(self._fields)
        ]
        group, key, size, stored = (
            np.concatenate(columns) for columns in zip(*wanted, strict=True)
        )
        # as a reader goes: batch by batch, field by field, and each chunk of those once
        order = np.lexsort((key, group))
        group, key, size, stored = group[order], key[order], size[order], stored[order]
        new = np.ones(len(key), bool)
        new[1:] = (np.diff(key) != 0) | (np.diff(group) != 0)
        group, key, size, stored = group[new], key[new], size[new], stored[new]
        missed = _misses(cache, group.tolist(), key.tolist(), size.tolist())
        turns = np.bincount(group[missed] % len(self._fields), minlength=len(self._fields))
        cost.decodes += Counter(
            {field.name: int(count) for field, count in zip(self._fields, turns, strict=True)}
        )
        cost.bytes_read += int(stored[missed].sum())
        return cost

    def _wanted(
        self, field: _Field, turn: int, batch_of: NDArray[np.int64], ids: Ids, cost: _Cost
    ) -> tuple[NDArray[np.int64], ...]:
        """The chunks that the batches need of a field.

        Of each the turn in which it is read, its key, and its bytes as kept and as stored.
        """
        owners, units, rows = self._rows(field, ids)
        batch = batch_of[owners]
        if turn == 0:
            files = batch * len(self._units.index.lengths) + self._units.files_of(units)
            cost.files = len(np.unique(files))
        chunk = field.chunks[units]
        cut = chunk > 0
        # a row of a batch is read once
        apart = np.stack([batch[~cut], units[~cut], rows[~cut]])
        cost.bytes_read += np.unique(apart, axis=1).shape[1] * field.row_bytes
        batch, units, rows, length = batch[cut], units[cut], rows[cut], chunk[cut]
        index = rows // length
        rest = self._units.index.lengths[units] - index * length
        return (
            # a reader reads one array of a batch at a time
            batch * len(self._fields) + turn,
            field.firsts[units] + index,
            # what the cache holds of a file's last chunk is its rows, but it is stored whole
            np.minimum(length, rest) * field.row_bytes,
            length * field.row_bytes,
        )

    def _rows(self, field: _Field, ids: Ids) -> tuple[NDArray[np.int64], ...]:
        """Which sample takes which row of which unit."""
        if self._samples is None:
            return np.arange(len(ids)), *self._units.index.locate_many(ids)
        if field.offsets is None:
            units, rows, counts = self._samples.index.whole(ids)
            return np.repeat(np.arange(len(ids)), counts), units, rows
        taken = self._samples.index.rows(ids, field.offsets)
        # padding with zeros reads nothing
        is_read = taken.inside if self._samples.window.pad == "zero" else np.ones_like(taken.inside)
        owners = np.broadcast_to(np.arange(len(ids))[:, None], is_read.shape)
        return owners[is_read], taken.files[is_read], taken.rows[is_read]

    def estimate(self, cost: _Cost, samples: int, open_files: int) -> Estimate:
        """Scale the cost of the samples that were played out to an epoch of ``samples``."""
        scale = samples / max(1, cost.samples)
        useful = round(samples * self._bytes_a_sample())
        read = round(cost.bytes_read * scale)
        decodes = round(cost.decodes.total() * scale)
        return Estimate(
            samples=samples,
            chunks=self._num_chunks,
            decodes=decodes,
            decodes_per_chunk=decodes / max(1, self._num_chunks),
            bytes_useful=useful,
            bytes_read=read,
            bytes_per_useful_byte=read / max(1, useful),
            files_per_batch=cost.files / max(1, cost.batches),
            open_files=min(open_files, self._num_files),
            played=cost.samples,
            decodes_of={
                name: cost.decodes[name] * scale / max(1, count)
                for name, count in self._chunks_of.items()
            },
        )

    def _bytes_a_sample(self) -> float:
        """The bytes of a sample in memory, on average where sequences are samples."""
        if self._samples is not None and self._samples.window.is_whole:
            rows = self._samples.index.sequences.lengths
            return sum(field.row_bytes for field in self._fields) * float(rows[rows > 0].mean())
        return sum(field.row_bytes * _width(field.offsets) for field in self._fields)


def _width(offsets: Offsets | None) -> int:
    return len(offsets) if isinstance(offsets, tuple) else 1


def _batches(
    arrangement: Arrangement, lanes: Lanes, lane: int, indices: range
) -> Iterator[tuple[Ids, NDArray[np.int64]]]:
    """The ids of successive batches of a lane, some batches at a time, and where each begins."""
    batch = lanes.batch // lanes.ranks
    # as many batches as make a block of ids, below which numpy's overhead per call counts
    at_once = max(1, BLOCK // batch) * batch
    for start in range(indices.start, indices.stop, at_once):
        some = np.arange(start, min(start + at_once, indices.stop), dtype=np.int64)
        positions = lanes.inverse(np.full(len(some), lane, np.int64), some)
        yield arrangement.forward(positions), np.arange(0, len(some), batch)
