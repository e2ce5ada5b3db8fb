"""The index over real files: found, looked at once, cached, and then asked by number."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.index.changes import Changes, compare
from globidx.core.index.index import GlobalIndex, Location
from globidx.core.index.layout import Layout
from globidx.core.index.table import ArrayInfo
from globidx.disk.index.discover import find_files
from globidx.disk.index.exchange import Peers, found_by_all
from globidx.disk.index.snapshot import Indexed, named_alike
from globidx.disk.index.spec import IndexSpec


class GlobalIndexManager:
    """Global sample ids over the items of many zarr and HDF5 files.

    ``files`` is a directory (every store below it), a glob, a list of paths, or a text or CSV file with a path a line.
    ``key`` names the array or dataset in each file, or several aligned ones; without it each file must hold exactly
    one. ``layout`` names a known kind of files instead: ``cxi``, ``nexus``, ``peaknet``, ``anndata``, ``ome``, or
    ``tokens:LENGTH``, which cuts a one-dimensional array into sequences. Items lie along ``axis``.

    Only metadata is read, and remembered in a cache file in ``cache_dir`` (by default beside the data): files that did
    not change are not opened again. ``executor`` is any ``concurrent.futures.Executor`` to look at files with (threads
    serve zarr, HDF5 needs processes); ``peers`` are other processes that take a share each (``globidx.RankPeers()``
    under torchrun); ``progress`` is called with how many of how many files were looked at. ``lock_timeout`` is how many
    seconds to wait for another process that builds the same index.

    A file that cannot be indexed is an error that lists all of them; with ``on_bad="skip"`` they are left out, with a
    warning, and listed in ``skipped``.

    HDF5 files may take data from other files: by external links, virtual datasets or raw storage. Those must lie
    below the folder of the file that names them, or below one that the environment names for HDF5
    (``HDF5_VDS_PREFIX`` and the like); with ``allow_external`` they may lie anywhere. A file beside those that it is
    made of is an error: its samples would be trained on twice.

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
        layout: str | None = None,
        axis: int = 0,
        cache_dir: str | os.PathLike[str] | None = None,
        on_bad: Literal["error", "skip"] = "error",
        executor: Executor | None = None,
        peers: Peers | None = None,
        progress: Callable[[int, int], None] | None = None,
        lock_timeout: float = 60.0,
        allow_external: bool = False,
    ) -> None:
        if on_bad not in ("error", "skip"):
            raise ValueError(f"on_bad must be 'error' or 'skip', got {on_bad!r}")
        self._spec = IndexSpec.of(
            files, key=key, layout=layout, axis=axis, cache_dir=cache_dir, allow_external=allow_external
        )
        self._on_bad = on_bad
        if not 0 <= lock_timeout < float("inf"):
            raise ValueError(f"lock_timeout must be a number of seconds from 0 on, got {lock_timeout}")
        self._lock_timeout = lock_timeout
        self._now = self._look(executor, peers=peers, progress=progress)

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
        return self._now.table.fingerprint(validate.integer(num_files, "num_files", high=self.num_files))

    @property
    def arrays(self) -> tuple[ArrayInfo, ...]:
        """The aligned arrays of every file: name, item shape, dtype."""
        return self._now.table.arrays

    @property
    def layout(self) -> Layout:
        """Which arrays are taken from each file."""
        return self._spec.layout

    @property
    def axis(self) -> int:
        """The axis along which items lie."""
        return self._spec.axis

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

    def refresh(self, executor: Executor | None = None, *, peers: Peers | None = None) -> Changes:
        """Look again at which files there are and what became of them; only changed files are opened.

        Returns what happened to which file. Where files were appended, an epoch that runs keeps its samples; any change
        that moves ids ends it with an error.
        """
        before = self._now
        self._now = self._look(executor, peers=peers)
        return compare(*named_alike(before, self._now))

    def __repr__(self) -> str:
        return f"GlobalIndexManager({len(self)} samples in {self.num_files} files, fingerprint {self.fingerprint[:12]})"

    # -- inside

    def _look(
        self,
        executor: Executor | None,
        *,
        peers: Peers | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Indexed:
        files = self._now.paths if self._spec.files is None else self._spec.files
        paths = find_files(files) if peers is None else found_by_all(peers, lambda: find_files(files))
        build = self._spec.build(
            paths,
            on_bad=self._on_bad,
            lock_timeout=self._lock_timeout,
            executor=executor,
            peers=peers,
            progress=progress,
        )
        snapshot = build.run()
        if not isinstance(self._spec.files, str) and not snapshot.skipped:
            # the list is the index itself by now, and a million paths are not kept twice
            self._spec = replace(self._spec, files=None)
        return snapshot
