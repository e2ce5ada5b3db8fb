"""The index over files on a disk, as users hold it.

It is a scan that is cached, and ids are looked up in it.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.index.categories import Category
from globidx.core.index.changes import Changes
from globidx.core.index.constants import Constant, parse_constants
from globidx.core.index.index import GlobalIndex, Location
from globidx.core.index.layout import Layout, require_apart
from globidx.core.index.table import ArrayInfo
from globidx.core.windows.anchors import Window
from globidx.core.windows.sampling import Samples, SequenceList, Where
from globidx.disk.index.absent import AbsentChunks, extent
from globidx.disk.index.discover import find_files
from globidx.disk.index.exchange import Peers, find_by_all
from globidx.disk.index.samples import Side
from globidx.disk.index.scan import printable
from globidx.disk.index.snapshot import Snapshot, changes_between
from globidx.disk.index.spec import IndexSpec
from globidx.disk.stores import base as stores
from globidx.errors import ReadError

_log = logging.getLogger("globidx")


class GlobalIndexManager:
    """Global sample ids over the items of many zarr and HDF5 files.

    Only metadata is read. It is kept in a cache file, so that files which did not change are not
    opened again.

    Parameters
    ----------
    files : str, path, or list of either
        A directory (every store below it), a glob, a list of paths, or a text or CSV file with a
        path a line. zarr stores may be zip files, reference sets of kerchunk, icechunk
        repositories (``"PATH@tag.v1"`` names a version), or named by URL.
    key : str, list of str, or dict of str to str, optional
        The array or dataset in each file, or several aligned ones. Without it each file must hold
        exactly one. A dict gives the fields names of their own; ``"obs/image"`` puts it into a dict
        ``obs`` of the sample. With ``sequences="match"`` the parts ``*`` and ``**`` match groups,
        and ``{a,b}`` stands for several. ``"jets/pt"`` may be a member of a compound array, and
        ``{"jet": "jets/{pt,eta}"}`` is a dict of two. ``"tokens[offsets]"``, ``"tokens[:ends]"``,
        ``"tokens[start,length]"`` and ``"tokens[start:stop]"`` are rows in runs that other arrays
        tell; items of ``"image[...]"`` may have any shape.
    layout : str, optional
        A known kind of files, instead of ``key``: ``cxi``, ``nexus``, ``peaknet``, ``anndata``,
        ``ome``, or ``tokens:LENGTH``, which cuts a one-dimensional array into sequences. ``aloha``,
        ``diffusion-policy``, ``eiger``, ``robomimic`` and ``the-well`` also say what a sequence is,
        and take the arrays that the first file has.
    axis : int or dict of str to int, default 0
        The axis along which items lie, for all fields or by field; below 0 it counts from the
        last axis of each array.
    sequences : str or (str, str), default "row"
        What rows follow one another: ``"row"`` (none: each row is a sample), ``"file"``,
        ``"chain"`` (the files, one behind the other), ``"match"`` (each group that the keys match),
        ``"axis"`` (each place along axis 0, its rows along axis 1), an array of the file with the
        row behind each sequence (``"meta/episode_ends"``), or two with first rows and lengths.
    window : Window, int, iterable of int, dict of these by field, or "all", optional
        Which rows around an anchor make up a sample; see ``Window``. By default a row.
        ``"all"`` takes each sequence as one sample; with ``sequences="match"`` or ``"file"`` arrays
        need not be aligned then, and one key that names groups, or none, takes all arrays and
        attributes of each.
    constants : dict of str to str, optional
        What belongs to a sequence or file as a whole and is given with each of its samples:
        arrays (``"dimensions/x"``), attributes (``"data/*@instruction"``, ``"@name"`` of the
        file), or the entry of an array for each sequence of the file (``"labels[*]"``).
    only : str, list of str, or callable, optional
        Which sequences to use: an array of the file that lists their names, numbers or flags; the
        names; or a function of a name.
    missing : str or list of int, optional
        Rows that are not there: an array of the file with flags or rows, or rows counted over all
        files. Samples whose window touches one are left out.
    chain_by : {"parent"} or callable, optional
        With ``sequences="chain"``, the chain of a file: its folder, or a function of its path. By
        default all files are one chain.
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
        (``HDF5_VDS_PREFIX`` and the like) are always allowed. The same goes for the files that a
        reference set of kerchunk refers to, which may be URLs then.
    storage_options : dict, optional
        Options of fsspec for files by URL, ``{"anon": True}`` for a public S3 bucket, and for
        reference sets. They travel with a pickled manager to workers, and nowhere else.

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
        key: str | Sequence[str] | Mapping[str, str] | None = None,
        layout: str | None = None,
        axis: int | Mapping[str, int] = 0,
        sequences: str | tuple[str, str] = "row",
        window: Window | Any = None,
        constants: Mapping[str, str] | None = None,
        only: str | Iterable[str] | Callable[[str], Any] | None = None,
        missing: str | Iterable[int] | None = None,
        chain_by: Literal["parent"] | Callable[[str], Any] | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        on_bad: Literal["error", "skip"] = "error",
        executor: Executor | None = None,
        peers: Peers | None = None,
        progress: Callable[[int, int], None] | None = None,
        lock_timeout: float = 60.0,
        settled_after: float = 2.0,
        allow_external: bool = False,
        storage_options: Mapping[str, Any] | None = None,
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
            storage_options=storage_options,
            sequences=sequences,
            window=window,
            only=only,
            missing=missing,
            chain_by=chain_by,
        )
        if self._spec.attributes and (constants is None or isinstance(constants, Mapping)):
            # what the user names wins over the attributes of a group
            constants = {**dict(self._spec.attributes), **(constants or {})}
        self._constants = parse_constants(constants, self._spec.layout)
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
        self._refuse_clashes()
        if self._now.samples is not None:
            self._now.samples.refuse_none()

    # -- contents

    def __len__(self) -> int:
        return len(self._now.index)

    @property
    def now(self) -> Snapshot:
        """The last scan as one frozen value, for two answers that must agree.

        ``refresh`` replaces it.
        """
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

    def fingerprint_of_samples(self, num_samples: int) -> str | None:
        """The fingerprint of the first ``num_samples`` samples of windows alone.

        If it is that of an earlier index, rows, sequences or files were appended, and no id means
        another sample.

        Parameters
        ----------
        num_samples : int
            How many samples, in ``[0, len(self)]``.

        Returns
        -------
        str or None
            The fingerprint; None where a sample is an item of a file, and ``fingerprint_of`` tells.

        Raises
        ------
        ValueError
            If ``num_samples`` is out of range.
        """
        samples = self._now.samples
        return None if samples is None else samples.fingerprint(num_samples)

    @property
    def arrays(self) -> tuple[ArrayInfo, ...]:
        """The arrays that every file has: their names, item shapes and dtypes."""
        return self._now.table.arrays

    @property
    def categories(self) -> dict[str, tuple[Category, ...]]:
        """The categories of each field of codes, of an AnnData column say: code 0 is the first one.

        They are those of all files, in the order of the files: first those of the first file, then
        what the next one adds. So codes of files that are appended change no other code. -1 is no
        category.

        Examples
        --------
        >>> import h5py, tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> for name, kinds in (("a", ["B", "T"]), ("b", ["NK", "B"])):
        ...     with h5py.File(f"{folder.name}/{name}.h5ad", "w") as file:
        ...         file.create_group("obs/kind").attrs["encoding-type"] = "categorical"
        ...         file["obs/kind/codes"], file["obs/kind/categories"] = [0, 1], kinds
        >>> manager = GlobalIndexManager(folder.name, layout="anndata", key="obs/kind")
        >>> manager.categories
        {'obs/kind': ('B', 'T', 'NK')}
        >>> manager.available()
        {'obs/kind': 'categorical, 2 categories'}
        >>> folder.cleanup()
        """
        named = self._now.table.categories
        return {
            info.name: named.joined_names(column)
            for column, info in enumerate(self.arrays)
            if info.form == "codes" and named is not None
        }

    @property
    def var_names(self) -> dict[str, tuple[Category, ...]]:
        """The names of the columns of each matrix of AnnData files, which all files have in common."""
        named = self._now.table.categories
        return {
            info.name: names
            for column, info in enumerate(self.arrays)
            if info.form != "codes" and named is not None and (names := named.joined_names(column))
        }

    def available(self) -> dict[str, str]:
        """What the first of some AnnData files has that ``key=`` can name, read or not.

        Returns
        -------
        dict of str to str
            How each matrix and column is stored, by its key.

        Raises
        ------
        ValueError
            If the layout is not ``"anndata"``.
        """
        if self.layout.rule != "anndata":
            raise ValueError(
                "available() lists what AnnData files have: pass layout='anndata' to the index"
            )
        return stores.available(
            self.paths[0],
            allow_external=self.layout.allow_external,
            storage_options=self.layout.storage_options,
        )

    @property
    def layout(self) -> Layout:
        """Which arrays are read from each file."""
        return self._spec.layout

    @property
    def axis(self) -> int:
        """The axis along which items lie, as given; of the first field where fields differ."""
        return self._spec.axis

    @property
    def window(self) -> Window | None:
        """Which rows make up a sample; None where each item of a file is one."""
        samples = self._now.samples
        return None if samples is None else samples.window

    @property
    def constants(self) -> tuple[Constant, ...]:
        """What is given with each sample of a sequence or file."""
        return self._constants

    @property
    def sequences(self) -> SequenceList:
        """The names, lengths and paths of the sequences, in their order.

        Raises
        ------
        ValueError
            If each row is a sample: the index knows files then, and no sequences.
        """
        return _windowed(self._now).listed(self._now.paths)

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """(path, reason) of each file that ``on_bad="skip"`` left out."""
        return self._now.skipped

    @property
    def cache_path(self) -> Path:
        """The path of the cache file."""
        return self._now.cache_path

    def absent(self, executor: Executor | None = None) -> list[AbsentChunks]:
        """The arrays of which chunks are in no file, so that reading them is an error.

        Names in folders and tables of files are counted; no data is read. A chunk whose file is
        empty is there by its name, and found by ``globidx index check``.

        Parameters
        ----------
        executor : concurrent.futures.Executor, optional
            Looks at files in parallel, where there are very many.

        Returns
        -------
        list of AbsentChunks
            Empty where nothing is absent.

        Raises
        ------
        ReadError
            If a file cannot be looked at.

        Examples
        --------
        >>> import tempfile, zarr
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     array = zarr.create_array(f"{folder}/a.zarr", shape=(9, 8), chunks=(3, 8), dtype="u2")
        ...     array[:3] = 7
        ...     (one,) = GlobalIndexManager(folder).absent()
        >>> one.chunks, one.of, one.rows, one.fills
        (2, 3, 6, ('0',))
        """
        found = extent(
            self._now,
            range(len(self.arrays)),
            allow_external=self.layout.allow_external,
            executor=executor,
        )
        for path, reason in found.unknown:
            raise ReadError(f"{printable(path)} cannot be looked at for absent chunks: {reason}")
        return found.lacking

    # -- look-ups

    def locate(self, sample_id: int) -> Location:
        """The file and item of a sample; of a windowed one, the file and row of its anchor.

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
        """The files and items of many samples; of windowed ones, those of their anchors.

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
        return self._now.locate_many(sample_ids)

    def sample_id(self, file: int | str | os.PathLike[str], item: int) -> int:
        """The id of an item of a file, or of an anchor of a sequence.

        Parameters
        ----------
        file : int, str or path
            The index of the file in ``paths``, or its path; with a window, the number of the
            sequence.
        item : int
            The item in the file; with a window, the anchor.

        Returns
        -------
        int
            The sample id.

        Raises
        ------
        IndexError
            If there is no such file or item, sequence or anchor.
        ValueError
            If the path is not one of ``paths``.
        """
        now = self._now
        if now.samples is not None:
            return now.samples.index.anchors.sample_id(_number(file), item)
        if isinstance(file, (str, os.PathLike)):
            return now.index.sample_id(now.number_of(os.fspath(file)), item)
        return now.index.sample_id(file, item)

    def where(self, sample_id: int) -> Where:
        """The sequence, anchor, file and rows of a windowed sample.

        Parameters
        ----------
        sample_id : int
            An id in ``[0, len(self))``.

        Returns
        -------
        Where
            What the id means.

        Raises
        ------
        IndexError
            If the id is out of range.
        ValueError
            If each row is a sample: ``locate`` tells all there is.
        """
        now = self._now
        return _windowed(now).where(validate.sample_id(sample_id, len(self)), now.paths)

    def split(
        self, fraction: float, seed: int = 0
    ) -> tuple[GlobalIndexManager, GlobalIndexManager]:
        """Two indexes over the sequences of this one: each whole sequence is on one side.

        A hash of its name and the seed decides. So a sequence stays on its side when others are
        added or taken away, and sides are only about as large as asked for: of few sequences, one
        may have none, which a warning in the log tells.

        Parameters
        ----------
        fraction : float
            The expected share of the first side, in ``[0, 1]``.
        seed : int, default 0
            Another seed is another split.

        Returns
        -------
        first, second : GlobalIndexManager
            The two sides.

        Raises
        ------
        ValueError
            If ``fraction`` is out of range, or each row is a sample: name the sequences.
        """
        _windowed(self._now)
        samples = self._spec.samples
        assert samples is not None, "an index with windows has a spec of them"
        halves = []
        for is_first in (True, False):
            half = copy.copy(self)
            side = Side(fraction, seed, is_first, depth=len(samples.split))
            half._spec = replace(self._spec, samples=samples.on_side(side))
            half._now = half._sampled(self._now)
            halves.append(half)
        if 0 < fraction < 1 and not all(len(half.sequences) for half in halves):
            _log.warning(
                "split(%s, seed=%s) leaves one side without any of %d sequences: the hash of a name decides; choose "
                "another seed, or name sequences by only=",
                fraction,
                seed,
                len(self.sequences),
            )
        return halves[0], halves[1]

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
        looked = self._look(executor, peers=peers)
        self._now = replace(looked, refreshes=before.refreshes + 1)
        return changes_between(before, self._now)

    def __repr__(self) -> str:
        return f"GlobalIndexManager({len(self)} samples in {self.num_files} files, fingerprint {self.fingerprint[:12]})"

    # -- inside

    def _sampled(self, snapshot: Snapshot) -> Snapshot:
        """The same scan, sampled anew."""
        assert self._spec.samples is not None, "only samples of sequences are sampled"
        sampling = self._spec.samples.sampling(snapshot.table, snapshot.paths, self._spec.files)
        return replace(snapshot, sampling=sampling)

    def _refuse_clashes(self) -> None:
        """ValueError if two parts of a sample have one name."""
        window = self.window
        mask = ["mask"] if window is not None and window.mask else []
        names = [info.name for info in self.arrays] + [one.name for one in self._constants]
        require_apart(
            [*names, *mask],
            "key, constants and mask together:" if mask else "key and constants together:",
        )

    def _look(
        self,
        executor: Executor | None,
        *,
        peers: Peers | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Snapshot:
        # before anything is looked at: what changes meanwhile may be seen as it was
        looked_at = time.time_ns()
        files = self._now.paths if self._spec.files is None else self._spec.files
        options = self.layout.storage_options
        paths = (
            find_files(files, options)
            if peers is None
            else find_by_all(peers, lambda: find_files(files, options))
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
        snapshot = replace(build.run(), looked_at=looked_at)
        if not isinstance(self._spec.files, str) and not snapshot.skipped:
            # the list is the index itself by now, and a million paths are not kept twice
            self._spec = replace(self._spec, files=None)
        return snapshot


def _windowed(now: Snapshot) -> Samples:
    """The samples of sequences; ValueError where each row is a sample."""
    if now.samples is None:
        raise ValueError(
            "each row of this index is a sample, so it has no sequences; pass sequences='file', 'chain', 'match', "
            "'axis' or the name of an array of ends"
        )
    return now.samples


def _number(sequence: object) -> int:
    if isinstance(sequence, (str, os.PathLike)):
        raise TypeError(
            f"samples are windows over sequences, so the first argument is the number of a sequence, got {sequence!r}"
        )
    return sequence  # type: ignore[return-value]


def _refuse_others(executor: object, peers: object) -> None:
    """TypeError for what is no executor and no ``Peers``, before any file is looked for."""
    if executor is not None and not callable(getattr(executor, "map", None)):
        raise TypeError(f"executor must be a concurrent.futures.Executor, got {executor!r:.80}")
    if peers is not None and not callable(getattr(peers, "gather", None)):
        raise TypeError(
            f"peers must have rank, world_size and gather, as globidx.RankPeers() has, got {peers!r:.80}"
        )
