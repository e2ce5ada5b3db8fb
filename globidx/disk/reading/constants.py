"""Constants of sequences and files: read once, and shared by all samples that have them."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from globidx.core.index.constants import Constant
from globidx.disk.files import forks
from globidx.disk.files.lru import HandleCache
from globidx.disk.index import scan as scanning
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.stores import base as stores
from globidx.errors import ReadError

#: Bytes of constants that a process keeps by default, the last one read in any case.
CAPACITY = 64 * 2**20


class ConstantReader:
    """Reads ``constants``; numbers are arrays that samples share, text is str.

    ``capacity`` is how many bytes of them are kept.
    """

    def __init__(
        self,
        constants: Sequence[Constant],
        handles: HandleCache[tuple[Snapshot, int], OpenFile],
        capacity: int = CAPACITY,
    ) -> None:
        self._constants, self._handles, self._capacity = constants, handles, capacity
        # by key, with its size: to look one up takes no lock, to change what is kept does
        self._cached: dict[Hashable, tuple[Any, int]] = {}
        self._renew()
        forks.renew_in_child(self, ConstantReader._renew)

    def read(self, now: Snapshot, sample_ids: Sequence[int]) -> list[tuple[Any, ...]]:
        """The values of all constants for each id.

        ReadError, naming file and constant, where one cannot be had.
        """
        return [
            tuple(self._value(now, one, file, number) for one in self._constants)
            for file, number in _owners(now, sample_ids)
        ]

    def _value(self, now: Snapshot, one: Constant, file: int, number: int) -> Any:
        """A constant of a file, or of its ``number``-th episode."""
        if one.is_entry:
            entries = self._kept(now, Constant(one.name, one.path), file, 0)
            if np.ndim(entries) == 0 or not 0 <= number < len(entries):
                count = 0 if np.ndim(entries) == 0 else len(entries)
                raise ReadError(
                    f"constant {one.name!r} is {str(one)!r}, an entry for each sequence, but {one.path!r} of "
                    f"{scanning.printable(now.paths[file])} has {count}, and this is sequence {number}"
                )
            entry = entries[number]
            # a number is an array of no dimension, as a constant that is no entry is
            return np.asarray(entry) if isinstance(entry, np.generic) else entry
        return self._kept(now, one, file, number if one.is_of_match else 0)

    def _kept(self, now: Snapshot, one: Constant, file: int, number: int) -> Any:
        key = (now.look, file, number, one.path, one.attribute)
        cached = self._cached.get(key)
        if cached is None:
            value = self._read(now, one, file, number)
            cached = self._keep(key, value, _size(value))
        return cached[0]

    def _keep(self, key: Hashable, value: Any, size: int) -> tuple[Any, int]:
        """The value as it is kept: another thread may have read it meanwhile."""
        with self._lock:
            if key not in self._cached:
                if self._bytes + size > self._capacity:
                    self._drop()
                self._cached[key] = value, size
                self._bytes += size
            return self._cached[key]

    def _read(self, now: Snapshot, one: Constant, file: int, number: int) -> Any:
        episodes = now.table.episodes
        path = one.path
        if one.is_of_match and episodes is not None:
            path = one.path_in(episodes.name_in(file, number))
        try:
            with self._handles.use((now, file)) as opened:
                return plain(opened.value(path, one.attribute))
        except KeyError as error:
            spelled = path if one.attribute is None else f"{path}@{one.attribute}"
            raise ReadError(
                f"constant {one.name!r}: {scanning.printable(now.paths[file])} has no {spelled!r}"
            ) from error
        except stores.UNREADABLE as error:
            where = scanning.printable(now.paths[file])
            raise ReadError(f"constant {one.name!r} of {where} cannot be read: {error}") from error

    @property
    def nbytes(self) -> int:
        """The bytes of all that is kept."""
        return self._bytes

    def clear(self) -> None:
        """Drop what is kept."""
        with self._lock:
            self._drop()

    def _drop(self) -> None:
        self._cached.clear()
        self._bytes = 0

    def _renew(self) -> None:
        # in a forked child, a thread of the parent's may have been at it
        self._lock = threading.Lock()
        self._bytes = sum(size for _, size in self._cached.values())


def _owners(now: Snapshot, sample_ids: Sequence[int]) -> list[tuple[int, int]]:
    """File of each sample, and which episode of the file its sequence is."""
    if now.samples is None:
        files, _ = now.index.locate_many(sample_ids)
        return [(file, 0) for file in files.tolist()]
    numbers, _ = now.samples.index.anchors.locate_many(sample_ids)
    sequences = now.samples.sequences
    files = sequences.files[numbers].tolist()
    episodes = now.table.episodes
    if episodes is None:
        return [(file, 0) for file in files]
    within = sequences.labels[numbers] - episodes.offsets[sequences.files[numbers]]
    return list(zip(files, within.tolist(), strict=True))


def plain(value: Any) -> Any:
    """A value of a file as samples have it: an array of numbers, str, or a list of str.

    Others of JSON are given as they are. ValueError for what is none of these.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, (str, dict)) or value is None:
        return value
    try:
        array = np.asarray(value)
    except ValueError:
        # lists of different lengths
        return value
    kind = array.dtype.kind
    if kind in "biufc":
        return np.require(array, array.dtype.newbyteorder("="), ["C", "W", "O"])
    if isinstance(value, (list, int)):
        return value
    if kind in "SUT" or (kind == "O" and all(isinstance(one, (str, bytes)) for one in array.flat)):
        return _texts(array.tolist())
    what = f"has dtype {array.dtype}" if array.ndim else f"is {value!r:.80}"
    raise ValueError(f"it {what}; numbers, bools and text can be given")


def _texts(values: Any) -> Any:
    if isinstance(values, list):
        return [_texts(one) for one in values]
    return values.decode("utf-8", "replace") if isinstance(values, bytes) else values


def _size(value: Any) -> int:
    return int(value.nbytes) if isinstance(value, np.ndarray) else 64 + len(str(value))
