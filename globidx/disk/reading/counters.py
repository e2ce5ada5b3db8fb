"""What reading cost, counted where it is done and reported to the process that asked for it."""

from __future__ import annotations

import operator
import os
import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakValueDictionary

from globidx.disk.files import forks
from globidx.disk.files.living import alive


@dataclass(frozen=True)
class Counters:
    """What has been read since the process began, or since the last reset.

    ``hits``: times that a batch found a chunk decoded. ``decodes``: times that a chunk, as the
    index counts them, was decoded; of a part of samples, each chunk beside one another counts.
    ``bytes_read``: stored bytes that this took; where a library reads, the decoded bytes that were
    asked of it. ``bytes_useful``: decoded bytes that reached a
    sample. ``opens``: files opened. ``decodes_of``: decodes by field.

    >>> Counters(decodes=2, decodes_of={"image": 2}) + Counters(hits=1, decodes=1, decodes_of={"image": 1})
    Counters(hits=1, decodes=3, bytes_read=0, bytes_useful=0, opens=0, decodes_of={'image': 3})
    """

    hits: int = 0
    decodes: int = 0
    bytes_read: int = 0
    bytes_useful: int = 0
    opens: int = 0
    decodes_of: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Counters) -> Counters:
        return self._with(other, operator.add)

    def __sub__(self, other: Counters) -> Counters:
        return self._with(other, operator.sub)

    def _with(self, other: Counters, combine: Callable[[int, int], int]) -> Counters:
        mine, theirs = self.decodes_of, other.decodes_of
        return Counters(
            combine(self.hits, other.hits),
            combine(self.decodes, other.decodes),
            combine(self.bytes_read, other.bytes_read),
            combine(self.bytes_useful, other.bytes_useful),
            combine(self.opens, other.opens),
            {
                name: count
                for name in {**mine, **theirs}
                if (count := combine(mine.get(name, 0), theirs.get(name, 0)))
            },
        )


class Report(NamedTuple):
    """What one process has counted in all, for the tally of that ``name``."""

    name: str
    process: str
    total: Counters


class Tally:
    """A sum of counters that threads add to; a forked child begins at zero.

    A loader's worker has a copy. What copies count reaches the tally in the main process as
    reports, which travel with the batches. ``speaks_for`` names the tally that this one was pickled
    from.

    >>> tally = Tally()
    >>> tally.add(Counters(opens=1)); tally.add(Counters(opens=1))
    >>> tally.take(reset=True).opens, tally.take().opens
    (2, 0)
    """

    # counted here
    _own: Counters
    # counted by other processes, by process: a batch may come with a report, so it is not added yet
    _received: dict[str, Counters]
    # of all, what was reset
    _taken: Counters
    # of our own
    _reported: Counters

    def __init__(self, speaks_for: str | None = None) -> None:
        self._name = secrets.token_hex(8)
        self._speaks_for = speaks_for
        self._made_in = os.getpid()
        self._start()
        _tallies[self._name] = self
        forks.renew_in_child(self, Tally._start)

    @property
    def name(self) -> str:
        """The tally that this one's reports are for.

        A forked copy has the name of what it is a copy of.
        """
        return self._speaks_for if self._speaks_for and os.getpid() == self._made_in else self._name

    def add(self, counters: Counters) -> None:
        """Add to the sum."""
        with self._lock:
            self._own += counters

    def take(self, *, reset: bool = False) -> Counters:
        """The sum, reports included, and nothing left of it where it is to be ``reset``."""
        with self._lock:
            total = sum(self._received.values(), self._own) - self._taken
            if reset:
                self._taken += total
            return total

    def report(self) -> Report | None:
        """All that was counted in this process.

        None where there was nothing since the last report.
        """
        with self._lock:
            if self._own == self._reported:
                return None
            self._reported = self._own
            return Report(self.name, self._process, self._own)

    def receive(self, report: Report) -> None:
        """Take in what another process has counted.

        Those are totals, so one that got lost with its batch is made up for.
        """
        with self._lock:
            self._received[report.process] = report.total

    def _start(self) -> None:
        self._lock, self._process = threading.Lock(), secrets.token_hex(8)
        self._own = self._taken = self._reported = Counters()
        self._received = {}


_tallies: WeakValueDictionary[str, Tally] = WeakValueDictionary()


def reports() -> tuple[Report, ...]:
    """The reports of this process for the one that started it."""
    return tuple(report for tally in alive(_tallies) if (report := tally.report()) is not None)


def receive(reports: Iterable[Report]) -> None:
    """Add the reports of workers to the tallies that still exist."""
    for report in reports:
        tally = _tallies.get(report.name)
        if tally is not None:
            tally.receive(report)
