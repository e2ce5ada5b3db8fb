"""Scan results as bytes for other processes: no pickles, so that a broken peer can run no code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from globidx.core.index import encoding
from globidx.disk.files.paths import Paths
from globidx.disk.index.scan import Failure, Piece, ScanResult
from globidx.errors import NoFilesError


class Peers(Protocol):
    """Processes that build one index together, ``rank`` the number of this one."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def world_size(self) -> int: ...  # noqa: D102

    def gather(self, work: Callable[[], bytes]) -> list[bytes]:
        """``work()`` of every process, in their order, in every process.

        Where one raises, all raise.
        """


def find_by_all(peers: Peers, find: Callable[[], Paths]) -> Paths:
    """``find()``, or in every process the error that it raised in any."""
    results: list[Paths] = []

    def work() -> bytes:
        results.append(find())
        return b""

    peers.gather(work)
    return results[0]


def encode(result: ScanResult, paths: Paths) -> bytes:
    """A scan result, and a digest of the files that this process saw."""
    blobs: list[bytes] = []
    for piece in result.pieces:
        blobs += [piece.indices.astype("<i8").tobytes(), encoding.encode(piece.table)]
    failures = [
        [index, _hex(bad.path), bad.reason, bad.is_other] for index, bad in result.failures.items()
    ]
    sources = []
    for index, taken in result.sources.items():
        sources.append([index, [[_hex(file), _hex(dataset)] for file, dataset in taken]])
    header = {
        "root": _hex(paths.root),
        "count": len(paths),
        "names": _digest(paths),
        "failures": failures,
        "sources": sources,
        "sizes": [len(blob) for blob in blobs],
    }
    return b"\n".join([json.dumps(header).encode(), b"".join(blobs)])


def merge(parts: Sequence[bytes], paths: Paths) -> ScanResult:
    """The scan results of all processes.

    NoFilesError names the first rank that saw other files than this one.
    """
    result, digest = ScanResult(), _digest(paths)
    for rank, part in enumerate(parts):
        text, _, body = part.partition(b"\n")
        header: dict[str, Any] = json.loads(text)
        if header["names"] != digest:
            raise NoFilesError(
                f"rank {rank} sees {header['count']} files below {_text(header['root'])}, this "
                f"{len(paths)} below {paths.root}, or under other names; all ranks must see the same files"
            )
        for index, path, reason, is_other in header["failures"]:
            result.failures[index] = Failure(_text(path), reason, is_other)
        for index, taken in header["sources"]:
            result.sources[index] = [(_text(file), _text(dataset)) for file, dataset in taken]
        ends = np.cumsum([0, *header["sizes"]]).tolist()
        blobs = [body[start:end] for start, end in zip(ends, ends[1:], strict=False)]
        for indices, table in zip(blobs[::2], blobs[1::2], strict=True):
            result.pieces.append(
                Piece(np.frombuffer(indices, "<i8").astype(np.int64), encoding.decode(table))
            )
    return result


def _digest(paths: Paths) -> str:
    """Of the names alone: hosts may have mounted the files in different places."""
    return hashlib.blake2b(paths.names.spelled(len(paths)), digest_size=16).hexdigest()


def _hex(path: str) -> str:
    """A path as JSON can hold it: its bytes need not be text."""
    return os.fsencode(path).hex()


def _text(digits: str) -> str:
    return os.fsdecode(bytes.fromhex(digits))
