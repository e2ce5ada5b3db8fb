"""One batch: its plan carried out over open files, chunks kept for the next batches."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.generator import CROP, START, Moment
from globidx.core.index.table import ArrayInfo
from globidx.core.reading import arrays, planning
from globidx.core.reading.planning import Plan, Run
from globidx.core.reading.selection import Cut, Selection
from globidx.core.values import dtypes
from globidx.core.windows.anchors import Offsets
from globidx.disk.files.blocks import BlockCache, copy_runs
from globidx.disk.files.lru import HandleCache
from globidx.disk.index.shared_chunks import ChunkKey, SharedChunks
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.advice import Advice
from globidx.disk.reading.counters import Counters
from globidx.disk.reading.decoding import Decode, UndecodableError
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.sources import Source, pick, spread
from globidx.disk.reading.takes import Column, Take, rows_of
from globidx.disk.stores import base as stores
from globidx.disk.stores.base import Span
from globidx.disk.stores.sparse import SparseSource
from globidx.errors import MissingChunkError, ReadError

#: Where a compound array was not read yet.
_NONE: NDArray[Any] = np.empty(0)
_UNIT, _CHUNK, _UNIT_AND_CHUNK = itemgetter(0), itemgetter(1), itemgetter(0, 1)


class FieldSpec(NamedTuple):
    """A field to read: the column of its array, and the offsets that it takes around an anchor.

    ``offsets`` is None where a sample takes an item, or all rows of a sequence. With ``is_mask``
    the field says which of these rows are there. ``member`` leads to the one of a compound array
    that is meant, and ``decode`` makes values of it. With ``is_sparse`` a sample is given the
    entries of a sparse row. ``selection`` is what is taken of an item, None for all of it; ``crop``
    makes another one for each sample.
    """

    column: int
    offsets: Offsets | None = None
    is_mask: bool = False
    member: tuple[str, ...] = ()
    decode: Decode | None = None
    is_sparse: bool = False
    selection: Selection | None = None
    crop: Cut | None = None


class Need(NamedTuple):
    """Rows of a file, or of a sequence in it, that are read at once for a field.

    ``key`` is that of the chunk which is kept of them, None where none is.
    """

    file: int
    number: int
    field: FieldSpec
    start: int
    stop: int
    key: ChunkKey | None = None


class _Wanted(NamedTuple):
    """An array to read, by its column; with a selection, ``info`` is that of what it leaves."""

    column: int
    info: ArrayInfo
    selection: Selection | None


class Batch:
    """The samples of some ids, out of what the files held at one look.

    A refresh meanwhile changes nothing. With ``keeps`` False no chunk is kept for the next batches.
    Crops are those of the ``moment``.
    """

    def __init__(
        self,
        now: Snapshot,
        sample_ids: Sequence[int],
        handles: HandleCache[tuple[Snapshot, int], OpenFile],
        cached: BlockCache | SharedChunks,
        advice: Advice | None = None,
        *,
        keeps: bool = True,
        moment: Moment = START,
    ) -> None:
        self._keeps, self._moment = keeps, moment
        self._now, self._ids = now, sample_ids
        self._handles, self._cached = handles, cached
        self._advice = advice
        self._takes: dict[Offsets | None, Take] = {}
        self._compound: dict[tuple[int, Offsets | None, Selection | None], NDArray[Any]] = {}
        self._hits = self._taken = self._useful = 0
        self._decodes: Counter[str] = Counter()

    def samples(self, fields: Sequence[FieldSpec]) -> list[tuple[NDArray[Any], ...]]:
        """A tuple of these fields' arrays for each id."""
        return list(zip(*map(rows_of, self.columns(fields)), strict=True))

    def columns(self, fields: Sequence[FieldSpec]) -> list[Column]:
        """What the samples have of each field, in the sequence of the ids."""
        columns = [self._column(field) for field in fields]
        for column in columns:
            parts = [column] if isinstance(column, np.ndarray) else column
            self._useful += sum(part.nbytes for part in parts)
        return columns

    def needs(self, fields: Sequence[FieldSpec]) -> Iterator[Need]:
        """The rows that these fields take, as far as that can be told before, kept chunks included."""
        told = set()
        for field in fields:
            if field.is_mask or field.crop is not None:
                continue
            info, take = self._now.table.arrays[field.column], self._take(field.offsets)
            plan, is_plain = take.plan, info.is_simple and field.decode is None
            chunks = self._now.units.chunk_lengths[plan.files, field.column]
            wanted = _Wanted(field.column, info, field.selection)
            whole = np.where((chunks > 1) & (not field.is_sparse), chunks, 0)
            # what goes straight to its place is cut where places are not neighbours
            targets = take.targets if is_plain and not field.is_sparse else None
            for run in planning.runs(plan, info.rows, whole, targets):
                key, rows = (*self._key(wanted), run.file, run.chunk), self._at_once(run, wanted)
                # members of one array are read together
                at = (*key, rows, field.offsets if run.chunk < 0 else None)
                if at not in told:
                    told.add(at)
                    place = self._now.units.place(run.file)
                    yield Need(*place, field, *rows, key if run.chunk >= 0 else None)

    def _at_once(self, run: Run, wanted: _Wanted) -> tuple[int, int]:
        """The rows that are read with those of a run: all of a row of chunks."""
        units, info = self._now.units, wanted.info
        if run.chunk < 0:
            return run.start, run.stop
        stop = run.chunk + int(units.chunk_lengths[run.file, wanted.column])
        return run.chunk, min(stop, int(units.index.lengths[run.file]) * info.rows)

    @property
    def counts(self) -> Counters:
        """What it took so far, the opening of files left out."""
        decodes = self._decodes.total()
        return Counters(
            self._hits, decodes, self._taken, self._useful, decodes_of=dict(self._decodes)
        )

    def _column(self, field: FieldSpec) -> Column:
        if field.crop is not None:
            return [self._cropped(field, field.crop, int(id)) for id in self._ids]
        take = self._take(field.offsets)
        if field.is_mask:
            assert take.inside is not None, "only padded windows have a mask"
            mask = arrays.empty(take.inside.shape, take.inside.dtype)
            mask[...] = take.inside
            return mask
        info = self._now.table.arrays[field.column]
        is_plain = info.is_simple and field.decode is None and not field.is_sparse
        if is_plain and take.targets is not None and len(take.plan.items):
            rows = self._field(field, take.plan, take)
            return take.shaped(rows, self._filler(rows, 0))
        rows, nothing = self._rows(field, take.plan)
        return take.given(rows, self._filler(rows, nothing))

    def _filler(self, rows: NDArray[Any], nothing: Any) -> NDArray[Any] | None:
        """What stands where a window has no row; None where each row is one of the sequence."""
        window = None if self._now.samples is None else self._now.samples.window
        if window is None or window.pad != "zero":
            return None
        # of no dimension, for an object may be an array itself
        filler = np.empty((), rows.dtype)
        filler[()] = nothing
        return filler

    def _cropped(self, field: FieldSpec, crop: Cut, id: int) -> NDArray[Any]:
        """The value of one sample, of which its own generator decides what is read.

        By itself, and not kept: no other sample takes the same part of a chunk.
        """
        try:
            selection = crop.of(self._moment.rng(id, CROP))
        except Exception as error:
            error.add_note(f"raised by {crop.label}, for sample id {id}")
            raise
        alone = Batch(self._now, [id], self._handles, self._cached, self._advice, keeps=False)
        # not where the batch is made, which would be as many places as there are samples
        with arrays.made_by(np.empty):
            ((value,),) = alone.samples([field._replace(selection=selection, crop=None)])
        self._taken += alone._taken
        self._decodes += alone._decodes
        return value

    def _take(self, offsets: Offsets | None) -> Take:
        """One take for all fields that take the same rows."""
        take = self._takes.get(offsets)
        if take is None:
            take = self._takes[offsets] = Take.of(self._now, self._ids, offsets)
        return take

    def _rows(self, field: FieldSpec, plan: Plan) -> tuple[NDArray[Any], Any]:
        """All distinct values of a field, in the plan's sequence, and what stands for none."""
        info = self._now.table.arrays[field.column]
        if field.is_sparse:
            return self._sparse(field.column, plan), None
        if info.is_simple and field.decode is None:
            return self._field(field, plan), 0
        if info.memory.names is None:
            rows = self._field(field, plan)
        else:
            # read once for all its members
            key = self._now.table.shared[field.column], field.offsets, field.selection
            rows = self._compound.get(key, _NONE)
            if rows is _NONE:
                rows = self._compound[key] = self._field(field, plan)
            for name in field.member:
                rows = rows[name]
            rows = rows.copy()
        if field.decode is not None:
            return self._decoded(field.decode, rows, plan), field.decode.nothing
        return rows, dtypes.parse(info.dtype).at(field.member).dtype.nothing

    def _decoded(self, decode: Decode, rows: NDArray[Any], plan: Plan) -> NDArray[Any]:
        """A value for each of the distinct rows."""
        try:
            return decode(rows, self._now.units.files_of(plan.files), self._now)
        except UndecodableError as error:
            place = error.place
            described = self._describe(int(plan.files[place]), plan, place, place, str(error))
            raise ReadError(described) from error.__cause__

    def _field(self, spec: FieldSpec, plan: Plan, take: Take | None = None) -> NDArray[Any]:
        """All distinct items of one array, or what is selected of them, in the plan's sequence.

        With a ``take``, each at its place in the batch, and what no item goes to is not set.
        """
        column, selection = spec.column, spec.selection
        info = self._now.table.arrays[column]
        if selection is not None:
            info = replace(info, item_shape=selection.shape)
        if take is None:
            field, targets = np.empty((len(plan.items), *info.item_shape), info.memory), None
        else:
            field = arrays.empty((take.places.size, *info.item_shape), info.memory)
            targets = take.targets
        if selection is not None and not field.size:
            # the part of a rank for which nothing was left
            return field
        rows = field.reshape(len(field) * info.rows, *info.row_shape)
        chunks = self._now.units.chunk_lengths[plan.files, column]
        # decoded once for a batch, also where it is too large to be kept
        whole = np.where(chunks > 1, chunks, 0)
        wanted = _Wanted(column, info, selection)
        missing = self._from_cache(planning.runs(plan, info.rows, whole, targets), wanted, rows)
        while missing:
            left: list[Run] = []
            for _, runs in groupby(missing, _UNIT):
                self._fill(list(runs), wanted, rows, plan, left)
            # last, when it has decoded its own: no two threads wait for each other
            missing = self._from_cache(self._awaited(left, wanted), wanted, rows)
        return field

    def _sparse(self, column: int, plan: Plan) -> NDArray[Any]:
        """All distinct rows of a sparse matrix, each a ``Row``."""
        info = self._now.table.arrays[column]
        rows = np.empty(len(plan.items), object)
        runs = planning.runs(plan, 1, np.zeros(len(plan.items), np.int64))
        for _, some in groupby(runs, _UNIT):
            self._fill(list(some), _Wanted(column, info, None), rows, plan, [])
        return rows

    def _awaited(self, runs: list[Run], wanted: _Wanted) -> list[Run]:
        """The runs, when other threads have decoded their chunks, or failed to."""
        for run in runs:
            self._cached.wait((*self._key(wanted), run.file, run.chunk))
        return runs

    def _key(self, wanted: _Wanted) -> tuple[object, int, Selection | None]:
        """By what chunks are kept, before unit and first row; fields that read the same share them."""
        return self._now.look, self._now.table.shared[wanted.column], wanted.selection

    def _from_cache(self, runs: list[Run], wanted: _Wanted, rows: NDArray[Any]) -> list[Run]:
        """Carry out the runs whose chunks are kept, before other chunks can push those out.

        Returns the runs that are left.
        """
        if not self._keeps:
            return runs
        left = []
        take, key = self._cached.take, self._key(wanted)
        for (unit, chunk), some in groupby(runs, _UNIT_AND_CHUNK):
            group = list(some)
            if chunk >= 0 and take((*key, unit, chunk), group, rows):
                self._hits += 1
            else:
                left += group
        return left

    def _fill(
        self,
        runs: list[Run],
        wanted: _Wanted,
        rows: NDArray[Any],
        plan: Plan,
        left: list[Run],
        *,
        again: bool = True,
    ) -> None:
        """Carry out the runs of one unit, by chunks that are kept or straight into the result.

        Runs of chunks that another thread decodes now are ``left``.
        """
        run, info = runs[0], wanted.info
        length = int(self._now.units.chunk_lengths[run.file, wanted.column])
        file, number = self._now.units.place(run.file)
        try:
            if run.chunk >= 0:
                for _, group in groupby(runs, _CHUNK):
                    run, *others = group
                    if not self._fill_from_chunk([run, *others], length, wanted, rows):
                        left += [run, *others]
                return
            with self._handles.use((self._now, file)) as opened:
                source, width = self._source(opened, wanted, number)
                try:
                    # all at once, since neighbours may be read together, and rows of a sparse batch
                    # lie in one chunk
                    if isinstance(source, SparseSource):
                        self._taken += source.pick(_spans(runs), rows)
                        return
                    self._taken += spread(source, _spans(runs), rows)
                    if length:
                        self._decodes[info.name] += width * _touched(runs, length)
                    return
                except (ReadError, *stores.UNREADABLE):
                    # one by one, to name the one that it is about
                    for run in runs:
                        _, _, start, stop, target = run
                        out = rows[target : target + stop - start]
                        self._taken += source.read(start, stop, out)
        except MissingChunkError as error:
            told = self._unread(run, info, plan, error)
            if self._advice is not None:
                told += self._advice.of(self._now, file, wanted.column)
            raise MissingChunkError(told) from error
        except (*stores.UNREADABLE, MemoryError) as error:
            if again and isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                # a chunk file is opened for a moment, which other files must make
                # room for
                self._handles.give_back()
                self._fill(runs, wanted, rows, plan, left, again=False)
                return
            raise ReadError(self._unread(run, info, plan, error)) from error

    def _fill_from_chunk(
        self, runs: list[Run], length: int, wanted: _Wanted, rows: NDArray[Any]
    ) -> bool:
        """Carry out runs of one row of chunks, which was not there when the batch began.

        It is put together and kept where the cache has room for all of it. Else each of its chunks
        is decoded by itself, and only what is wanted of it stays, so that memory does not grow with
        how long chunks are. If all of it is wanted, and would push out others, it is decoded
        straight into the result: what was taken whole is the last to be wanted again.

        Returns whether that was done, and not left to another thread that is at it.
        """
        info, unit, chunk = wanted.info, runs[0].file, runs[0].chunk
        stop = min(chunk + length, int(self._now.units.index.lengths[unit]) * info.rows)
        size = (stop - chunk) * info.row_bytes
        if not self._keeps or size > max(self._cached.capacity, rows.nbytes):
            with self._opened(unit, wanted) as source:
                self._taken += pick(source, _spans(runs), rows)
            return True
        start, end, target = runs[0][2:]
        if end - start == stop - chunk and not self._has_room(size, wanted.column):
            with self._opened(unit, wanted) as source:
                self._taken += source.read(start, end, rows[target : target + end - start])
            return True
        if size > self._cached.capacity:
            # nobody else would find it
            self._decode_and_keep(runs, stop, wanted, rows)
            return True
        with self._cached.claim((*self._key(wanted), unit, chunk)) as is_mine:
            if is_mine:
                self._decode_and_keep(runs, stop, wanted, rows)
            return is_mine

    def _decode_and_keep(
        self, runs: list[Run], stop: int, wanted: _Wanted, rows: NDArray[Any]
    ) -> None:
        """Decode a row of chunks that ends at ``stop``, unless another process or thread just has."""
        info, unit, chunk = wanted.info, runs[0].file, runs[0].chunk
        key, cached = (*self._key(wanted), unit, chunk), self._cached
        # another one may have made it since this batch began
        if cached.take(key, runs, rows):
            self._hits += 1
            return
        with self._opened(unit, wanted) as source:
            block = cached.room(key, (stop - chunk, *info.row_shape), info.memory)
            self._taken += source.read(chunk, stop, block)
        # before others have it: they may put something else in its place at once
        copy_runs(block, runs, rows)
        cached.put(key, block)

    @contextmanager
    def _opened(self, unit: int, wanted: _Wanted) -> Iterator[Source]:
        """The way to a row of chunks, which is counted as decoded."""
        file, number = self._now.units.place(unit)
        with self._handles.use((self._now, file)) as opened:
            source, width = self._source(opened, wanted, number)
            self._decodes[wanted.info.name] += width
            yield source

    def _has_room(self, size: int, column: int) -> bool:
        """Whether a block can be kept beside all others, or may be wanted again soon."""
        shared, cached = self._now.table.shared, self._cached
        if self._now.samples is not None or shared.count(shared[column]) > 1:
            return True
        # what processes share has room for the blocks of all of them
        return not isinstance(cached, BlockCache) or cached.nbytes + size <= cached.capacity

    def _source(self, opened: OpenFile, wanted: _Wanted, number: int) -> tuple[Source, int]:
        """The way to an array, and how many chunks it counts for a row of chunks."""
        column, _, selection = wanted
        if selection is None:
            return opened.source(column, number), 1
        part = opened.part(column, number, selection, keep=self._keeps)
        return part, part.width

    def _unread(self, run: Run, info: ArrayInfo, plan: Plan, error: Exception) -> str:
        """The message for a run that could not be read."""
        # the items of its unit, which ascend in the plan
        low, high = np.searchsorted(plan.files, [run.file, run.file + 1])
        ends = [run.start // info.rows, (run.stop - 1) // info.rows]
        first, last = (low + np.searchsorted(plan.items[low:high], ends)).tolist()
        plain = isinstance(error, (ReadError, ValueError)) and str(error)
        reason = str(error) if plain else f"{type(error).__name__}: {error}"
        return self._describe(run.file, plan, first, last, reason)

    def _describe(self, unit: int, plan: Plan, first: int, last: int, reason: str) -> str:
        """A message with the file, the items and the first ids that cannot be had.

        ``first`` and ``last`` are places in the plan.
        """
        start, stop = int(plan.items[first]), int(plan.items[last]) + 1
        ids = ", ".join(str(int(self._ids[index])) for index in self._affected(plan, first, last))
        items = f"item {start}" if stop == start + 1 else f"items [{start}, {stop})"
        return f"sample id {ids}: {items} of {self._now.unit_in_words(unit)}: {reason}"

    def _affected(self, plan: Plan, first: int, last: int) -> list[int]:
        """Which of the samples take one of the distinct items from ``first`` to ``last``.

        Three of them at most.
        """
        for take in self._takes.values():
            if take.plan is not plan:
                continue
            hit = (take.places >= first) & (take.places <= last)
            if take.counts is not None:
                owners = np.repeat(np.arange(len(take.counts)), take.counts)
                return [int(index) for index in np.unique(owners[hit])[:3]]
            samples = np.flatnonzero(hit.reshape(len(hit), -1).any(axis=1))
            return [int(index) for index in samples[:3]]
        return []


def _touched(runs: Sequence[Run], length: int) -> int:
    """How many chunks of ``length`` rows the runs touch."""
    return sum((run.stop - 1) // length - run.start // length + 1 for run in runs)


def _spans(runs: Sequence[Run]) -> list[Span]:
    return [(start, stop, target) for _, _, start, stop, target in runs]
