"""A lock between processes for a few microseconds of work that may as well be left undone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from globidx.disk.files import forks
from globidx.disk.files.lock import taken_within


class Exclusive:
    """At most one holder of the file ``path`` among all processes and threads of a machine.

    The kernel releases it with its holder, however that ends. A child that is forked meanwhile does
    not hold it. Unlike ``lock.work_lock`` it is not signed, which takes a thousand times as long.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     lock = Exclusive(Path(folder, "lock"))
    ...     with lock.hold(timeout=1) as first, lock.hold(timeout=0) as second:
    ...         print(first, second)
    True False
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptors: set[int] = set()
        forks.renew_in_child(self, Exclusive._leave_parents)

    @contextmanager
    def hold(self, *, timeout: float) -> Iterator[bool]:
        """Hold it, waiting at most ``timeout`` seconds; yields whether it is held.

        OSError where the file cannot be made, or the file system knows no locks.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o666)
        self._descriptors.add(descriptor)
        try:
            yield taken_within(timeout, partial(_is_taken, descriptor))
        finally:
            # before it is closed, since a forked child may have it open as well
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)
            self._descriptors.discard(descriptor)
            os.close(descriptor)

    def _leave_parents(self) -> None:
        # else the child would hold the lock for as long as it lives, if the parent is killed now
        for descriptor in self._descriptors:
            with suppress(OSError):
                os.close(descriptor)
        self._descriptors = set()


def _is_taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
