"""What a forked child must not inherit: locks, and what they guard.

A thread of its parent may hold them for ever.

Only the thread that forks lives on in the child. A lock that another one held at that moment stays
held, and what it guards may be half changed. So such objects are made anew in the child before any
of its code runs. A module that another thread was importing can never be imported in the child, so
a fork waits for imports that begin here, and for other blocks under ``held_off``.
"""

from __future__ import annotations

import importlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any, TypeVar

# Before the handlers below are registered: handlers that run before a fork run in reverse, and
# h5py's take its lock. An import that waits for that lock would otherwise keep a fork waiting that
# holds it and waits for the import.
with suppress(ImportError):
    import h5py  # noqa: F401

Owner = TypeVar("Owner")

#: How long forks and blocks under ``held_off`` wait for one another, in seconds: for ever might be a
#: deadlock, over a lock of a module that is imported, say.
_SECONDS = 60.0

_renewals: dict[int, tuple[weakref.ref[Any], Callable[[Any], None]]] = {}


def renew_in_child(owner: Owner, renew: Callable[[Owner], None]) -> None:
    """Call ``renew(owner)`` in every process that is forked from this one while ``owner`` lives.

    ``renew`` must not wait for anything, and belongs to the class, since a bound method would keep
    ``owner`` alive.
    """
    # a strong one would keep every cache of the process alive until it ends
    reference = weakref.ref(owner, _forget)
    _renewals[id(reference)] = reference, renew


def import_module(name: str) -> ModuleType:
    """The module ``name``, imported where it was not, without a fork in the middle of that.

    For what is imported at the first read, when other threads may be reading already.
    """
    with held_off():
        return importlib.import_module(name)


@contextmanager
def held_off() -> Iterator[None]:
    """No other thread of this process forks while the block runs, or only after a minute.

    Such blocks take turns, since a thread may fork in its own; one that has waited for a minute goes
    on, for it may have what the other one waits for.
    """
    lock = _Blocks.lock
    is_locked = lock.acquire(timeout=_SECONDS)
    try:
        yield
    finally:
        if is_locked:
            lock.release()


def _forget(gone: weakref.ref[Any]) -> None:
    _renewals.pop(id(gone), None)


class _Blocks:
    """What blocks under ``held_off`` and forks hold, one at a time."""

    lock = threading.RLock()


def _await_blocks() -> None:
    _Blocks.lock.acquire(timeout=_SECONDS)


def _go_on() -> None:
    # another thread has it, where it could not be taken
    with suppress(RuntimeError):
        _Blocks.lock.release()


def _renew_all() -> None:
    # the one from before is held: it was taken for the fork
    _Blocks.lock = threading.RLock()
    for reference, renew in list(_renewals.values()):
        owner = reference()
        if owner is not None:
            renew(owner)


os.register_at_fork(before=_await_blocks, after_in_parent=_go_on, after_in_child=_renew_all)
