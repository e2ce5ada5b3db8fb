"""One line on a terminal that says how far a run is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TextIO

# seconds between two lines: nobody reads faster, and a terminal costs time
_PAUSE = 0.2
_BAR = 20


class StatusLine:
    """Writes one line again and again, and only to a terminal.

    ``clock`` returns seconds. The rate is that of this process: steps since the first one that it
    has seen the end of, so that the start of loader workers does not count.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float]) -> None:
        self._stream = stream
        self._clock = clock
        self._is_on = stream.isatty()
        self._first: tuple[int, float] | None = None
        self._last = float("-inf")
        self._width = 0

    def show(self, epoch: int, epochs: int, step: int, total: int) -> None:
        """Say that ``step`` of ``total`` is done, in ``epoch`` of ``epochs``, counted from 0."""
        if not self._is_on:
            return
        now = self._clock()
        first_step, first_time = self._first = self._first or (step, now)
        # the last step is shown however soon it comes
        if now - self._last < _PAUSE and step < total:
            return
        self._last = now
        rate = (step - first_step) / (now - first_time) if now > first_time else 0.0
        self._write(described(epoch, epochs, step, total, rate))

    def close(self) -> None:
        """End the line, so that what others write begins a new one."""
        if self._width:
            self._stream.write("\n")
            self._stream.flush()
        self._width = 0

    def _write(self, text: str) -> None:
        # blanks over what a longer line has left
        self._stream.write(f"\r{text:{self._width}}")
        self._stream.flush()
        self._width = len(text)


def described(epoch: int, epochs: int, step: int, total: int, rate: float) -> str:
    """The line: ``rate`` is steps a second, 0 where it is not known yet.

    >>> described(2, 10, 1250, 5000, 12.5)
    'epoch 3/10  [#####...............]  step 1250/5000  12.5 steps/s  ETA 0:05:00'
    >>> described(0, 1, 1, 4, 0.0)
    'epoch 1/1  [#####...............]  step 1/4'
    """
    filled = _BAR * step // max(total, 1)
    bar = "#" * filled + "." * (_BAR - filled)
    where = f"epoch {epoch + 1}/{epochs}  [{bar}]  step {step}/{total}"
    if not rate:
        return where
    speed = f"{rate:.1f} steps/s" if rate >= 1 else f"{1 / rate:.1f} s/step"
    return f"{where}  {speed}  ETA {timedelta(seconds=round((total - step) / rate))}"
