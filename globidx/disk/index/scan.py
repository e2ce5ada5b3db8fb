"""Scans files in batches, with any executor, and assembles one table.

Files that do not fit together are refused.
"""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.layout import Layout
from globidx.core.index.table import SINGLE, Entry, Stamp, Table, describe
from globidx.disk.files.paths import Paths, is_remote
from globidx.disk.index import stamps
from globidx.disk.local_cache.pages import Pages
from globidx.disk.remote.line import for_scans
from globidx.disk.stores import base as stores
from globidx.errors import BadFilesError

#: Files of one task for an executor, unless there are very many.
BATCH = 64
_BATCHES_AT_MOST = 1024
#: The most files that are named in one error message.
_SHOWN = 10
#: Of what has no stamp.
_UNKNOWN: Stamp = (0, 0, 0, 0)


@dataclass(frozen=True)
class Failure:
    """A file that cannot be indexed, and why."""

    path: str
    reason: str
    #: The file is whole, and of a format that is not read here.
    is_other: bool = False

    def __str__(self) -> str:
        return f"{printable(self.path)}: {printable(self.reason)}"

    @property
    def kind(self) -> str:
        """What failures of the same kind share: the reason up to what is there instead, whatever its numbers."""
        return re.sub(r"[0-9]+", "0", self.reason.partition(";")[0])


class Piece(NamedTuple):
    """Some files' part of an index: their table, and the place of each among all files."""

    indices: NDArray[np.int64]
    table: Table


@dataclass
class ScanResult:
    """What is known of files so far: pieces of the index, and those that failed by place.

    ``sources``, by place, are the other files that a file is made of, relative to the root of all,
    and the dataset taken from each.
    """

    pieces: list[Piece] = field(default_factory=list)
    failures: dict[int, Failure] = field(default_factory=dict)
    sources: dict[int, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, other: ScanResult) -> None:
        """Take in what was found elsewhere."""
        self.pieces += other.pieces
        self.failures |= other.failures
        self.sources |= other.sources


def examine(
    path: str,
    *,
    layout: Layout,
    axis: int,
    settled_ns: int = stamps.SETTLED_NS,
    far: Any = None,
    pages: Pages | None = None,
) -> Entry | Failure:
    """The entry of a file, with stamps, or the reason why it cannot be indexed.

    Runs in any process. ``far`` holds the keys of a store by URL, where there is such already, and
    ``pages`` keep metadata of other files by URL.
    """
    # a file that changes during the scan is scanned once more
    for _ in range(2):
        started = time.time_ns()
        try:
            entry = stores.scan(path, layout, axis, far, pages)
            # of a store with versions, the stamp of the one that was scanned
            after = list(entry.stamps)
            if not after and not is_remote(path):
                after = stamps.noted_of(os.fsencode(path), entry)
        except stores.UNREADABLE as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                # out of descriptors: no fault of the file
                raise
            plain = isinstance(error, ValueError) and error.args
            reason = f"{error}" if plain else f"{type(error).__name__}: {error}"
            return Failure(path, reason, isinstance(error, stores.OtherFormatError))
        if all(changed < started for _, _, changed, _ in after):
            break
    # its stamp identifies the file, and cannot prove that its data did not change
    if entry.is_foreign:
        if entry.stamps:
            after = [(size, 0, 0, inode) for size, _, _, inode in after]
        elif entry.kind in SINGLE:
            after = [stamps.of_others(stamp) for stamp in after or [_UNKNOWN]]
    return entry.with_stamps(
        tuple([stamps.without_racy_times(stamp, started, settled_ns) for stamp in after])
    )


def scan(
    paths: Paths,
    indices: NDArray[np.int64],
    *,
    layout: Layout,
    axis: int,
    executor: Executor | None,
    settled_ns: int = stamps.SETTLED_NS,
    batch: int = BATCH,
    pages: Pages | None = None,
) -> Iterator[ScanResult]:
    """Look at the files at ``indices``, in batches, each as it is done."""
    size = max(batch, -(-len(indices) // _BATCHES_AT_MOST))
    batches = [indices[start : start + size] for start in range(0, len(indices), size)]
    names = [[paths.names[index] for index in batch.tolist()] for batch in batches]
    look = partial(
        _scan_batch, paths.root, layout=layout, axis=axis, settled_ns=settled_ns, pages=pages
    )
    if executor is None or len(batches) == 1:
        return map(look, batches, names)
    return executor.map(look, batches, names)


def _scan_batch(
    root: str,
    indices: NDArray[np.int64],
    names: Sequence[str],
    *,
    layout: Layout,
    axis: int,
    settled_ns: int,
    pages: Pages | None,
) -> ScanResult:
    by_schema: dict[object, list[tuple[int, str, Entry]]] = {}
    result = ScanResult()
    paths = [os.path.join(root, name) for name in names]
    look = partial(examine, layout=layout, axis=axis, settled_ns=settled_ns, pages=pages)
    # each look at what is far waits for its server
    found = (
        for_scans(layout.storage_options).map(look, paths) if is_remote(root) else map(look, paths)
    )
    for index, name, examined in zip(indices.tolist(), names, found, strict=True):
        if isinstance(examined, Failure):
            result.failures[index] = examined
        else:
            by_schema.setdefault(examined.schema, []).append((index, name, examined))
            if examined.sources:
                result.sources[index] = [
                    (os.path.relpath(file, root), dataset) for file, dataset in examined.sources
                ]
    for rows in by_schema.values():
        indices_of, names_of, entries = zip(*rows, strict=True)
        result.pieces.append(Piece(np.array(indices_of, np.int64), Table.of(names_of, entries)))
    return result


def assemble(result: ScanResult, paths: Paths) -> tuple[Piece | None, list[Failure]]:
    """One table of all files that agree with the first one, and why the others do not.

    Both are in the order of the files.
    """
    failures = dict(result.failures)
    pieces = sorted(result.pieces, key=lambda piece: int(piece.indices[0]))
    if not pieces:
        return None, [failures[index] for index in sorted(failures)]
    first = pieces[0]
    reference = f"in {printable(paths[int(first.indices[0])])} there is {describe(first.table)}"
    for piece in pieces:
        if piece.table.schema != first.table.schema:
            differing = _difference(piece, first)
            reason = (
                f"it has {describe(piece.table)}, while {reference}; give the files one {differing}"
            )
            failures |= {index: Failure(paths[index], reason) for index in piece.indices.tolist()}
    fitting = [piece for piece in pieces if piece.table.schema == first.table.schema]
    indices = np.concatenate([piece.indices for piece in fitting])
    table = Table.joined([piece.table for piece in fitting])
    if (np.diff(indices) < 0).any():
        order = np.argsort(indices, kind="stable")
        indices, table = indices[order], table.take(order)
    other = _with_other_names(table)
    if len(other):
        failures |= {
            int(indices[file]): Failure(paths[int(indices[file])], reason)
            for file, reason in other.items()
        }
        kept = np.setdiff1d(np.arange(len(table)), list(other))
        indices, table = indices[kept], table.take(kept)
    return Piece(indices, table), [failures[index] for index in sorted(failures)]


def _with_other_names(table: Table) -> dict[int, str]:
    """The files whose matrices have other columns than those of the first one, and in what.

    Codes are joined by name; columns of a matrix would be taken for others.
    """
    other: dict[int, str] = {}
    for column, info in enumerate(table.arrays):
        if table.categories is None or info.form == "codes":
            continue
        first, differing = table.categories.odd_ones(column)
        for file in differing:
            names, usual = (table.categories.names_in(one, column) for one in (file, first))
            pairs = enumerate(zip(names, usual, strict=False))
            at = next((at for at, (one, two) in pairs if one != two), min(len(names), len(usual)))
            one, two = (repr(some[at]) if at < len(some) else "none" for some in (names, usual))
            other[file] = (
                f"column {at} of its {info.name!r} is {one}, and {two} in "
                f"{printable(table.names[first])}: order the columns (var) of all files alike"
            )
    return other


def refuse_bad(failures: Sequence[Failure], total: int) -> None:
    """Refuse to index ``total`` files of which some failed.

    Raises
    ------
    BadFilesError
        If there are any failures. Its message names ten of the files at most, and has each reason
        that several have in common; ``failures`` has every file.
    """
    if not failures:
        return
    count = "1 file" if len(failures) == 1 else f"{len(failures)} files"
    kinds = {failure.kind for failure in failures}
    # such as a wrong key: no file is bad, and skipping would leave none
    if len(failures) == total > 1 and len(kinds) == 1:
        lines = [
            f"none of the {total} files can be indexed, all for the reason of the first: {failures[0]}"
        ]
    else:
        # where all failed, none would be left
        skip = (
            "; mend or remove them, or pass on_bad='skip' (--on-bad skip)"
            if len(failures) < total
            else ""
        )
        lines = [f"{count} cannot be indexed{skip}:"]
        lines += _by_kind(failures[:_SHOWN])
        lines += [f"and {len(failures) - _SHOWN} more"] if len(failures) > _SHOWN else []
    error = BadFilesError("\n  ".join(lines))
    error.failures = tuple((failure.path, failure.reason) for failure in failures)
    raise error


def _by_kind(failures: Sequence[Failure]) -> Iterator[str]:
    """A line for each kind of failure: the names of the files, and the first one's reason."""
    by_kind: dict[str, list[Failure]] = {}
    for failure in failures:
        by_kind.setdefault(failure.kind, []).append(failure)
    for kind in by_kind.values():
        names = ", ".join(printable(failure.path) for failure in kind)
        differ = any(failure.reason != kind[0].reason for failure in kind)
        more = " (the first of them; the others differ in numbers)" if differ else ""
        yield f"{names}: {printable(kind[0].reason)}{more}"


def refuse_repeats(piece: Piece, paths: Paths) -> None:
    """ValueError naming two paths of one file, under whatever names.

    Its samples would be trained on twice.

    Inodes of the metadata that are the same raise the suspicion; what the paths themselves lead to
    is the proof, since tools that save space link equal metadata of different stores together.
    """
    inodes = piece.table.stamps[:, 0, 3]
    order = np.argsort(inodes, kind="stable")
    same = np.flatnonzero((np.diff(inodes[order]) == 0) & (inodes[order][1:] != 0))
    suspects = np.unique(np.concatenate([order[same], order[same + 1]]))
    first: dict[tuple[int, int], str] = {}
    for row in suspects.tolist():
        path = paths[int(piece.indices[row])]
        status = os.stat(path)
        identity = status.st_dev, status.st_ino
        if identity in first:
            both = f"{printable(path)} and {printable(first[identity])}"
            raise ValueError(f"{both} are the same file; name each file once")
        first[identity] = path


def refuse_sources(
    piece: Piece, sources: Mapping[int, Sequence[tuple[str, str]]], paths: Paths
) -> None:
    """ValueError naming a file and one that it is made of, both among the files.

    Samples would be trained on twice.

    Leaving the sources out would be safe only if the file held all of each, which is not known.
    """
    if not sources:
        return
    indices = set(piece.indices.tolist())
    inodes = piece.table.stamps[:, 0, 3]
    rows = np.argsort(inodes, kind="stable")
    inodes = inodes[rows]
    for index in sorted(indices & sources.keys()):
        for file, dataset in sources[index]:
            try:
                status = os.stat(os.path.join(paths.root, file))
            except OSError:
                continue
            inode = stamps.stamp(status)[3]
            alike = rows[slice(*np.searchsorted(inodes, [inode, inode + 1]))]
            alike = alike[piece.indices[alike] != index]
            source = _indexed_source(piece, alike.tolist(), status, dataset, paths)
            if source is not None:
                raise ValueError(
                    f"{printable(paths[index])} takes data from {printable(source)}, and both are among the files: "
                    "samples would be trained on twice; name either the one or those it is made of, by a glob or a list"
                )


def _indexed_source(
    piece: Piece, rows: list[int], status: os.stat_result, dataset: str, paths: Paths
) -> str | None:
    """The path of the row that is the file of ``status`` and whose array is its ``dataset``."""
    for row in rows:
        source, entry = paths[int(piece.indices[row])], piece.table.entry(row)
        if not os.path.samestat(os.stat(source), status):
            continue
        if any(
            stores.is_same_array(source, entry.kind, info.path, dataset) for info in entry.arrays
        ):
            return source
    return None


def printable(path: str) -> str:
    """A path for messages: control characters and bytes that are no text come out escaped."""
    return path if path.isprintable() else ascii(path)


def _difference(one: Piece, other: Piece) -> str:
    """What of two schemas differs, for the message."""
    pairs = list(zip(one.table.schema, other.table.schema, strict=False))
    if len(one.table.schema) != len(other.table.schema) or any(a[0] != b[0] for a, b in pairs):
        return "set of array names (a bare zarr array has none)"
    if all(a[:3] == b[:3] for a, b in pairs):
        return "way of storing rows"
    dtypes_agree = all(a[2] == b[2] for a, b in pairs)
    if dtypes_agree and {a[3] for a, _ in pairs} == {"plain"}:
        return "item shape, or name their arrays with key='name[...]', which leaves shapes open"
    return "item shape and dtype"
