"""Loader workers and signals.

A signal that a ``PreemptionGuard`` handles in the main process ends no worker.

A scheduler, ``timeout`` or Ctrl-C sends its signal to every process of a job. torch's workers would
die of it, and the main process, which has received the signal and wants to save, would fail with
"DataLoader worker is killed by signal".
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
    """An object that handles signals in this process."""

    signals: Signals


# the open guards; they are the process's, as signal handlers are
_guards: WeakSet[Guard] = WeakSet()
# the signals that each worker process survives
_shields: WeakKeyDictionary[Any, Signals] = WeakKeyDictionary()


class ShieldedLoader(torch.utils.data.DataLoader[Any]):
    """A torch loader whose workers survive the signals that a guard handles.

    Those are the guard's when they start, by any start method.
    """

    def _get_iterator(self) -> Any:
        guarded = guarded_signals()
        if not self.num_workers or not guarded:
            return _with_noted_workers(super()._get_iterator(), guarded)
        own = self.worker_init_fn
        # torch reads the attribute here only; whoever reads it later must get the user's own
        self.worker_init_fn = Shield(own, guarded)
        try:
            with _held_back(guarded, self.multiprocessing_context or multiprocessing):
                return _with_noted_workers(super()._get_iterator(), guarded)
        finally:
            self.worker_init_fn = own


class Shield:
    """A ``worker_init_fn`` that makes a worker survive ``signals``, and then calls the user's own.

    The worker starts with the signals blocked, so there is no moment at which they could end it.
    From here on all are ignored except a SIGTERM of the main process, by which
    ``Process.terminate`` ends a worker: a thread waits for it. So SIGTERM stays blocked, also in
    programs that the worker starts.
    """

    def __init__(
        self, own: Callable[[int], None] | None, signals: Iterable[signal.Signals]
    ) -> None:
        self._own, self._signals = own, frozenset(signals)

    def __call__(self, worker_id: int) -> None:
        """Called by torch in the worker, in its main thread."""
        main = multiprocessing.parent_process()
        for number in self._signals - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
        if signal.SIGTERM in self._signals and main is not None:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            # sigwaitinfo tells the sender, which neither a handler of Python's nor an ignored
            # signal does
            threading.Thread(target=_end_when_terminated_by, args=(main.pid,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals - {signal.SIGTERM})
        if self._own is not None:
            self._own(worker_id)


def guard_with(guard: Guard) -> int:
    """Let workers that start from here on survive the guard's signals.

    Returns how many older ones would not.
    """
    _guards.add(guard)
    # of the living only: a worker of an earlier epoch needs no shield
    children = multiprocessing.active_children()
    return sum(
        not guard.signals <= survived for worker, survived in _shields.items() if worker in children
    )


def unguard(guard: Guard) -> None:
    """Forget a guard that was closed."""
    _guards.discard(guard)


def guarded_signals() -> Signals:
    """The signals that any open guard of this process handles."""
    return frozenset().union(*(guard.signals for guard in _guards))


def _with_noted_workers(batches: Any, survived: Signals) -> Any:
    for worker in getattr(batches, "_workers", ()):
        _shields[worker] = survived
    return batches


@contextmanager
def _held_back(signals: Signals, context: Any) -> Iterator[None]:
    """Block signals while processes start, which inherit that.

    Signals that come meanwhile are handled afterwards.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        # the resource tracker is started with the first spawned process
        if context.get_start_method() != "fork":
            # its start unblocks some signals
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_when_terminated_by(process: int | None) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    # as torch's own handler does
    os._exit(0)
