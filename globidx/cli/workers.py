"""The processes that look at files for the command, which end when the command ends in any way."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import wait


def pool(workers: int | None) -> ProcessPoolExecutor:
    """Processes that are started when the first of them has anything to do.

    Few files are looked at without any.
    """
    # cores that this process may use: a container or a job has fewer than the machine
    count = workers or min(32, len(os.sched_getaffinity(0)))
    return ProcessPoolExecutor(
        # a forked child would inherit locks that other threads of this process hold
        count,
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=_begin,
    )


def _begin() -> None:
    # Ctrl-C reaches every process of a terminal; the command stops the others, without words of
    # theirs
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_command, name="globidx-orphan-watch", daemon=True).start()


def _end_with_the_command() -> None:
    """End this process at once when the command is gone: a killed command cannot say goodbye.

    The pool's own pipes stay open, since each worker holds both of their ends. PR_SET_PDEATHSIG
    does not either: a worker is the fork server's child, and that one lives for as long as there
    are workers.
    """
    command = multiprocessing.parent_process()
    if command is not None:
        wait([command.sentinel])
        os._exit(1)
