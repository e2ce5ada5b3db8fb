"""Progress on stderr: a bar where tqdm is installed, else a line every few seconds.

Nothing if stderr is no terminal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from globidx.cli.terminal.output import write

#: Seconds between lines.
_EVERY = 5.0


class Progress:
    """Prints how many files are done, with rate and time left, each time it is called.

    Silent where stderr is no terminal, unless it is ``wanted``. ``clock`` counts seconds.
    """

    def __init__(self, *, wanted: bool | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._shown = sys.stderr is not None and (sys.stderr.isatty() if wanted is None else wanted)
        self._clock = clock
        self._began = self._printed = clock()
        self._bar: Any = None

    def __call__(self, done: int, total: int) -> None:
        """Report that ``done`` of ``total`` files are done."""
        if not self._shown:
            return
        bar = self._bar = self._bar or _bar(total)
        if bar is not None:
            bar.update(done - bar.n)
            if done == total:
                bar.close()
            return
        now = self._clock()
        if now - self._printed >= _EVERY or done == total:
            self._printed = now
            with suppress(OSError):
                write(f"{line(done, total, now - self._began)}\n", sys.stderr)


def line(done: int, total: int, seconds: float) -> str:
    """How far it is, how fast, and how long it will take.

    >>> line(50, 200, 10.0)
    '50 of 200 files (25 %), 5 files/s, 30 s left'
    """
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {(total - done) / rate:.0f} s left" if rate and done < total else ""
    return f"{done} of {total} files ({100 * done // max(1, total)} %), {rate:.3g} files/s{left}"


def _bar(total: int) -> Any:
    """tqdm's bar where stderr is a terminal with room for one, else None."""
    try:
        from tqdm import tqdm

        width = os.get_terminal_size(sys.stderr.fileno()).columns
    except (ImportError, OSError):
        return None
    # a terminal that says no width (a fresh pty has 0 columns) has no room for a bar
    return tqdm(total=total, unit="file", file=sys.stderr) if width else None
