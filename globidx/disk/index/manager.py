"""The index over files on a disk, as users hold it: a scan that is cached, and ids that are looked up in it."""

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
from globidx.disk.index.exchange import Peers, find_by_all
from globidx.disk.index.snapshot import Snapshot, with_common_names
from globidx.disk.index.spec import IndexSpec


class GlobalIndexManager:
    """Global sample ids over the items of many zarr and HDF5 files.

    Only metadata is read. It is kept in a cache file, so that files which did not change are not
    opened again.

    Parameters
    ----------
    files : str, path, or list of either
        A directory (every store below it), a glob, a list of paths, or a text or CSV file with a
        path a line. zarr stores may be named by URL.
    key : str or list of str, optional
        The array or dataset in each file, or several aligned ones. Without it each file must hold
        exactly one.
    layout : str, optional
        A known kind of files, instead of ``key``: ``cxi``, ``nexus``, ``peaknet``, ``anndata``,
        ``ome``, or ``tokens:LENGTH``, which cuts a one-dimensional array into sequences.
    axis : int, default 0
        The axis along which items lie.
    cache_dir : path, optional
        The folder of the cache file. By default ``$GLOBIDX_CACHE_DIR``, else beside the data, else,
        where the data cannot be written, ``~/.cache/globidx``.
    on_bad : {"error", "skip"}
        What to do with files that cannot be indexed: raise an error that lists them, or leave them
        out with a warning and list them in ``skipped``.
    executor : concurrent.futures.Executor, optional
        Scans files in parallel. Threads serve zarr; HDF5 needs processes.
    peers : Peers, optional
        Other processes that scan a share of the files each: ``globidx.RankPeers()`` under torchrun.
    progress : callable, optional
        Called with the number of files scanned so far, and the number of files to scan.
    lock_timeout : float, default 60.0
        Seconds to wait for another process that builds the same index.
    settled_after : float, default 2.0
        A file that changed less than this many seconds before it was scanned is opened again by the
        next scan: another change might not have moved its timestamps. Raise it where files lie on a
        server whose clock may be behind by more.
    allow_external : bool, default False
        Whether HDF5 files may take data from files outside their own folder, by external links,
        virtual datasets or raw storage. Folders that the environment names for HDF5
        (``HDF5_VDS_PREFIX`` and the like) are always allowed.

    Raises
    ------
    NoFilesError
        If there is no file to index.
    BadFilesError
        If files cannot be indexed, with ``on_bad="error"``. Its ``failures`` lists all of them.
    ValueError
        If an option is out of range, or a file is named twice, or beside a file that takes its data
        from it: its samples would be trained on twice.

    Examples
    --------
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
    >>> manager.sample_id(1, 1)
    4
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
        settled_after: float = 2.0,
        allow_external: bool = False,
    ) -> None:
        if on_bad not in ("error", "skip"):
            raise ValueError(f"on_bad must be 'error' or 'skip', got {on_bad!r}")
        self._spec = IndexSpec.of(
            files,
            key=key,
            layout=layout,
            axis=axis,
            cache_dir=cache_dir,
            allow_external=allow_external,
        )
        self._on_bad = on_bad
        _refuse_others(executor, peers)
        if not 0 <= lock_timeout < float("inf"):
            raise ValueError(
                f"lock_timeout must be a number of seconds from 0 on, got {lock_timeout}"
            )
        self._lock_timeout = lock_timeout
        if not 0 <= settled_after < 2**31:
            raise ValueError(
                f"settled_after must be a number of seconds in [0, 2**31), got {settled_after}"
            )
        self._settled_ns = round(settled_after * 1e9)
        self._now = self._look(executor, peers=peers, progress=progress)

    # -- contents

    def __len__(self) -> int:
        return len(self._now.index)

    @property
    def now(self) -> Snapshot:
        """The last scan as one frozen value, for two answers that must agree; ``refresh`` replaces it."""
        return self._now

    @property
    def index(self) -> GlobalIndex:
        """The arithmetic of ids alone, without paths: a ``GlobalIndex``."""
        return self._now.index

    @property
    def num_files(self) -> int:
        """The number of files, empty ones included."""
        return len(self._now.table)

    @property
    def paths(self) -> Sequence[str]:
        """The absolute path of each file: a sequence that makes each path when it is read."""
        return self._now.paths

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The item count of each file: int64, read-only."""
        return self.index.lengths

    @property
    def fingerprint(self) -> str:
        """A digest of the files' relative names, item counts, item shapes and dtypes, in order.

        It does not depend on where the files are, or when they were written.
        """
        return self._now.fingerprint

    def fingerprint_of(self, num_files: int) -> str:
        """The fingerprint of an index over the first ``num_files`` files alone.

        If it is that of an earlier index, files were appended and none was changed.

        Parameters
        ----------
        num_files : int
            How many files, in ``[0, self.num_files]``.

        Returns
        -------
        str
            The fingerprint.

        Raises
        ------
        ValueError
            If ``num_files`` is out of range.
        """
        return self._now.table.fingerprint(
            validate.integer(num_files, "num_files", high=self.num_files)
        )

    @property
    def arrays(self) -> tuple[ArrayInfo, ...]:
        """The arrays that every file has: their names, item shapes and dtypes."""
        return self._now.table.arrays

    @property
    def layout(self) -> Layout:
        """Which arrays are read from each file."""
        return self._spec.layout

    @property
    def axis(self) -> int:
        """The axis along which items lie."""
        return self._spec.axis

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each file that ``on_bad="skip"`` left out."""
        return self._now.skipped

    @property
    def cache_path(self) -> Path:
        """The path of the cache file."""
        return self._now.cache_path

    # -- look-ups

    def locate(self, sample_id: int) -> Location:
        """The file and item of a sample.

        Parameters
        ----------
        sample_id : int
            An id in ``[0, len(self))``.

        Returns
        -------
        Location
            The path of the file, and the item in it.

        Raises
        ------
        IndexError
            If the id is out of range.
        """
        return self._now.locate(sample_id)

    def locate_many(self, sample_ids: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The files and items of many samples.

        Parameters
        ----------
        sample_ids : array_like of int
            Ids in ``[0, len(self))``.

        Returns
        -------
        files : ndarray of int64
            For each id, the index of its file in ``paths``.
        items : ndarray of int64
            For each id, the item in that file.

        Raises
        ------
        IndexError
            If an id is out of range.
        """
        return self.index.locate_many(sample_ids)

    def sample_id(self, file: int | str | os.PathLike[str], item: int) -> int:
        """The id of an item of a file.

        Parameters
        ----------
        file : int, str or path
            The index of the file in ``paths``, or its path.
        item : int
            The item in the file.

        Returns
        -------
        int
            The sample id.

        Raises
        ------
        IndexError
            If the file has no such item, or there is no such file.
        ValueError
            If the path is not one of ``paths``.
        """
        if isinstance(file, (str, os.PathLike)):
            now = self._now
            return now.index.sample_id(now.number_of(os.fspath(file)), item)
        return self.index.sample_id(file, item)

    def refresh(self, executor: Executor | None = None, *, peers: Peers | None = None) -> Changes:
        """Scan the files again; only those that changed are opened.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            Scans files in parallel.
        peers : Peers, optional
            Other processes that scan a share of the files each.

        Returns
        -------
        Changes
            What happened to which file.

        Raises
        ------
        NoFilesError
            If there is no file any more.
        BadFilesError
            If files cannot be indexed, with ``on_bad="error"``.

        Notes
        -----
        If files were appended, a running epoch keeps its samples. Any change that moves ids ends it
        with an error.
        """
        before = self._now
        self._now = self._look(executor, peers=peers)
        return compare(*with_common_names(before, self._now))

    def __repr__(self) -> str:
        return f"GlobalIndexManager({len(self)} samples in {self.num_files} files, fingerprint {self.fingerprint[:12]})"

    # -- inside

    def _look(
        self,
        executor: Executor | None,
        *,
        peers: Peers | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Snapshot:
        files = self._now.paths if self._spec.files is None else self._spec.files
        paths = (
            find_files(files) if peers is None else find_by_all(peers, lambda: find_files(files))
        )
        build = self._spec.build(
            paths,
            on_bad=self._on_bad,
            lock_timeout=self._lock_timeout,
            settled_ns=self._settled_ns,
            executor=executor,
            peers=peers,
            progress=progress,
        )
        snapshot = build.run()
        if not isinstance(self._spec.files, str) and not snapshot.skipped:
            # the list is the index itself by now, and a million paths are not kept twice
            self._spec = replace(self._spec, files=None)
        return snapshot


def _refuse_others(executor: object, peers: object) -> None:
    """TypeError for what is no executor and no ``Peers``, before any file is looked for."""
    if executor is not None and not callable(getattr(executor, "map", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor, got {executor!r:.80}")
    if peers is not None and not callable(getattr(peers, "gather", None)):
        raise TypeError(
            f"peers must have rank, world_size and gather, as globidx.RankPeers() has, got {peers!r:.80}"
        )
