"""The on-disk cache of an index.

It may be missing, old, torn or another index's, and must never make the index wrong.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import re
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from globidx.core.index import encoding
from globidx.core.index.table import Table
from globidx.disk.files.atomic import sweep, write_atomic
from globidx.disk.files.paths import Paths
from globidx.disk.index import stamps
from globidx.disk.index.scan import Piece
from globidx.errors import RecordVersionError

_log = logging.getLogger("globidx")

#: Caches of this many bytes are mapped, smaller ones are read.
_MAPPED_FROM = 8 * 2**20


class IndexCache:
    """One cache file.

    What is read from it is compared with every file's stamp before use, so a wrong cache costs time
    and no correctness.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: No more writes: the file is a newer globidx's, or cannot be written.
        self._is_closed = False
        self._seen: object = None
        self._table: Table | None = None
        self._digest: str | None = None

    def load(self) -> Table | None:
        """The table in the file; None, with a line in the log, where there is none to use.

        The file is read again only when it is another one than the last time.
        """
        try:
            data, seen = _read(self.path, self._seen)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            _log.warning("index cache %s cannot be read, building without it: %s", self.path, error)
            return None
        if data is not None:
            self._seen, self._table = seen, self._decoded(data)
        return self._table

    def recall(self, paths: Paths, indices: NDArray[np.int64]) -> Piece | None:
        """Those of the files at ``indices`` that the cache knows and that are as they were.

        Their own stamps must prove it.
        """
        table = self.load()
        if table is None:
            return None
        rows, indices = _rows(table, paths, indices)
        known = stamps.unchanged(table, rows, paths, indices)
        rows, indices = rows[known], indices[known]
        return Piece(indices, table.take(rows)) if len(indices) else None

    def changed(self) -> bool:
        """Whether the file is another one than was loaded last."""
        before = self._seen
        self.load()
        return self._seen != before

    def digest_of(self, table: Table) -> str | None:
        """The digest of the file that ``table`` is mapped from; None where it is no file's."""
        return self._digest if table is self._table else None

    def save(self, table: Table) -> str | None:
        """Write the table, unless a newer globidx wrote the file, and return its digest.

        A cache that cannot be written is a line in the log, not an error.
        """
        if self._is_closed:
            return None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            parts = encoding.parts(table)
            digest = encoding.digest(parts[0])
            if (_identity(self.path), digest) == (self._seen, self._digest):
                # it is there already
                return digest
            # not durable: a lost cache costs a rebuild, and a torn one has a wrong digest
            write_atomic(self.path, *parts, durable=False)
            sweep(self.path.parent)
        except OSError as error:
            self._is_closed = True
            _log.warning("index cache %s cannot be written, going on without: %s", self.path, error)
            return None
        return digest

    def require_writable(self) -> None:
        """Refuse a place that cannot be written, before anything is done for it.

        What is there stays as it is.

        Raises
        ------
        OSError
            If no file can be made in the folder, or the file is a newer globidx's.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except OSError as error:
            raise OSError(
                f"the index cannot be written to {self.path}: {error.strerror}; name a folder that can be written "
                "with --cache-dir"
            ) from error
        self.load()
        if self._is_closed:
            raise OSError(
                f"the index cache {self.path} is a newer globidx's and is left alone; choose another --cache-dir"
            )

    def _decoded(self, data: mmap.mmap | bytes) -> Table | None:
        try:
            view = memoryview(data)
            table = encoding.decode(view)
        except RecordVersionError as error:
            self._is_closed = True
            _log.warning("index cache %s is left alone: %s", self.path, error)
        except ValueError as error:
            _log.warning("index cache %s is damaged and will be written anew: %s", self.path, error)
        else:
            self._digest = encoding.digest(view)
            if isinstance(data, mmap.mmap):
                # pages that were read for the checksum need not stay in memory
                data.madvise(mmap.MADV_DONTNEED)
            return table
        return None


def map_cache(path: str, digest: str, fingerprint: str | None = None) -> tuple[Table, str]:
    """The table of the cache file at ``path``, which was verified when it got its ``digest``.

    A large one is mapped.

    A file that was written anew since is as good where its ``fingerprint`` is the same: it has
    other stamps, or chunks. Its own digest is returned. FileNotFoundError or ValueError where the
    file does not hold that index any more.
    """
    data, _ = _read(Path(path), None)
    view = memoryview(data or b"")
    # small caches are verified again
    trusted = digest if isinstance(data, mmap.mmap) else None
    table, actual = encoding.decode(view, verified=trusted), encoding.digest(view)
    if actual != digest and table.fingerprint() != fingerprint:
        raise ValueError("it was written anew, and is not the index that was asked for any more")
    return table, actual


def holds(path: Path, digest: str) -> bool:
    """Whether the cache file is the one with that ``digest``."""
    try:
        map_cache(os.fspath(path), digest)
    except (OSError, ValueError):
        return False
    return True


def chosen_folder(cache_dir: Path | None) -> Path | None:
    """The folder for caches that a user chose.

    It is ``cache_dir``, else ``$GLOBIDX_CACHE_DIR`` unless that is empty.
    """
    if cache_dir is not None:
        return cache_dir
    variable = os.environ.get("GLOBIDX_CACHE_DIR")
    return Path(variable) if variable else None


def cache_path(root: str, spec: str, options: str, folder: Path | None) -> Path:
    """The path of the cache of these files.

    In ``folder`` (``chosen_folder``), else beside the data where that can be written, else in the
    user's cache folder. Beside the data its name does not depend on where the data is, so that it
    moves along.
    """
    if folder is None and os.access(root, os.W_OK):
        return path_beside(root, spec, options)
    return (folder or _user_cache()) / _name(root, spec, options)


def path_beside(root: str, spec: str, options: str) -> Path:
    """The path of the cache of these files beside them."""
    return Path(root) / _name(None, spec, options)


def siblings(path: Path) -> list[Path]:
    """Caches beside the one at ``path`` that hold the same arrays of files with the same root.

    The newest comes first.

    The files were named in another way: ``data/`` once and ``data/*.h5`` now. At most 8, since each
    is read whole.
    """
    pattern = re.compile(re.escape(path.name[: -len(_SPEC)]) + _SPEC_PATTERN)
    stamped: list[tuple[int, str]] = []
    with suppress(OSError), os.scandir(path.parent) as listing:
        others = (
            entry for entry in listing if pattern.fullmatch(entry.name) and entry.name != path.name
        )
        stamped.extend((entry.stat().st_mtime_ns, entry.path) for entry in others)
    return [Path(name) for _, name in sorted(stamped, reverse=True)[:8]]


#: How a cache's name ends: in a digest of how the files were named.
_SPEC, _SPEC_PATTERN = f"{0:016x}.index", r"[0-9a-f]{16}\.index"


def _name(root: str | None, spec: str, options: str) -> str:
    """``.globidx-OPTIONS-SPEC.index``, where both are digests.

    The first covers the options, the second how the files were named.
    """
    first, second = (
        hashlib.blake2b(os.fsencode(repr(what)), digest_size=8).hexdigest()
        for what in ((root, options), spec)
    )
    return f".globidx-{first}-{second}.index"


def _user_cache() -> Path:
    return (
        Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")).absolute()
        / "globidx"
    )


def _read(path: Path, seen: object) -> tuple[mmap.mmap | bytes | None, object]:
    """The file's bytes and its identity; no bytes where that is ``seen``.

    A large file is mapped, so that all processes of a machine share one copy. Whoever writes caches
    replaces the file and never changes it, so the bytes under a mapping stay what they were. If
    another program truncated it, SIGBUS would end the process, so small files are read instead.
    """
    # a FIFO must not be waited for
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is no regular file")
        identity = _stamp(status)
        if identity == seen:
            return None, seen
        if status.st_size < _MAPPED_FROM:
            return file.read(), identity
        return mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), identity


def _identity(path: Path) -> object:
    try:
        return _stamp(os.stat(path))
    except OSError:
        return None


def _stamp(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _rows(
    table: Table, paths: Paths, indices: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of ``table`` and indices of ``paths`` that have the same names.

    Only those among ``indices``.
    """
    shared = table.names.shared_with(paths.names)
    rows, selected = indices[indices < shared], indices[indices < shared]
    rest = indices[indices >= shared]
    if len(rest) and shared < len(table):
        row_of = {
            name: shared + row for row, name in enumerate(table.names.encoded(shared, len(table)))
        }
        names = paths.names.encoded(0, len(paths))
        pairs = [(row_of[names[index]], index) for index in rest.tolist() if names[index] in row_of]
        more = np.array(pairs, np.int64).reshape(-1, 2)
        rows, selected = np.concatenate([rows, more[:, 0]]), np.concatenate([selected, more[:, 1]])
    return rows, selected
