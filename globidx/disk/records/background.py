"""A write in the background: one at a time; its failure is raised later."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from globidx.errors import SaveError

_log = logging.getLogger("globidx")


class Background:
    """Does one thing at a time in a thread; ``settle`` before the next.

    The thread is no daemon: a process that exits waits for it, and what fails then is in the log.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._what = ""
        self._failure: Exception | None = None

    def start(self, what: str, work: Callable[[], None]) -> None:
        """Begin ``work``; ``what`` names it in errors.

        If the system allows no more threads, ``work`` is called here, and its errors are raised at
        once.
        """
        self._what = what
        thread = threading.Thread(target=self._run, args=(what, work), name=f"globidx {what}")
        try:
            thread.start()
        except RuntimeError as error:
            _log.warning(
                "%s, saved with blocking=False, is written in the foreground: %s", what, error
            )
            work()
        else:
            self._thread = thread

    def settle(self, patience: float) -> None:
        """Wait for the work under way.

        SaveError, once, if it failed, or takes more than ``patience`` seconds.
        """
        if self._thread is None:
            return
        # not for ever: the other ranks wait for what this one has to say
        self._thread.join(patience)
        if self._thread.is_alive():
            raise SaveError(
                f"{self._what}, saved with blocking=False, is still being written: not written so "
                "far"
            )
        self._thread = None
        failure, self._failure = self._failure, None
        if failure is not None:
            late = SaveError(
                f"{self._what}, saved with blocking=False before, has failed: {failure}"
            )
            # whether the record may be there is what a caller must know
            late.state = getattr(failure, "state", late.state)
            raise late from failure

    def _run(self, what: str, work: Callable[[], None]) -> None:
        try:
            work()
        # settle raises it
        except Exception as error:  # noqa: BLE001
            self._failure = error
            _log.error("%s, saved with blocking=False, has failed: %s", what, error)
