"""Loader workers and signals: what a ``PreemptionGuard`` turns into a flag in the main process ends no worker.

A scheduler, ``timeout`` or Ctrl-C sends its signal to every process of a job. torch's workers die of it, and the main
process, which has heard the signal and wants to save, fails with "DataLoader worker is killed by signal".
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any, Protocol
from weakref import WeakKeyDictionary, WeakSet

import torch.utils.data

Signals = frozenset[signal.Signals]


class Guard(Protocol):
    """Somebody who handles signals in this process."""

    signals: Signals


_guards: WeakSet[Guard] = WeakSet()  # those at work in this process: handlers are the process's, too
_shields: WeakKeyDictionary[Any, Signals] = WeakKeyDictionary()  # of each worker process, the signals it survives


class ShieldedLoader(torch.utils.data.DataLoader[Any]):
    """A torch loader whose workers survive the signals that are guarded when they start, by any start method."""

    def _get_iterator(self) -> Any:
        guarded = guarded_signals()
        if not self.num_workers or not guarded:
            return _noted(super()._get_iterator(), guarded)
        own = self.worker_init_fn
        self.worker_init_fn = Shield(own, guarded)  # torch asks here only; whoever else does must find the user's own
        try:
            with _held_back(guarded, self.multiprocessing_context or multiprocessing):
                return _noted(super()._get_iterator(), guarded)
        finally:
            self.worker_init_fn = own


class Shield:
    """A ``worker_init_fn`` that makes a worker survive ``signals``, and then calls the user's own.

    The worker starts with them blocked, so there is no moment at which they could end it. All are ignored from here on
    but a SIGTERM of the main process, which is how ``Process.terminate`` ends a worker: a thread waits for it. So
    SIGTERM stays blocked, also for programs that the worker starts.
    """

    def __init__(self, own: Callable[[int], None] | None, signals: Iterable[signal.Signals]) -> None:
        self._own, self._signals = own, frozenset(signals)

    def __call__(self, worker_id: int) -> None:
        """What torch calls in the worker, in its main thread."""
        main = multiprocessing.parent_process()
        for number in self._signals - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
        if signal.SIGTERM in self._signals and main is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_when_told_by, args=(main.pid,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals - {signal.SIGTERM})
        if self._own is not None:
            self._own(worker_id)


def guard_with(guard: Guard) -> int:
    """Let workers that start from here on survive the guard's signals; how many are there that would not."""
    _guards.add(guard)
    children = multiprocessing.active_children()
    return sum(not guard.signals <= survived for worker, survived in _shields.items() if worker in children)


def unguard(guard: Guard) -> None:
    """The guard is at work no more."""
    _guards.discard(guard)


def guarded_signals() -> Signals:
    """The signals that are guarded in this process now."""
    return frozenset().union(*(guard.signals for guard in _guards))


def _noted(batches: Any, survived: Signals) -> Any:
    for worker in getattr(batches, "_workers", ()):
        _shields[worker] = survived
    return batches


@contextmanager
def _held_back(signals: Signals, context: Any) -> Iterator[None]:
    """Block signals, so that processes start with them blocked; those that come meanwhile are handled afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        if context.get_start_method() != "fork":
            resource_tracker.ensure_running()  # its start unblocks some
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_told_by(process: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)  # as torch's own handler does
