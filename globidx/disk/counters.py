"""What reading cost, counted in the process that reads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from globidx.disk import forks


@dataclass(frozen=True)
class Counters:
    """What a process has read since it began, or since the last reset.

    ``hits``: times that a batch found a chunk decoded. ``decodes``: times that a chunk, as the index counts them, was
    decoded. ``bytes_read``: stored bytes that this took; where a library reads, the decoded bytes that were asked of
    it. ``bytes_useful``: decoded bytes that reached a sample. ``opens``: files opened.

    >>> Counters(decodes=2) + Counters(hits=1, decodes=1)
    Counters(hits=1, decodes=3, bytes_read=0, bytes_useful=0, opens=0)
    """

    hits: int = 0
    decodes: int = 0
    bytes_read: int = 0
    bytes_useful: int = 0
    opens: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.hits + other.hits,
            self.decodes + other.decodes,
            self.bytes_read + other.bytes_read,
            self.bytes_useful + other.bytes_useful,
            self.opens + other.opens,
        )


class Tally:
    """A sum of counters that threads add to; a forked child begins at zero.

    >>> tally = Tally()
    >>> tally.add(Counters(opens=1)); tally.add(Counters(opens=1))
    >>> tally.take(reset=True).opens, tally.take().opens
    (2, 0)
    """

    _sum: Counters

    def __init__(self) -> None:
        self._start()
        forks.renew_in_child(self, Tally._start)

    def add(self, counters: Counters) -> None:
        """Add to the sum."""
        with self._lock:
            self._sum += counters

    def take(self, *, reset: bool = False) -> Counters:
        """The sum, and nothing left of it where it is to be ``reset``."""
        with self._lock:
            found = self._sum
            if reset:
                self._sum = Counters()
            return found

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._sum = Counters()
