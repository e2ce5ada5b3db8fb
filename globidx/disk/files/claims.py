"""Who makes what is wanted by several threads: the first to come, for whom the others wait."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

from globidx.disk.files import forks


class Claims:
    """What threads of this process are making, by key. A forked child starts with none.

    >>> claims = Claims()
    >>> with claims.taken("a") as mine, claims.taken("a") as again:
    ...     mine, again, claims.has("a")
    (True, False, True)
    >>> claims.wait("a")
    """

    def __init__(self) -> None:
        self._start()
        forks.renew_in_child(self, Claims._start)

    @contextmanager
    def taken(self, key: Hashable) -> Iterator[bool]:
        """Whether ``key`` is this thread's to make, which it is then until the block ends."""
        made = threading.Event()
        # no lock, which a fork could leave locked: one step decides who was first
        if self._made.setdefault(key, made) is not made:
            yield False
            return
        try:
            yield True
        finally:
            self._made.pop(key, None)
            made.set()

    def has(self, key: Hashable) -> bool:
        """Whether some thread is making it."""
        return key in self._made

    def wait(self, key: Hashable) -> None:
        """Return when no thread is making it. Whoever waits may have taken nothing itself."""
        made = self._made.get(key)
        if made is not None:
            made.wait()

    def _start(self) -> None:
        self._made: dict[Hashable, threading.Event] = {}
