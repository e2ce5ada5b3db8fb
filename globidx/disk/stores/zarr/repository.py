"""icechunk repositories on a local path, read at one snapshot. The extra ``icechunk`` brings icechunk.

A repository is named by its folder, which means the tip of branch ``main``, or by the folder, ``@``
and a version as zarr's URLs spell it: ``branch.NAME``, ``tag.NAME`` or the id of a snapshot.

https://icechunk.io/en/stable/reference/spec
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from globidx.core.index.table import Stamp
from globidx.disk.files import forks
from globidx.disk.remote.by_fsspec import as_os_errors
from globidx.disk.stores.index_entries import stamp_of_version
from globidx.errors import MissingPackageError, ReadError

_MAIN = "branch.main"
_MOST_OPEN = 64


def is_repository(path: str) -> bool:
    """Whether a path names a repository, with or without a version.

    >>> is_repository("/data/none@branch.main")
    False
    """
    return _is_folder_of_one(split(path)[0])


def split(path: str) -> tuple[str, str]:
    """The folder and the version of a repository.

    >>> split("/data/repo@tag.v1"), split("/data/repo")
    (('/data/repo', 'tag.v1'), ('/data/repo', 'branch.main'))
    """
    folder, at, version = path.rpartition("@")
    if not at or "/" in version or os.path.isdir(path):
        return path, _MAIN
    return folder, version


def session(path: str) -> Any:
    """A read-only session of icechunk at what ``path`` names; its ``store`` is one of zarr's.

    Raises
    ------
    OSError
        If there is no such version, or the repository cannot be read.
    MissingPackageError
        If icechunk is not installed.
    """
    folder, version = split(path)
    _Born.refuse_fork(path)
    sort, _, name = version.partition(".")
    where = {sort: name} if sort in ("branch", "tag") and name else {"snapshot_id": version}
    try:
        with as_os_errors():
            return _repository(folder).readonly_session(**where)
    except OSError as error:
        # icechunk's messages are pictures, of which the first line tells what is wrong
        first = str(error).partition("|")[0].partition("  x ")[2].strip() or str(error)
        raise ReadError(f"its version {version!r} cannot be opened: {first}") from error


def stamp(path: str) -> Stamp:
    """The snapshot that ``path`` names, as the stamp of a file: it proves all that is in it."""
    return stamp_of(session(path).snapshot_id)


def stamp_of(snapshot: str) -> Stamp:
    """The stamp of a snapshot, with times that are long past."""
    return stamp_of_version(snapshot, 1)


def _is_folder_of_one(folder: str) -> bool:
    # format 1 has its branches in files, format 2 in one file
    return os.path.isdir(f"{folder}/snapshots") and (
        os.path.isdir(f"{folder}/refs") or os.path.isfile(f"{folder}/repo")
    )


@lru_cache(_MOST_OPEN)
def _repository(folder: str) -> Any:
    """A repository, which asks for its branches at each look; to open one writes a warning to the log."""
    try:
        icechunk = forks.import_module("icechunk")
    except ImportError:
        raise MissingPackageError(
            f"{folder} is an icechunk repository, and reading one needs icechunk: pip install '.[icechunk]' in the "
            "clone of globidx"
        ) from None
    # chunks in files elsewhere are not fetched: no container of such files is authorised
    return icechunk.Repository.open(icechunk.local_filesystem_storage(folder))


class _Born:
    """The process in which icechunk was first used: its threads do not live on in a forked child."""

    pid = 0

    @classmethod
    def refuse_fork(cls, path: str) -> None:
        cls.pid = cls.pid or os.getpid()
        if cls.pid != os.getpid():
            raise ReadError(
                f"{path} is an icechunk repository, and icechunk hangs in forked processes; start workers with "
                "multiprocessing_context='forkserver' or 'spawn'"
            )
