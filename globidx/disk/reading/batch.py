"""One batch: its plan carried out over open files, chunks kept for the next batches."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.table import ArrayInfo
from globidx.core.reading import planning
from globidx.core.reading.planning import Run
from globidx.disk.files.blocks import BlockCache
from globidx.disk.files.lru import HandleCache
from globidx.disk.index import scan as scanning
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.counters import Counters
from globidx.disk.reading.open_file import OpenFile, pick
from globidx.disk.stores import base as stores
from globidx.errors import MissingChunkError, ReadError

_FILE, _CHUNK = itemgetter(0), itemgetter(1)


class Batch:
    """The samples of some ids, out of what the files held at one look, whatever a refresh does meanwhile."""

    def __init__(
        self,
        now: Snapshot,
        sample_ids: Sequence[int],
        handles: HandleCache[tuple[Snapshot, int], OpenFile],
        cached: BlockCache,
    ) -> None:
        self._now, self._ids = now, sample_ids
        self._handles, self._cached = handles, cached
        self._plan = planning.plan(*now.index.locate_many(sample_ids))
        self._hits = self._decodes = self._taken = self._useful = 0

    def samples(self, columns: Sequence[int]) -> list[tuple[NDArray[Any], ...]]:
        """A tuple of these arrays' items for each id."""
        fields = [self._field(column) for column in columns]
        rows = self._plan.places.tolist()
        one = fields[0]
        if len(fields) == 1:
            samples_of: list[tuple[NDArray[Any], ...]] = [(one[row, ...],) for row in rows]
        else:
            samples_of = [tuple([field[row, ...] for field in fields]) for row in rows]
        if len(rows) > len(self._plan.items):
            _part_repeats(samples_of, rows)
        self._useful = (
            sum(array.nbytes for array in samples_of[0]) * len(samples_of) if samples_of else 0
        )
        return samples_of

    @property
    def counts(self) -> Counters:
        """What it took so far, the opening of files left out."""
        return Counters(self._hits, self._decodes, self._taken, self._useful)

    def _field(self, column: int) -> NDArray[Any]:
        """All distinct items of one array, in the plan's sequence."""
        info, plan = self._now.table.arrays[column], self._plan
        field = np.empty((len(plan.items), *info.item_shape), info.dtype)
        rows = field.reshape(len(plan.items) * info.rows, *info.row_shape)
        chunks = self._now.table.chunk_lengths[plan.files, column]
        # decoded once for a batch, also where it is too large to be kept
        whole = np.where(chunks > 1, chunks, 0)
        missing = self._from_cache(planning.runs(plan, info.rows, whole), column, rows)
        for _, runs in groupby(missing, _FILE):
            self._fill(list(runs), column, info, rows)
        return field

    def _from_cache(self, runs: list[Run], column: int, rows: NDArray[Any]) -> list[Run]:
        """Carry out the runs whose chunks are kept, before other chunks can push those out; the runs that are left."""
        left = []
        last = (-1, -1)
        block = None
        for run in runs:
            file, chunk, start, stop, target = run
            if chunk >= 0 and (file, chunk) != last:
                block, last = self._cached.get((self._now.look, file, column, chunk)), (file, chunk)
                self._hits += block is not None
            if chunk < 0 or block is None:
                left.append(run)
            else:
                rows[target : target + stop - start] = block[start - chunk : stop - chunk]
        return left

    def _fill(
        self,
        runs: list[Run],
        column: int,
        info: ArrayInfo,
        rows: NDArray[Any],
        *,
        again: bool = True,
    ) -> None:
        """Carry out the runs of one file: through chunks that are kept, or straight into the result."""
        run = runs[0]
        length = int(self._now.table.chunk_lengths[run.file, column])
        try:
            if run.chunk >= 0:
                for _, group in groupby(runs, _CHUNK):
                    run, *others = group
                    self._fill_from_chunk([run, *others], length, column, info, rows)
                return
            with self._handles.use((self._now, run.file)) as opened:
                read = opened.source(column).read
                for run in runs:
                    _, _, start, stop, target = run
                    self._taken += read(start, stop, rows[target : target + stop - start])
                    if length:
                        # the chunks that it touched
                        self._decodes += (stop - 1) // length - start // length + 1
        except MissingChunkError as error:
            raise MissingChunkError(self._describe(run, info, error)) from error
        except (*stores.UNREADABLE, MemoryError) as error:
            if again and isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                # a chunk file is opened for a moment, which other files must make
                # room for
                self._handles.give_back()
                self._fill(runs, column, info, rows, again=False)
                return
            raise ReadError(self._describe(run, info, error)) from error

    def _fill_from_chunk(
        self, runs: list[Run], length: int, column: int, info: ArrayInfo, rows: NDArray[Any]
    ) -> None:
        """Carry out runs of one row of chunks, which was not there when the batch began.

        It is put together and kept where the cache has room for all of it. Else each of its chunks
        is decoded by itself, and only what is wanted of it stays, so that memory does not grow with
        how long chunks are.
        """
        file, chunk = runs[0].file, runs[0].chunk
        stop = min(chunk + length, int(self._now.table.lengths[file]) * info.rows)
        size = (stop - chunk) * info.row_bytes
        self._decodes += 1
        with self._handles.use((self._now, file)) as opened:
            source = opened.source(column)
            if size > max(self._cached.capacity, rows.nbytes):
                self._taken += pick(
                    source, [(run.start, run.stop, run.target) for run in runs], rows
                )
                return
            self._cached.make_room(size)
            block = np.empty((stop - chunk, *info.row_shape), info.dtype)
            self._taken += source.read(chunk, stop, block)
        self._cached.put((self._now.look, file, column, chunk), block)
        for _, _, start, end, target in runs:
            rows[target : target + end - start] = block[start - chunk : end - chunk]

    def _describe(self, run: Run, info: ArrayInfo, error: Exception) -> str:
        """An error with the file, the items and the first ids that it keeps from being read."""
        first, last = run.target // info.rows, (run.target + run.stop - run.start - 1) // info.rows
        start, stop = int(self._plan.items[first]), int(self._plan.items[last]) + 1
        affected = np.flatnonzero((self._plan.places >= first) & (self._plan.places <= last))
        ids = ", ".join(str(int(self._ids[index])) for index in affected[:3].tolist())
        items = f"item {start}" if stop == start + 1 else f"items [{start}, {stop})"
        plain = isinstance(error, (ReadError, ValueError)) and str(error)
        path = scanning.printable(self._now.paths[run.file])
        return f"sample id {ids}: {items} of {path}: {error if plain else f'{type(error).__name__}: {error}'}"


def _part_repeats(samples: list[tuple[NDArray[Any], ...]], rows: list[int]) -> None:
    """Give each repeat of a sample memory of its own."""
    seen: set[int] = set()
    for index, row in enumerate(rows):
        if row in seen:
            samples[index] = tuple(array.copy() for array in samples[index])
        seen.add(row)
