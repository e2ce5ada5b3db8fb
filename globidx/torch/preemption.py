"""Preemption: a signal to any rank stops all ranks behind the same step."""

from __future__ import annotations

import os
import signal
import threading
import warnings
from collections.abc import Iterable
from types import FrameType, TracebackType
from typing import Any

from globidx.torch.ranks.agreement import Agreement
from globidx.torch.workers import guard_with, unguard


class PreemptionGuard:
    """Turns a scheduler's warning into an answer that all ranks give at the same step: time to save and go.

    From here on ``signals`` no longer end this process; each only sets a flag. ``should_stop()`` says whether any
    rank's is set. Leaving the ``with`` block, or ``close()``, puts the handlers of before back. A handler that was set
    from Python before is called as well, when the flag is set.

    Workers of a ``globidx.DataLoader`` that start under a guard survive its signals, which go to all processes of a
    job (Ctrl-C, ``timeout``, ``scancel``); they end with the loop, or seconds after the main process, whatever ended
    it. So open the guard before the loop over the loader begins; a warning says where workers are older. Workers of
    other loaders die of their signal, unless their own ``worker_init_fn`` sees to it.

    ``group`` and ``timeout`` mean what they mean to ``CheckpointManager``: the ranks that agree, over a process group
    of its own, and the seconds after which LostRankError tells of one that did not come. ValueError outside of the main
    thread, where Python sets no handlers.

    >>> with PreemptionGuard() as guard:
    ...     for step in range(5):
    ...         if step == 2:
    ...             os.kill(os.getpid(), signal.SIGUSR1)
    ...         if guard.should_stop():
    ...             break
    >>> step, guard.received.name
    (2, 'SIGUSR1')
    """

    def __init__(
        self,
        signals: Iterable[int] = (signal.SIGTERM, signal.SIGUSR1),
        *,
        group: Any = None,
        timeout: float = 60.0,
    ) -> None:
        if not timeout > 0:
            raise ValueError(f"timeout must be a positive number of seconds, got {timeout!r}")
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "PreemptionGuard must be made in the main thread: Python sets signal handlers nowhere else"
            )
        chosen = _chosen(signals)
        before = {number: signal.getsignal(number) for number in chosen}
        foreign = [number.name for number, handler in before.items() if handler is None]
        if foreign:
            raise ValueError(
                f"{', '.join(foreign)} has a handler that was not set from Python, which could not be put back; leave "
                "it out of signals="
            )
        self._ranks = Agreement(group, float(timeout), purpose="stop")
        self._process = os.getpid()
        self._stopping = self._closed = False
        self.received: signal.Signals | None = None  #: the first signal that this rank received
        self.signals = frozenset(chosen)  #: the signals that it handles
        self._before: dict[signal.Signals, Any] = {}
        for number in chosen:
            try:
                self._before[number] = signal.signal(number, self._handle)
            except OSError as error:
                self.close()
                raise ValueError(f"{number.name} cannot be handled by anybody; leave it out of signals=") from error
        unshielded = guard_with(self)
        if unshielded:
            warnings.warn(
                f"{unshielded} loader workers are older than this PreemptionGuard, so its signals, sent to all "
                "processes of the job, would end them, and the loop with them; open the guard before the loop over "
                "the loader begins",
                stacklevel=2,
            )

    def should_stop(self) -> bool:
        """Whether any rank has received a signal; the same on every rank. Collective: every rank calls it at each step.

        It costs one all_reduce of one number on the CPU; nothing where there is one rank, or once it was True.
        """
        if not self._stopping:
            with self._ranks.turn("should_stop"):
                self._stopping = self._ranks.any(self.received is not None)
                if self._stopping:
                    self._ranks.rest()
        return self._stopping

    def close(self) -> None:
        """Put the handlers of before back, where they are still ours; another guard's within this one's stays."""
        self._closed = True
        unguard(self)
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def __repr__(self) -> str:
        names = ", ".join(sorted(number.name for number in self.signals))
        now = "closed" if self._closed else f"received {self.received.name}" if self.received else "nothing received"
        return f"PreemptionGuard({names}: {now})"

    def __enter__(self) -> PreemptionGuard:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(signal.Signals(number), signal.SIG_DFL)
        if os.getpid() != self._process:
            return self._in_child(number)
        if self._closed and signal.getsignal(number) == self._handle:  # put back by one that was closed after this one
            self.close()
            return os.kill(self._process, number)
        if self._closed:
            pass
        elif self.received is None:
            self.received = signal.Signals(number)
        elif before is signal.default_int_handler:  # Ctrl-C, again: somebody is in a hurry
            before(number, frame)
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)
        return None

    @staticmethod
    def _in_child(number: int) -> None:
        """In a forked process, which has this handler and no loop to stop: a request to end ends it, a notice does not.

        A loader's worker must survive a notice to the whole job, and ``Process.terminate`` must go on to work.
        """
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _chosen(signals: Iterable[int]) -> list[signal.Signals]:
    """The signals of these numbers; TypeError or ValueError for what are none."""
    try:
        return [signal.Signals(number) for number in signals]
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"signals must be signals, such as (signal.SIGTERM, signal.SIGUSR1), got {signals!r}"
        ) from error
