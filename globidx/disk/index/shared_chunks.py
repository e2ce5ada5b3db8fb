"""Chunks of an index under keys that mean the same in every process."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.table import SINGLE, Stamp
from globidx.core.reading.arena import KEY_SIZE
from globidx.core.reading.planning import Run
from globidx.core.reading.selection import Selection
from globidx.disk.files.shared_blocks import SharedBlocks
from globidx.disk.index import stamps
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.stores.index_entries import stamp_of_version

#: Jobs of one user on one node keep to themselves, since what one reserved is charged to it.
_JOBS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID")
#: A job without a name has at least a place where its ranks meet.
_MEETING = ("MASTER_ADDR", "MASTER_PORT")
#: Arrays of files whose digests are kept.
_MOST_ARRAYS = 2**16

#: As a batch names a chunk: look, column, what is selected of rows, unit, and first row.
ChunkKey = tuple[object, int, Selection | None, int, int]


def name_of_cache(now: Snapshot, columns: Iterable[int], capacity: int, *facts: object) -> str:
    """A name that processes agree on which read the same, in the same job.

    ``facts`` are more that they have to agree on, with a ``repr`` of their value.
    """
    job = [os.environ.get(name) for name in (*_JOBS, *_MEETING)]
    what = now.root, now.table.fingerprint(), sorted(set(columns)), capacity, *facts
    return repr(("globidx decoded chunks", 1, job, what))


class SharedChunks:
    """The chunks of one look at the files, out of what all processes share.

    It has what batches ask of a ``BlockCache``. In the key of a chunk is all that makes it what it
    is: path and stamps of its file as they were before it was opened, where in it the array lies,
    and how many rows it has. So nobody who indexed another version of a file is given it. When the
    index was refreshed is in it, too: chunks that were rewritten in place have no stamp, and who
    looked later is not given what was there before. What lies in files that have stamps of their
    own is shared by those alone that have the same look.
    """

    def __init__(self, blocks: SharedBlocks, now: Snapshot) -> None:
        self.now, self.capacity = now, blocks.capacity
        self._blocks = blocks
        self._arrays: dict[tuple[int, int, Selection | None], bytes] = {}
        #: Stamps of files, those that were used last at the end.
        self._noted: OrderedDict[int, list[Stamp]] = OrderedDict()

    def note(self, file: int, version: str = "") -> None:
        """Note what a file is that is opened next: what is decoded from now on is of this, or newer.

        ``version`` is that of an object by URL which was just opened.
        """
        now = [stamp_of_version(version)] if version else self._stamps(file)
        if self._noted_of(file, now) != now:
            self._noted[file] = now
            self._arrays.clear()

    def has(self, key: ChunkKey) -> bool:
        """Whether a chunk is kept, by all or by this process."""
        return self._blocks.has(self._key(key))

    def take(self, key: ChunkKey, runs: Iterable[Run], rows: NDArray[Any]) -> bool:
        """Carry out runs out of a chunk; whether it is kept. If not, some rows may hold anything."""
        return self._blocks.take(self._key(key), runs, rows)

    @contextmanager
    def claim(self, key: ChunkKey) -> Iterator[bool]:
        """Hold while a chunk is decoded; yields whether no other thread is at it.

        Another process is waited for.
        """
        with self._blocks.local.claim(key) as is_mine:
            # no other process can read objects
            if not is_mine or self.now.table.arrays[key[1]].memory.hasobject:
                yield is_mine
                return
            with self._blocks.claim(self._key(key)):
                yield True

    def is_claimed(self, key: ChunkKey) -> bool:
        """Whether some thread of this process decodes the chunk."""
        return self._blocks.local.is_claimed(key)

    def wait(self, key: ChunkKey) -> None:
        """Return when no thread decodes the chunk. Whoever waits may hold no claim."""
        self._blocks.local.wait(key)

    def room(self, key: ChunkKey, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array to decode a claimed chunk into."""
        return self._blocks.room(self._key(key), shape, dtype)

    def put(self, key: ChunkKey, block: NDArray[Any]) -> None:
        """Keep a chunk for all processes."""
        self._blocks.put(self._key(key), block)

    def _key(self, key: ChunkKey) -> bytes:
        _, column, selection, unit, chunk = key
        array = self._arrays.get((unit, column, selection))
        if array is None:
            if len(self._arrays) >= _MOST_ARRAYS:
                self._arrays.clear()
            array = self._arrays[unit, column, selection] = self._array(unit, column, selection)
        return hashlib.blake2b(
            chunk.to_bytes(8, "little"), key=array, digest_size=KEY_SIZE
        ).digest()

    def _array(self, unit: int, column: int, selection: Selection | None) -> bytes:
        """A digest of one array of one file, and of which part of it is read."""
        now = self.now
        file, number = now.units.place(unit)
        entry, path = now.entry(file), now.paths[file]
        info, codes = entry.arrays[column], now.table.codes(file).get(column)
        noted = self._noted_of(file)
        since = now.refreshed_at if stamps.tell(entry) else now.looked_at
        length, chunk = now.units.index.lengths[unit], now.units.chunk_lengths[unit, column]
        described = (
            *(path, entry.kind, entry.digest, noted, since),
            *(number, int(length), int(chunk)),
            *(info.path, info.axis, info.form, info.dtype, info.item_shape),
            None if codes is None else codes.tobytes(),
            None if selection is None else (selection.item_shape, selection.taken),
        )
        return hashlib.blake2b(repr(described).encode(), digest_size=32).digest()

    def _noted_of(self, file: int, now: list[Stamp] | None = None) -> list[Stamp]:
        """The stamps that were noted of a file; if none were, those of ``now``."""
        noted = self._noted.get(file)
        if noted is None:
            # it is not open
            noted = self._noted.setdefault(file, self._stamps(file) if now is None else now)
            if len(self._noted) > _MOST_ARRAYS:
                self._noted.popitem(last=False)
        else:
            # another thread may have made room
            with suppress(KeyError):
                self._noted.move_to_end(file)
        return noted

    def _stamps(self, file: int) -> list[Stamp]:
        entry = self.now.entry(file)
        try:
            return stamps.noted_of(os.fsencode(self.now.paths[file]), entry)
        except (OSError, ValueError):
            # of a store that is not here, or of a file that cannot be opened either
            return list(entry.stamps[: 1 if entry.kind in SINGLE else None])
