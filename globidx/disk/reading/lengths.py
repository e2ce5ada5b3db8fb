"""How long the samples of an index are, read as cheaply as that can be told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from globidx.disk.index.manager import GlobalIndexManager
from globidx.disk.index.scan import printable
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.reading.batch import FieldSpec
from globidx.disk.reading.open_file import OpenFile
from globidx.disk.reading.reader import Reader
from globidx.disk.stores import base as stores
from globidx.disk.stores.ragged import RunsSource
from globidx.errors import ReadError

Lengths = NDArray[np.int64]
#: Rows of unknown length that are read at a time.
_BLOCK = 1024


def document_lengths(documents: Any, field: str | None = None) -> Lengths:
    """Return how many tokens each sample of an index has.

    Parameters
    ----------
    documents : GlobalIndexManager or FileCacheDataset
        The samples.
    field : str, optional
        The array that holds the tokens; not needed where there is one.

    Returns
    -------
    numpy.ndarray
        int64, one length a sample.

    Raises
    ------
    TypeError, ValueError
        If there is no index, no such field, or its samples are no arrays.
    globidx.errors.ReadError
        If a file cannot be read.

    Notes
    -----
    Runs of rows as whole sequences (``window="all"``) and ``tokens:LENGTH`` are known to the index.
    Of ``tokens[offsets]`` and the like, only the offsets are read, and of whole arrays the shapes.
    Rows of HDF5's own variable length are all read once, since nothing else tells their lengths:
    keep what is returned in a file.
    What ``select``, ``decode`` and ``transform`` of a dataset change is not seen.

    Examples
    --------
    >>> import tempfile, h5py
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with h5py.File(f"{folder}/a.h5", "w") as file:
    ...         file["tokens"], file["offsets"] = np.arange(9), np.array([0, 2, 2, 9])
    ...     document_lengths(GlobalIndexManager(f"{folder}/a.h5", key="tokens[offsets]"))
    array([2, 0, 7])
    """
    manager = getattr(documents, "index_manager", documents)
    if not isinstance(manager, GlobalIndexManager):
        raise TypeError(
            f"an index tells lengths, and {type(documents).__name__} has none; count them, and pass them to pack()"
        )
    now: Snapshot = manager.now
    column = _column(now, field)
    info = now.table.arrays[column]
    if now.samples is not None and info.form != "whole":
        return _of_sequences(now, column)
    if info.form != "whole" and info.value.dtype.element is None and info.form != "loose":
        return _of_items(now, column)
    reader = Reader(
        manager,
        [FieldSpec(column)],
        max_open_files=None,
        cache_bytes=0,
        on_missing="error",
        backend="auto",
    )
    files = np.flatnonzero(now.table.lengths).tolist()
    try:
        if info.form == "whole":
            return _of_arrays(reader, now, column)
        parts = [_of_file(reader, now, file, column) for file in files]
    finally:
        reader.close()
    return np.concatenate([np.empty(0, np.int64), *parts])


def _column(now: Snapshot, field: str | None) -> int:
    names = [info.name for info in now.table.arrays]
    if field is None and len(names) == 1:
        return 0
    if field not in names:
        raise ValueError(
            f"field must name the array of tokens, one of {', '.join(map(repr, names))}, got {field!r}"
        )
    return names.index(field)


def _called(now: Snapshot, column: int) -> str:
    return repr(now.table.arrays[column].name) if len(now.table.arrays) > 1 else "this index"


def _of_sequences(now: Snapshot, column: int) -> Lengths:
    """Of whole sequences, which the index knows."""
    samples = now.samples
    if (
        samples is None
        or not samples.window.is_whole
        or now.table.arrays[column].value.dtype.element is not None
    ):
        raise ValueError(
            f"lengths are known of rows, and of whole sequences (window='all') of numbers, and {_called(now, column)} "
            "has other samples; count their tokens, and pass the lengths to pack()"
        )
    sequences, _ = samples.index.anchors.locate_many(np.arange(len(samples.index)))
    lengths: Lengths = samples.index.sequences.lengths[sequences]
    return lengths


def _of_items(now: Snapshot, column: int) -> Lengths:
    """Of items that all have one shape."""
    shape = now.table.arrays[column].value.shape
    if not shape:
        raise ValueError(
            f"samples of {_called(now, column)} are single values and no arrays of tokens"
        )
    return np.full(len(now.index), shape[0], np.int64)


def _of_arrays(reader: Reader, now: Snapshot, column: int) -> Lengths:
    """Of samples that are a whole array each: their first axis is that of the rows."""
    samples = now.samples
    assert samples is not None, "whole arrays are sequences"
    axis, lengths = now.table.arrays[column].axis, []
    for unit in samples.index.first_units(np.arange(len(samples.index))).tolist():
        file, number = samples.sequences.units.place(unit)
        with _opened(reader, now, file) as opened:
            shape = opened.library().describe(opened.path(column, number)).shape
            lengths.append(shape[axis] if shape else 1)
    return np.array(lengths, np.int64)


def _of_file(reader: Reader, now: Snapshot, file: int, column: int) -> Lengths:
    with _opened(reader, now, file) as opened:
        return _of_rows(opened, int(now.table.lengths[file]), column)


@contextmanager
def _opened(reader: Reader, now: Snapshot, file: int) -> Iterator[OpenFile]:
    """A file; ReadError, with its path, where it or what is asked of it cannot be read."""
    try:
        with reader.handles.use((now, file)) as opened:
            yield opened
    except (ReadError, *stores.UNREADABLE) as error:
        path = printable(now.paths[file])
        raise ReadError(f"{path}: lengths of its samples cannot be read: {error}") from error


def _of_rows(opened: OpenFile, rows: int, column: int) -> Lengths:
    source = opened.source(column)
    if isinstance(source, RunsSource):
        return source.lengths(0, rows)
    counts = []
    for start in range(0, rows, _BLOCK):
        block = np.empty(min(_BLOCK, rows - start), object)
        source.read(start, start + len(block), block)
        counts += [len(getattr(value, "values", value)) for value in block]
    return np.array(counts, np.int64)
