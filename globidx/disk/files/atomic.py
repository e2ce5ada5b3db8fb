"""Atomic writes: a temporary file beside the target, renamed over it once it is complete.

Everything that globidx leaves on a disk is written here, except for lock files, which are empty.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from globidx.errors import NOT_WRITTEN, UNKNOWN, WriteError

#: Temporary files are ``.NAME.TOKEN.globidx-tmp``. The token ends in a digest of name and token, so
#: that no other program's file is ever taken for ours.
TEMPORARY_SUFFIX = ".globidx-tmp"
DAY = 86_400.0

_TEMPORARY = re.compile(
    rf"\.(.+)\.([0-9a-f]{{12}})([0-9a-f]{{8}}){re.escape(TEMPORARY_SUFFIX)}", re.DOTALL
)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# a name that is there, or a link, is somebody else's file: it is never written to
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def write_atomic(path: Path, *data: bytes | memoryview, durable: bool = True) -> None:
    """Make ``path`` hold ``data``, joined, or leave it as it was.

    At every instant it is the old file or the new one, never a part.

    ``durable`` also waits until the new one would survive a power cut, where the file system
    honours fsync. WriteError, an OSError, where that failed: its ``state`` is ``"not written"``
    (the old file stands) or ``"written, durability unknown"`` (the new one stands, and a power cut
    might still bring back the old). The temporary file is removed if that is possible. A symbolic
    link at ``path`` is itself replaced.
    """
    temporary, state = temporary_name(path.name), NOT_WRITTEN
    try:
        # opened first: after the rename, nothing but the folder's fsync may fail
        folder = os.open(path.parent, _FOLDER)
        try:
            written = _write_new(temporary, data, folder, durable=durable)
            try:
                # by descriptor: a folder that is renamed meanwhile still gets the file, and no
                # other does
                os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                if _is_file(path.name, folder, written):
                    # a network file system may rename the file and report a failure
                    state = UNKNOWN
                _remove(temporary, folder)
                raise
            state = UNKNOWN
            if durable:
                # never tried again: after a failed fsync the next one may report
                # success for nothing
                os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        failed = WriteError(f"{path}: {state}: {error.strerror or error}")
        failed.errno, failed.state = error.errno, state
        raise failed from error


def make_directory(directory: Path) -> None:
    """Make a folder, and those above it that are missing, so that they too survive a power cut.

    OSError if it cannot be made.
    """
    missing = []
    while not directory.exists():
        missing.append(directory)
        directory = directory.parent
    if not directory.is_dir():
        raise NotADirectoryError(f"{directory} is not a folder")
    # a file in a folder that a power cut took is as lost as the file
    for each in reversed(missing):
        # another process may be making it as well
        each.mkdir(exist_ok=True)
        folder = os.open(each.parent, _FOLDER)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def temporary_name(name: str) -> str:
    """A name for a new temporary file of the file ``name``, which ``is_temporary`` recognises."""
    token = secrets.token_hex(6)
    # in the same folder, since a rename cannot cross file systems; hidden from globs
    return f".{name}.{token}{_proof(name, token)}{TEMPORARY_SUFFIX}"


def is_temporary(name: str) -> bool:
    """Whether a file's name proves that this module made it.

    >>> is_temporary(temporary_name("a.json"))
    True
    >>> is_temporary(".a.json.0123456789ab01234567.globidx-tmp")
    False
    """
    parts = _TEMPORARY.fullmatch(name)
    return parts is not None and parts[3] == _proof(parts[1], parts[2])


def sweep(directory: Path, *, older_than: float = DAY, limit: int = 1000) -> int:
    """Remove what killed writers left in ``directory``; how many files that were.

    Only regular files whose name proves that they are ours, last changed ``older_than`` seconds
    ago: a writer may be at work on a younger one. At most ``limit`` of them, so that a save never
    waits long; the next goes on. Never an error: what cannot be removed stays.
    """
    removed, youngest = 0, time.time() - older_than
    with suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            # ten thousand of them are swept by ten saves
            if removed == limit:
                break
            with suppress(OSError):
                # by name and age both: a younger one may be another job's, at work
                if is_temporary(entry.name) and _is_stale(
                    entry.stat(follow_symlinks=False), youngest
                ):
                    os.unlink(entry.path)
                    removed += 1
    return removed


def _write_new(
    name: str, data: Iterable[bytes | memoryview], folder: int, *, durable: bool
) -> tuple[int, int]:
    """Write a file that was not there; its device and inode. It is gone again where that fails."""
    descriptor = os.open(name, _NEW, 0o666, dir_fd=folder)
    try:
        try:
            status = os.fstat(descriptor)
            for part in data:
                _write_all(descriptor, part)
            if durable:
                # before the rename: a new name must never point at bytes that are
                # not there
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except BaseException:
        _remove(name, folder)
        raise
    return status.st_dev, status.st_ino


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        # a write may be short
        rest = rest[os.write(descriptor, rest) :]


def _is_file(name: str, folder: int, identity: tuple[int, int]) -> bool:
    with suppress(OSError):
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return (status.st_dev, status.st_ino) == identity
    return False


def _remove(name: str, folder: int) -> None:
    with suppress(OSError):
        os.unlink(name, dir_fd=folder)


def _is_stale(status: os.stat_result, youngest: float) -> bool:
    return stat.S_ISREG(status.st_mode) and status.st_mtime < youngest


def _proof(name: str, token: str) -> str:
    return hashlib.blake2b(
        os.fsencode(f"{name}.{token}"), digest_size=4, person=b"globidx-tmp"
    ).hexdigest()
