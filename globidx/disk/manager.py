"""The index over real files: found, looked at once, cached, and then asked by number."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from globidx.core import checks
from globidx.core.index import GlobalIndex, Location
from globidx.core.table import ArrayInfo, Entry, Table
from globidx.disk import indexing
from globidx.disk.discover import find_files, given
from globidx.disk.indexcache import IndexCache, cache_path
from globidx.disk.indexed import Indexed
from globidx.disk.indexing import Failure
from globidx.disk.lock import work_lock

_log = logging.getLogger("globidx")


class GlobalIndexManager:
    """Global sample ids over the items of many zarr and HDF5 files.

    ``files`` is a directory (every store below it), a glob, a list of paths, or a text or CSV file with a path a line.
    ``key`` names the array or dataset in each file, or several aligned ones; without it each file must hold exactly
    one. Items lie along ``axis``. Only metadata is read, and remembered in a cache file in ``cache_dir`` (by default
    beside the data): files that did not change are not opened again. ``executor`` is any
    ``concurrent.futures.Executor`` to look at files with. ``lock_timeout`` is how many seconds to wait for another
    process that builds the same index.

    A file that cannot be indexed is an error that lists all of them; with ``on_bad="skip"`` they are left out, with a
    warning, and listed in ``skipped``.

    >>> import tempfile, zarr
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name, length in (("a", 3), ("b", 2)):
    ...     array = zarr.create_array(f"{folder.name}/{name}.zarr", shape=(length, 8), dtype="u2")
    >>> manager = GlobalIndexManager(folder.name)
    >>> len(manager), manager.num_files, manager.lengths.tolist()
    (5, 2, [3, 2])
    >>> path, item = manager.locate(4)
    >>> path == manager.paths[1], item
    (True, 1)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        files: Any,
        *,
        key: str | Sequence[str] | None = None,
        axis: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        on_bad: Literal["error", "skip"] = "error",
        executor: Executor | None = None,
        lock_timeout: float = 60.0,
    ) -> None:
        if on_bad not in ("error", "skip"):
            raise ValueError(f"on_bad must be 'error' or 'skip', got {on_bad!r}")
        self._files = given(files)
        self._keys = _keys(key)
        self._axis = checks.integer(axis, "axis", high=63)
        self._cache_dir = None if cache_dir is None else Path(cache_dir).absolute()
        self._on_bad = on_bad
        self._lock_timeout = lock_timeout
        self._now = self._look(executor, generation=0)

    # -- what it holds

    def __len__(self) -> int:
        return len(self._now.index)

    @property
    def now(self) -> Indexed:
        """The files as they were last looked at: one value, for whoever reads more than one thing of it."""
        return self._now

    @property
    def index(self) -> GlobalIndex:
        """The arithmetic alone."""
        return self._now.index

    @property
    def num_files(self) -> int:
        """How many files there are, empty ones included."""
        return len(self._now.table)

    @property
    def paths(self) -> Sequence[str]:
        """Absolute path of each file, made when it is asked for."""
        return self._now.paths

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Item count of each file, read-only."""
        return self.index.lengths

    @property
    def fingerprint(self) -> str:
        """Content identity.

        Names, item counts, item shapes and dtypes, in order; not where the files are or when they were written.
        """
        return self._now.fingerprint

    def fingerprint_of(self, num_files: int) -> str:
        """The fingerprint that the first ``num_files`` files have by themselves.

        How appended files are told from other ones.
        """
        return self._now.table.fingerprint(checks.integer(num_files, "num_files", high=self.num_files))

    @property
    def arrays(self) -> tuple[ArrayInfo, ...]:
        """The aligned arrays of every file: name, item shape, dtype."""
        return self._now.table.arrays

    @property
    def axis(self) -> int:
        """The axis along which items lie."""
        return self._axis

    @property
    def generation(self) -> int:
        """How many times the files were looked at: after a ``refresh``, a file number may mean another file."""
        return self._now.generation

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of the files left out by ``on_bad="skip"``."""
        return self._now.skipped

    @property
    def cache_path(self) -> Path:
        """The cache file."""
        return self._now.cache_path

    # -- where things are

    def locate(self, sample_id: int) -> Location:
        """Path and item of a sample; IndexError outside ``[0, len)``."""
        return self._now.locate(sample_id)

    def locate_many(self, sample_ids: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """File numbers and items of many samples: two int64 arrays."""
        return self.index.locate_many(sample_ids)

    def sample_id(self, file: int | str | os.PathLike[str], item: int) -> int:
        """The id of an item of a file, given by number or path.

        IndexError where the file has no such item, ValueError for another file.
        """
        if isinstance(file, (str, os.PathLike)):
            now = self._now
            return now.index.sample_id(now.number_of(os.fspath(file)), item)
        return self.index.sample_id(file, item)

    def entry(self, number: int) -> Entry:
        """What the index knows of one file."""
        return self._now.entry(number)

    def chunk_length(self, number: int, array: int) -> int:
        """How many items a chunk of one file's ``array``-th array holds; 0 where it is not chunked."""
        return self._now.chunk_length(number, array)

    def refresh(self, executor: Executor | None = None) -> None:
        """Look again at which files there are and what changed; only changed files are opened.

        Where files were appended, an epoch that runs keeps its samples; any other change ends it with an error, because
        ids moved.
        """
        self._now = self._look(executor, generation=self._now.generation + 1)

    def __repr__(self) -> str:
        return f"GlobalIndexManager({len(self)} samples in {self.num_files} files, fingerprint {self.fingerprint[:12]})"

    # -- inside

    def _look(self, executor: Executor | None, *, generation: int) -> Indexed:
        paths = find_files(self._files)
        root = os.path.commonpath([os.path.dirname(path) for path in paths])
        cache = IndexCache(cache_path(root, self._spec(paths, root), self._keys, self._axis, self._cache_dir))
        found = cache.recall(paths, root)
        if None in found:
            with work_lock(cache.path.with_suffix(".lock"), timeout=self._lock_timeout):
                found = cache.recall(paths, root)  # another process may have built it while this one waited
                results = indexing.complete(paths, found, keys=self._keys, axis=self._axis, executor=executor)
                table, skipped = self._table_of(paths, root, results)
                if None in found:
                    cache.save(table)
        else:
            table, skipped = self._table_of(paths, root, found)
        looked = Indexed(root, table, skipped, cache.path, generation)
        len(looked.index)  # totals beyond 64 bits are refused here, not at the first read
        return looked

    def _spec(self, paths: Sequence[str], root: str) -> str:
        """What tells this set of files from others of the same root: the name the user gave, or the list."""
        if isinstance(self._files, str):
            return os.path.relpath(os.path.abspath(self._files), root)
        return repr([os.path.relpath(path, root) for path in paths])

    def _table_of(
        self, paths: Sequence[str], root: str, results: Sequence[Entry | Failure | None]
    ) -> tuple[Table, tuple[tuple[str, str], ...]]:
        """The table of the files that can be indexed; the others are refused or, with a warning, skipped."""
        good = [(path, entry) for path, entry in zip(paths, results, strict=True) if isinstance(entry, Entry)]
        bad = [failure for failure in results if isinstance(failure, Failure)]
        if good:
            bad += indexing.mismatches([path for path, _ in good], [entry for _, entry in good])
        if self._on_bad == "error" or not good:
            indexing.refuse_bad(bad)
        if bad:
            _log.warning("left out %d of %d files that cannot be indexed: %s", len(bad), len(paths), bad[0])
        left_out = {failure.path for failure in bad}
        kept = [(path, entry) for path, entry in good if path not in left_out]
        names = (os.path.relpath(path, root) for path, _ in kept)
        return Table.of(names, [entry for _, entry in kept], self._axis), tuple((f.path, f.reason) for f in bad)


def _keys(key: str | Sequence[str] | None) -> tuple[str, ...] | None:
    if key is None:
        return None
    keys = (key,) if isinstance(key, str) else tuple(key)
    if not keys or not all(isinstance(name, str) and name.strip("/") for name in keys):
        raise ValueError(f"key must name an array, or several, got {key!r}")
    keys = tuple(name.strip("/") for name in keys)
    if len(set(keys)) < len(keys):
        raise ValueError(f"key names an array twice: {key!r}")
    return keys
