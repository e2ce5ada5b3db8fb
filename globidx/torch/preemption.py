"""Preemption: a signal to any rank stops all ranks after the same step."""

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
    """Turns a signal to any rank into an answer that all ranks get at the same step.

    So all of them can save and stop.

    From here on ``signals`` no longer end this process: each only sets a flag, and
    ``should_stop()`` returns whether any rank's flag is set. Leaving the ``with`` block, or
    ``close()``, restores the handlers from before. A handler that was set from Python before is
    called as well.

    Parameters
    ----------
    signals : iterable of int, default (SIGTERM, SIGUSR1)
        The signals to handle.
    group : ProcessGroup, optional
        The ranks that agree, by default all ranks of the job.
    timeout : float, default 60.0
        Seconds within which ``should_stop`` returns or raises.

    Attributes
    ----------
    received : signal.Signals or None
        The first signal that this rank received.
    signals : frozenset of signal.Signals
        The signals that it handles.

    Raises
    ------
    ValueError
        Outside of the main thread, where Python sets no handlers, or for a signal that cannot be
        handled.

    Warns
    -----
    UserWarning
        If loader workers are older than the guard, so that its signals would end them.

    Notes
    -----
    Workers of a ``globidx.DataLoader`` that start under a guard survive its signals, which go to
    all processes of a job (Ctrl-C, ``timeout``, ``scancel``); they end with the loop, or seconds
    after the main process. So make the guard before the loop over the loader begins. Workers of
    other loaders are killed by the signal, unless their ``worker_init_fn`` handles it.

    Examples
    --------
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
        if threading.current_thread() is not threading.main_thread():
            raise ValueError(
                "PreemptionGuard must be made in the main thread: Python sets signal handlers "
                "nowhere else"
            )
        chosen = _chosen(signals)
        before = {number: signal.getsignal(number) for number in chosen}
        # getsignal returns None for it, and signal() takes no None
        foreign = [number.name for number, handler in before.items() if handler is None]
        if foreign:
            raise ValueError(
                f"{', '.join(foreign)} has a handler that was not set from Python, which could "
                "not be restored; leave it out of signals="
            )
        self._ranks = Agreement(group, float(timeout), purpose="stop")
        self._process = os.getpid()
        self._stopping = self._closed = False
        self.received: signal.Signals | None = None
        self.signals = frozenset(chosen)
        self._before: dict[signal.Signals, Any] = {}
        for number in chosen:
            try:
                self._before[number] = signal.signal(number, self._handle)
            except OSError as error:
                self.close()
                raise ValueError(
                    f"no process can handle {number.name}; leave it out of signals="
                ) from error
        unshielded = guard_with(self)
        if unshielded:
            warnings.warn(
                f"{unshielded} loader workers are older than this PreemptionGuard, so its "
                "signals, sent to all processes of the job, would end them, and the loop with "
                "them; make the guard before the loop over the loader begins",
                stacklevel=2,
            )

    def should_stop(self) -> bool:
        """Whether any rank has received a signal. Collective: every rank calls it at each step.

        It costs one all_reduce of an integer on the CPU; nothing if there is one rank, or once it
        was True.

        Returns
        -------
        bool
            The same on every rank.

        Raises
        ------
        globidx.errors.LostRankError
            If a rank did not come within the timeout; ``ranks`` names it.

        Examples
        --------
        >>> with PreemptionGuard() as guard:
        ...     guard.should_stop()
        False
        """
        if not self._stopping:
            with self._ranks.turn("should_stop"):
                # one all_reduce and no more: this is called at each training step
                self._stopping = self._ranks.any(self.received is not None)
                if self._stopping:
                    # the process may exit after this, which gloo must have released its tensors for
                    self._ranks.barrier()
        return self._stopping

    def close(self) -> None:
        """Restore the handlers from before.

        Those that a guard within this one has set stay.

        Examples
        --------
        >>> guard = PreemptionGuard()
        >>> guard.close()
        """
        self._closed = True
        unguard(self)
        for number, handler in self._before.items():
            # handlers that were set since are somebody else's
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def __repr__(self) -> str:
        names = ", ".join(sorted(number.name for number in self.signals))
        now = (
            "closed"
            if self._closed
            else f"received {self.received.name}"
            if self.received
            else "nothing received"
        )
        return f"PreemptionGuard({names}: {now})"

    def __enter__(self) -> PreemptionGuard:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        before = self._before.get(signal.Signals(number), signal.SIG_DFL)
        # a fork inherits handlers; a worker that only sets a flag could not be terminated
        if os.getpid() != self._process:
            return self._in_child(number)
        # this handler was restored by a guard that was closed after this one
        if self._closed and signal.getsignal(number) == self._handle:
            self.close()
            return os.kill(self._process, number)
        if self._closed:
            pass
        elif self.received is None:
            self.received = signal.Signals(number)
        # a second Ctrl-C ends the process at once
        elif before is signal.default_int_handler:
            before(number, frame)
        if callable(before) and before is not signal.default_int_handler:
            before(number, frame)
        return None

    @staticmethod
    def _in_child(number: int) -> None:
        """End a forked process, which has inherited this handler, if the signal asks for that.

        A loader's worker must survive SIGUSR1 to the whole job, and ``Process.terminate`` must
        work.
        """
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)


def _chosen(signals: Iterable[int]) -> list[signal.Signals]:
    """``signals`` as members of ``signal.Signals``; TypeError or ValueError for anything else."""
    try:
        return [signal.Signals(number) for number in signals]
    except (TypeError, ValueError) as error:
        raise type(error)(
            "signals must be a sequence of signal numbers of this system, such as (signal.SIGTERM, "
            f"signal.SIGUSR1), got {signals!r:.80}: {error}"
        ) from error
