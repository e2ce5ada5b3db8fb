"""When to save: every so many steps, or minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from globidx.core import validate


class SaveSchedule:
    """Whether a save is due, by steps or by time since the last one.

    ``clock`` returns seconds.

    >>> schedule = SaveSchedule(every=100, minutes=None, clock=lambda: 0.0)
    >>> schedule.saved(step=100)
    >>> [step for step in (101, 199, 200, 201) if schedule.is_due_by_steps(step)]
    [200, 201]
    """

    def __init__(
        self, every: int | None, minutes: float | None, clock: Callable[[], float]
    ) -> None:
        self._every = None if every is None else validate.integer(every, "save_every", low=1)
        self._seconds = None if minutes is None else 60 * _positive(minutes)
        self._clock = clock
        self._step = 0
        self._time = clock()

    @property
    def by_epochs(self) -> bool:
        """Whether neither steps nor minutes are asked for: then the end of an epoch is the time."""
        return self._every is None and self._seconds is None

    @property
    def by_time(self) -> bool:
        """Whether minutes count."""
        return self._seconds is not None

    def saved(self, step: int) -> None:
        """Note that ``step`` is saved: steps and minutes count from here."""
        self._step = step
        self._time = self._clock()

    def is_due_by_steps(self, step: int) -> bool:
        """Whether a multiple of ``every`` was reached since the last save; the same on all ranks.

        Multiples rather than steps since the last save: a resumed run saves where one that was
        never stopped does.
        """
        return self._every is not None and step // self._every > self._step // self._every

    def is_due_by_time(self) -> bool:
        """Whether the minutes have passed by this process's clock."""
        return self._seconds is not None and self._clock() - self._time >= self._seconds


def _positive(minutes: Any) -> float:
    if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not minutes > 0:
        raise ValueError(f"save_minutes must be a positive number of minutes, got {minutes!r}")
    return float(minutes)
