"""Builds an index: reads what caches hold, scans the other files, and writes the result.

The next build reads it.

Cache and lock only save work: every cached row is compared with its file's stamp.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core.index.layout import Layout
from globidx.core.index.table import Table
from globidx.core.windows.sampling import Sampling
from globidx.disk.files.lock import work_lock
from globidx.disk.files.paths import Paths
from globidx.disk.index import exchange, stamps
from globidx.disk.index import scan as scanning
from globidx.disk.index.cache import IndexCache, map_cache, siblings
from globidx.disk.index.discover import count_by_suffix
from globidx.disk.index.exchange import Peers
from globidx.disk.index.scan import Failure, Piece, ScanResult
from globidx.disk.index.snapshot import Snapshot
from globidx.disk.local_cache import pages
from globidx.errors import NoFilesError

_log = logging.getLogger("globidx")

Indices = NDArray[np.int64]


class Assembly(NamedTuple):
    """One table of the files that agree, and the failures of the others.

    ``sources`` are files that some are made of.

    ``digest`` is that of the cache file which the table was written to.
    """

    piece: Piece | None
    failures: list[Failure]
    sources: dict[int, list[tuple[str, str]]]
    digest: str | None = None


@dataclass(frozen=True)
class Build:
    """One build of an index: the files, the arrays of each, the cache, and who helps to scan.

    ``executor`` scans files in batches; ``peers`` are other processes that each scan a share;
    ``progress`` is called with the number of files scanned and to scan. Without ``keep`` nothing is
    written. ``also`` are caches of other users, which are only read. ``on_bad`` is ``"error"``,
    ``"skip"``, or ``"report"`` for a caller that reports skipped files itself. A file that changed
    within ``settled_ns`` is opened again by the next build; an executor gets ``batch`` files at once.
    ``sample`` says which samples are taken of the files that are indexed.
    """

    paths: Paths
    cache: Path
    layout: Layout
    axis: int
    on_bad: str = "error"
    lock_timeout: float = 60.0
    executor: Executor | None = None
    peers: Peers | None = None
    progress: Callable[[int, int], None] | None = None
    keep: bool = True
    also: tuple[Path, ...] = ()
    searched: bool = False
    sample: Callable[[Table, Paths], Sampling | None] | None = None
    settled_ns: int = stamps.SETTLED_NS
    batch: int = scanning.BATCH

    def run(self, *, merge: bool = False) -> Snapshot:
        """The index of all files; ``merge`` takes the parts that other processes built, too."""
        cache = IndexCache(self.cache)
        parts = map(IndexCache, self.part_files() if merge else ())
        caches = (cache, *map(IndexCache, self.also), *parts)
        if self.peers is None:
            assembled = self._collect(np.arange(len(self.paths)), caches, cache)
        else:
            assembled = self._assemble(self._shared(caches, self.peers))
        return self._indexed(assembled, cache)

    def last(self) -> Snapshot | None:
        """The index as the cache file holds it, without a look at any file.

        None where there is none.
        """
        table = IndexCache(self.cache).load()
        return None if table is None else self._snapshot(table)

    def require_writable(self) -> None:
        """OSError where the index could not be written: before any file is opened."""
        IndexCache(self.cache).require_writable()

    def require_written(self, snapshot: Snapshot, consequence: str = "") -> None:
        """OSError where the cache file does not hold the index that was found.

        Its message ends in ``consequence``.
        """
        written = IndexCache(self.cache).load()
        if written is None or written.fingerprint() != snapshot.table.fingerprint():
            raise OSError(
                f"the index of {len(snapshot.table)} files was not written to {self.cache}{consequence}"
            )

    def run_part(self, part: int, of: int) -> tuple[Path, int]:
        """Look at one share of the files, and keep that for ``merge``.

        It is the ``part``-th, from 1, of ``of``.

        Returns the file it is kept in, and how many files it holds.
        """
        path = self.cache.with_suffix(f".{part}-of-{of}{self.cache.suffix}")
        kept = IndexCache(path)
        share = _share(len(self.paths), part - 1, of)
        assembled = self._collect(share, (kept, *self._caches()), kept)
        failures = self._relevant(assembled.failures)
        if self.on_bad == "error":
            scanning.refuse_bad(failures, len(share))
        piece = assembled.piece
        # more parts than files, or no file of this part can be indexed
        if piece is None:
            return path, 0
        if _saved(piece, assembled.digest, kept) is None:
            raise OSError(f"the part {path} cannot be written")
        return path, len(piece.table)

    def missing(self, part: tuple[int, int] | None) -> tuple[int, int]:
        """How many files there are (in a part), and how many of them no cache knows."""
        index, of = part or (1, 1)
        share = _share(len(self.paths), index - 1, of)
        caches = (*self._caches(), *map(IndexCache, self.part_files()))
        return len(share), len(self._recall(share, caches, ScanResult()))

    def _caches(self) -> list[IndexCache]:
        return [IndexCache(path) for path in (self.cache, *self.also)]

    def _siblings(self) -> Iterator[IndexCache]:
        """The caches of the same files named in another way.

        They are looked for when the first of them is asked for.
        """
        yield from map(IndexCache, siblings(self.cache))

    def part_files(self) -> list[Path]:
        """The parts of this index that were kept by ``run_part``."""
        stem, suffix = self.cache.stem, self.cache.suffix
        pattern = re.compile(re.escape(stem) + r"\.\d+-of-\d+" + re.escape(suffix))
        paths = glob.glob(
            os.path.join(glob.escape(str(self.cache.parent)), glob.escape(stem) + ".*" + suffix)
        )
        return [
            Path(path)
            for path in sorted(paths)
            if pattern.fullmatch(os.path.basename(path)) and os.path.isfile(path)
        ]

    def _collect(
        self, indices: Indices, caches: Sequence[IndexCache], kept: IndexCache
    ) -> Assembly:
        """What is known of the files at ``indices``, once those that no cache knows are scanned.

        The result is assembled once. Where a file was scanned it is also written to ``kept``, while
        the lock is held, and also where the scan is interrupted.
        """
        result = ScanResult()
        missing = self._recall(indices, caches, result)
        if not len(missing) or not self.keep:
            self._scan(missing, result)
            return self._assemble(result)
        with work_lock(kept.path.with_suffix(".lock"), timeout=self.lock_timeout):
            # another process may have written it while this one waited
            if kept.changed():
                missing = self._recall(missing, [kept], result)
            recalled = len(result.pieces)
            try:
                self._scan(missing, result)
            finally:
                assembled = self._assemble(result)
                if assembled.piece is not None and len(result.pieces) > recalled:
                    assembled = assembled._replace(digest=kept.save(assembled.piece.table))
        return assembled

    def _recall(
        self, indices: Indices, caches: Sequence[IndexCache], result: ScanResult
    ) -> Indices:
        """Add to ``result`` what caches know, or else their siblings.

        Returns the indices that are still missing.
        """
        for known in chain(caches, self._siblings()):
            if not len(indices):
                break
            piece = known.recall(self.paths, indices)
            if piece is not None:
                result.pieces.append(piece)
                indices = np.setdiff1d(indices, piece.indices, assume_unique=True)
        return indices

    def _scan(self, indices: Indices, result: ScanResult) -> None:
        """Add to ``result`` what the files at ``indices`` hold, batch by batch."""
        done = 0
        for batch in self._scanned(indices):
            result.add(batch)
            done += sum(len(piece.indices) for piece in batch.pieces) + len(batch.failures)
            if self.progress is not None:
                self.progress(done, len(indices))

    def _scanned(self, indices: Indices) -> Iterator[ScanResult]:
        """What the files at ``indices`` hold, batch by batch."""
        return scanning.scan(
            self.paths,
            indices,
            layout=self.layout,
            axis=self.axis,
            executor=self.executor,
            settled_ns=self.settled_ns,
            batch=self.batch,
            pages=pages.beside(self.cache.parent) if self.keep else None,
        )

    def _assemble(self, result: ScanResult) -> Assembly:
        piece, failures = scanning.assemble(result, self.paths)
        return Assembly(piece, failures, result.sources)

    def _shared(self, caches: Sequence[IndexCache], peers: Peers) -> ScanResult:
        """What all peers found together, each in its own share of the files."""
        share = _share(len(self.paths), peers.rank, peers.world_size)

        def mine() -> bytes:
            result = ScanResult()
            missing = self._recall(share, caches, result)
            for batch in self._scanned(missing):
                result.add(batch)
            return exchange.encode(result, self.paths)

        return exchange.merge(peers.gather(mine), self.paths)

    def _indexed(self, assembled: Assembly, cache: IndexCache) -> Snapshot:
        """The index of the files that can be indexed.

        The others are refused or, with a warning, skipped.
        """
        piece, failures = assembled.piece, self._relevant(assembled.failures)
        if piece is None or self.on_bad == "error":
            scanning.refuse_bad(failures, len(self.paths))
        if piece is None:
            others = count_by_suffix(
                failure.path for failure in assembled.failures if failure.is_other
            )
            over = f"; passed over {others} of other formats" if others else ""
            raise NoFilesError(f"there is no file to index below {self.paths.root}{over}")
        scanning.refuse_repeats(piece, self.paths)
        scanning.refuse_sources(piece, assembled.sources, self.paths)
        if failures:
            level = logging.INFO if self.on_bad == "report" else logging.WARNING
            count, total = len(failures), len(self.paths)
            _log.log(
                level,
                "left out %d of %d files that cannot be indexed: %s",
                count,
                total,
                failures[0],
            )
        table, digest = self._kept(piece, assembled.digest, cache)
        skipped = tuple((failure.path, failure.reason) for failure in failures)
        indexed = self._snapshot(table, skipped, digest)
        # totals beyond 64 bits are refused here, not at the first read
        len(indexed.index)
        return indexed

    def _snapshot(
        self, table: Table, skipped: tuple[tuple[str, str], ...] = (), digest: str | None = None
    ) -> Snapshot:
        """The files of ``table`` with the samples that are taken of them."""
        sampling = None
        if self.sample is not None:
            sampling = self.sample(table, Paths(self.paths.root, table.names))
        return Snapshot(self.paths.root, table, skipped, self.cache, digest, sampling)

    def _relevant(self, failures: Sequence[Failure]) -> list[Failure]:
        """Failures, less files of other formats that a search of a folder met.

        A warning counts those.
        """
        others = [failure for failure in failures if failure.is_other and self.searched]
        if others:
            counts, first = count_by_suffix(failure.path for failure in others), others[0]
            _log.warning(
                "passed over %s: %s is %s", counts, scanning.printable(first.path), first.reason
            )
        return [failure for failure in failures if not (failure.is_other and self.searched)]

    def _kept(
        self, piece: Piece, digest: str | None, cache: IndexCache
    ) -> tuple[Table, str | None]:
        """The table, mapped from the cache file that holds it; from memory where none does."""
        table, mapped = piece.table, cache.digest_of(piece.table)
        if mapped is not None or not self.keep:
            return table, mapped
        digest = _saved(piece, digest, cache)
        if digest is None:
            return table, None
        try:
            return map_cache(os.fspath(cache.path), digest)
        except (OSError, ValueError):
            # another process was faster
            return table, None


def _saved(piece: Piece, digest: str | None, cache: IndexCache) -> str | None:
    """The digest of the cache file with this table.

    It is the one that it was written with, is read from, or gets now.
    """
    return digest or cache.digest_of(piece.table) or cache.save(piece.table)


def _share(count: int, part: int, of: int) -> Indices:
    """The ``part``-th of ``of`` shares of ``[0, count)``, neighbours together.

    >>> [_share(7, number, 3).tolist() for number in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    return np.arange(count * part // of, count * (part + 1) // of)
