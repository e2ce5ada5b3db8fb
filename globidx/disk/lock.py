"""A lock that saves work and guards nothing: whoever cannot have it does the work itself.

On Lustre, GPFS and some NFS mounts ``flock`` succeeds for everybody, and elsewhere it fails for everybody; what is
written under this lock is therefore right without it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

_log = logging.getLogger("globidx")


@contextmanager
def work_lock(path: Path, *, timeout: float) -> Iterator[bool]:
    """Hold the lock at ``path``, waiting at most ``timeout`` seconds.

    True if it was had, False if the work must be done without it.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except (Timeout, OSError, NotImplementedError) as error:
        _log.warning("going on without the lock %s: %s", path, error)
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
