"""A lock that saves work and guards nothing: a process that cannot take it does the work itself.

On Lustre, GPFS and some NFS mounts ``flock`` succeeds for everybody, and elsewhere it fails for
everybody; what is written under this lock is therefore right without it.
"""

from __future__ import annotations

import inspect
import logging
import os
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger("globidx")
_MOST_BYTES = 256
#: Pauses begin with the first, and double up to the second, in seconds.
_SHORTEST, _LONGEST = 2e-5, 2e-3


@contextmanager
def work_lock(path: Path, *, timeout: float) -> Iterator[bool]:
    """Hold the lock at ``path``, waiting at most ``timeout`` seconds.

    Yields whether the lock was taken. If not, a warning names the lock and its holder, and the work
    goes on without it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _refuse_odd(path)
        lock = _file_lock(path)
        lock.acquire(timeout=timeout)
    except Timeout:
        _log.warning(
            "going on without the lock %s after %g seconds: it is held by %s",
            path,
            timeout,
            _holder(path),
        )
        yield False
        return
    except (OSError, NotImplementedError) as error:
        _log.warning("going on without the lock %s: %s", path, error)
        yield False
        return
    try:
        _sign(path)
        yield True
    finally:
        lock.release()


def taken_within(seconds: float, take: Callable[[], bool]) -> bool:
    """Whether ``take`` had a lock, asked until then: a wait in the kernel has no end of its own.

    >>> answers = iter([False, True])
    >>> taken_within(1, lambda: next(answers)), taken_within(0, lambda: False)
    (True, False)
    """
    deadline, pause = time.monotonic() + seconds, _SHORTEST
    while not take():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST)
    return True


def _file_lock(path: Path) -> FileLock:
    """An flock, which the kernel releases with its holder."""
    # Newer versions of filelock fall back to a file that exists while it is held, which would
    # outlive a killed holder.
    if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters:
        return FileLock(path, fallback_to_soft=False)
    return FileLock(path)


def _refuse_odd(path: Path) -> None:
    """OSError for a link, a folder or a pipe, and where no file can be made.

    A lock through them could be anywhere, or be waited for in vain.
    """
    # not to be kept waiting by a FIFO, nor led elsewhere by a link
    flags = os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        descriptor = os.open(path, flags | os.O_CREAT, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is no regular file")
    finally:
        os.close(descriptor)


def _sign(path: Path) -> None:
    """Write the holder into the file, for the message of processes that time out."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        finally:
            os.close(descriptor)
    except OSError as error:
        _log.debug("the lock %s cannot be signed: %s", path, error)


def _holder(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # anybody may have written into it, and it goes into a message
            signature = file.read(_MOST_BYTES).decode("utf-8", "replace").strip()
    except OSError as error:
        return f"an unknown process ({error})"
    return signature if signature.isprintable() and signature else "a process that left no name"
