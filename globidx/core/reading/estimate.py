"""What reading an epoch will cost, played out against a model of each worker's cache.

No file is read.

The model is that of ``globidx.disk``: a worker keeps decoded chunks up to a number of bytes and
drops the least recently used, a batch is read by file and item, and a chunk that alone exceeds
the cache is decoded for every batch.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.index.index import GlobalIndex
from globidx.core.index.table import Table
from globidx.core.orders.base import BLOCK, Arrangement, Ids, Order
from globidx.core.orders.lanes import Lanes
from globidx.core.reading.lru import ByteLru
from globidx.core.reading.planning import CACHE_BYTES

#: Samples that are played out, at most; of larger epochs one worker's stretch stands for all.
MOST_SAMPLES = 2**19


@dataclass(frozen=True)
class Estimate:
    """One epoch, all ranks and workers together.

    ``bytes_read`` are those of stored chunks as if nothing were compressed, which an index does
    not know.

    ``files_per_batch`` is the mean number of files in a batch, ``open_files`` the most that a
    worker has open at a time. ``played`` is how many samples were played out: all, or a part that
    stands for the rest.
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
) -> Estimate:
    """Estimate the cost of an epoch in ``order`` over the files of ``table``.

    ``GlobalIndexManager(...).now.table`` is one.

    Each of ``world_size`` ranks reads batches of ``batch_size`` in ``workers`` processes (0: in
    its own), in turn.
    """
    num_samples = int(table.lengths.sum())
    batch = validate.integer(batch_size, "batch_size", low=1)
    ranks = validate.integer(world_size, "world_size", low=1)
    processes = max(1, validate.integer(workers, "workers"))
    capacity = validate.integer(cache_bytes, "cache_bytes")
    lanes = Lanes(ranks, processes, ranks * batch)
    # all that an order asks of a dataset when it plans an epoch
    data = SimpleNamespace(chunking=table.chunking())
    planned = order.plan(data, num_samples, lambda: lanes)
    arrangement = planned.bind(num_samples, seed=seed, epoch=epoch)
    model = _Model(table)
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
    decodes: int = 0
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


class _Model:
    """The chunks of all arrays, each with an id of its own."""

    def __init__(self, table: Table) -> None:
        self._table, self._index = table, GlobalIndex(table.lengths)
        self._chunks = table.chunk_items
        self._item_bytes = [info.item_bytes for info in table.arrays]
        # An array without chunks (contiguous, say) has none here: its rows are read as they are.
        counts = np.where(
            self._chunks > 0, -(-table.lengths[:, None] // np.maximum(1, self._chunks)), 0
        )
        self._num_chunks = int(counts.sum())
        self._firsts = (np.cumsum(counts) - counts.ravel()).reshape(counts.shape)

    def read(self, ids: Ids, starts: NDArray[np.int64], cache: ByteLru[bool]) -> _Cost:
        """Batches of ids, beginning at ``starts``, read one after another."""
        batch = np.searchsorted(starts, np.arange(len(ids)), side="right")
        files, items = self._index.locate_many(ids)
        cost = _Cost(samples=len(ids), batches=len(starts))
        cost.files = len(np.unique(batch * len(self._table) + files))
        keys = []
        sizes = []
        stored = []
        groups = []
        for array, item_bytes in enumerate(self._item_bytes):
            chunk = self._chunks[files, array]
            cut = chunk > 0
            cost.bytes_read += int((~cut).sum()) * item_bytes
            file = files[cut]
            length = np.maximum(1, chunk[cut])
            index = items[cut] // length
            rows = np.minimum(length, self._table.lengths[file] - index * length)
            # what the cache holds of a file's last chunk is its rows, but it is stored whole
            sizes.append(rows * item_bytes)
            stored.append(length * item_bytes)
            keys.append(self._firsts[file, array] + index)
            # A reader reads one array of a batch at a time.
            groups.append(batch[cut] * len(self._item_bytes) + array)
        key = np.concatenate(keys)
        size = np.concatenate(sizes)
        group = np.concatenate(groups)
        # as a reader goes: batch by batch, array by array, and each chunk of those once
        sequence = np.lexsort((key, group))
        key = key[sequence]
        size = size[sequence]
        group = group[sequence]
        new = np.ones(len(key), bool)
        new[1:] = (np.diff(key) != 0) | (np.diff(group) != 0)
        missed = _misses(cache, group[new].tolist(), key[new].tolist(), size[new].tolist())
        cost.decodes = len(missed)
        cost.bytes_read += int(np.concatenate(stored)[sequence][new][missed].sum())
        return cost

    def estimate(self, cost: _Cost, samples: int, open_files: int) -> Estimate:
        """Scale the cost of the samples that were played out to an epoch of ``samples``."""
        scale = samples / max(1, cost.samples)
        useful = samples * sum(self._item_bytes)
        read = round(cost.bytes_read * scale)
        decodes = round(cost.decodes * scale)
        return Estimate(
            samples=samples,
            chunks=self._num_chunks,
            decodes=decodes,
            decodes_per_chunk=decodes / max(1, self._num_chunks),
            bytes_useful=useful,
            bytes_read=read,
            bytes_per_useful_byte=read / max(1, useful),
            files_per_batch=cost.files / max(1, cost.batches),
            open_files=min(open_files, int(np.count_nonzero(self._table.lengths))),
            played=cost.samples,
        )


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
