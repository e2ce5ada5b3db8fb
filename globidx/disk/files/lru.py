"""Open files, a bounded number of them, the least recently used closed first."""

from __future__ import annotations

import errno
import resource
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from globidx.disk.files import forks


class Closable(Protocol):
    """Anything with ``close()``."""

    def close(self) -> None:
        """Release it."""


Key = TypeVar("Key", bound=Hashable)
Handle = TypeVar("Handle", bound=Closable)


@dataclass
class _Slot(Generic[Handle]):
    handle: Handle | None = None
    users: int = 0
    # whether it was closed in use, and its last user is to close it
    is_left: bool = False
    # held by the thread that opens it
    opening: threading.Lock = field(default_factory=threading.Lock)


class HandleCache(Generic[Key, Handle]):
    """At most ``capacity`` handles, opened by ``open_handle(key)`` on first use.

    They are closed when they are pushed out.

    A handle in use is never closed under its user. Handles belong to the process that opened them:
    a forked child starts with none, and leaves its parent's alone.

    >>> from contextlib import closing
    >>> class File:
    ...     def __init__(self, name): self.name = name
    ...     def close(self): print("close", self.name)
    >>> files = HandleCache(2, File)
    >>> for name in "abca":
    ...     with files.use(name) as file: print("read", file.name)
    read a
    read b
    close a
    read c
    close b
    read a
    """

    def __init__(self, capacity: int, open_handle: Callable[[Key], Handle]) -> None:
        self.capacity = max(1, capacity)
        self._open = open_handle
        self._start_empty()
        forks.renew_in_child(self, HandleCache._leave_parents)

    def __len__(self) -> int:
        return len(self._slots)

    @contextmanager
    def use(self, key: Key) -> Iterator[Handle]:
        """The handle of ``key``, open for as long as the block runs."""
        with self._lock:
            slot = self._slots.get(key)
            if slot is None:
                # before it is opened: descriptors may be all but used up
                self._shrink(self.capacity - 1)
                slot = self._slots[key] = _Slot()
            self._slots.move_to_end(key)
            # counted under the lock, so that no other thread closes the file under this one
            slot.users += 1
        try:
            handle = slot.handle
            if handle is None:
                # not under the lock of all: it may take a while, and others go on meanwhile
                with slot.opening:
                    handle = slot.handle
                    if handle is None:
                        handle = slot.handle = self._opened(key)
            yield handle
        finally:
            with self._lock:
                slot.users -= 1
                if slot.is_left and not slot.users and slot.handle is not None:
                    slot.handle.close()
                if slot.handle is None and not slot.users and self._slots.get(key) is slot:
                    # it could not be opened
                    del self._slots[key]
                self._shrink(self.capacity)

    def close(self) -> None:
        """Close every handle; one that is in use is closed by its last user, and given to no other."""
        with self._lock:
            self._shrink(0)
            for slot in self._slots.values():
                slot.is_left = True
            self._slots.clear()

    def give_back(self) -> None:
        """Close the older half of the handles that are not in use, to free descriptors."""
        with self._lock:
            opening = sum(slot.handle is None for slot in self._slots.values())
            self._shrink((len(self._slots) - opening) // 2 + opening)

    _inherited: object = None

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._slots: OrderedDict[Key, _Slot[Handle]] = OrderedDict()

    def _leave_parents(self) -> None:
        # kept alive, so that no finaliser closes the parent's files
        self._inherited = (self._slots, self._inherited)
        self._start_empty()

    def _opened(self, key: Key) -> Handle:
        try:
            return self._open(key)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            # descriptors are used up: close half of ours, and try once more
            self.give_back()
            return self._open(key)

    def _shrink(self, size: int) -> None:
        if len(self._slots) <= size:
            return
        # the cache may hold more than its capacity for as long as more are in use
        idle = [key for key, slot in self._slots.items() if not slot.users]
        for key in idle[: len(self._slots) - size]:
            handle = self._slots.pop(key).handle
            if handle is not None:
                handle.close()


def default_capacity() -> int:
    """A quarter of the files that this process may open, 128 at most."""
    # the rest is for sockets, the loader's pipes and the user
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 128 if soft == resource.RLIM_INFINITY else max(1, min(128, soft // 4))
