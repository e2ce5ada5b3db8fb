"""The running pass of a sampler: its iterators, the loop that counts deliveries, and the batch that this loop holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from weakref import WeakSet, ref

from globidx.torch.loops.callers import Caller
from globidx.torch.loops.iterator import Cursor


class Loop(Protocol):
    """A loop over a loader that counts what it delivers."""

    def end(self) -> None:
        """Learn that the pass is over: everything of it was delivered and committed."""


class Handed(NamedTuple):
    """The batch that a loop was handed last, until it is settled.

    ``ids`` of which ``replaced`` are those that others stand for. ``is_last``: nothing of the pass comes behind it.
    """

    ids: Sequence[int]
    replaced: Sequence[int]
    is_last: bool
    caller: Caller


class Passes:
    """Iterators and loops of one pass. ``generation`` numbers the passes: who remembers another one is stale."""

    _cursors: WeakSet[Cursor]
    _last: Cursor | None  # the one last drawn from
    _loop: Callable[[], Loop | None]
    _second: Callable[[], Cursor | None]  # one that began while the last was at its end and not committed
    _dropped_at: int  # the furthest that an iterator of this pass had come when it was dropped
    handed: Handed | None
    told: bool  # whether anybody reports deliveries
    dealt_to: int | None  # the world size at which ids were last drawn
    drained: bool  # whether an iterator was asked for more than it had
    read_by_loader: bool  # whether a loader asked for ids
    copy_is_read: bool  # whether a loop over a copy of this sampler delivers, of which this one learns nothing

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held around every change: a thread may save while the loop goes on in another
        self.generation = 0
        self.ever_read = False
        self._forget()

    # -- iterators

    def add(self, cursor: Cursor) -> None:
        """An iterator was pointed at this pass."""
        cursor.generation = self.generation
        self._cursors.add(cursor)

    def knows(self, cursor: Cursor) -> bool:
        """Whether an iterator is of this pass."""
        return cursor in self._cursors

    def drawn(self, cursor: Cursor, world_size: int) -> None:
        """Ids are taken from an iterator, as they are dealt to so many ranks."""
        self._last, self.dealt_to, self.ever_read = cursor, world_size, True

    def ended(self, cursor: Cursor) -> None:
        """An iterator was asked for more than it has."""
        if cursor.generation == self.generation:
            self.drained = True

    def dropped(self, cursor: Cursor) -> None:
        """An iterator is gone."""
        if cursor.generation == self.generation:
            self._dropped_at = max(self._dropped_at, cursor.issued)

    @property
    def issued(self) -> int:
        """How many ids of this rank's stream were drawn in this pass, by the iterator that has come furthest."""
        return max([self._dropped_at, *(cursor.issued for cursor in self._cursors)])

    def move(self, why: str) -> None:
        """The pass is over, or another begins: who still holds an iterator of it learns so."""
        self.generation += 1
        for cursor in list(self._cursors):
            cursor.invalidate(why)
        self._forget()

    def end(self, why: str) -> None:
        """The pass is over because all of it was delivered: its loop just ends."""
        loop = self._loop()
        if loop is not None:
            loop.end()
        self.move(why)

    # -- the loop that counts

    def count_by(self, loop: Loop) -> None:
        """Let ``loop`` count from here on, instead of any before it; held weakly, so that a loop left holds nothing."""
        self._loop, self.handed = ref(loop), None
        self.told = self.read_by_loader = True

    def counted_by(self, loop: Loop) -> bool:
        """Whether ``loop`` is the one that counts."""
        return self._loop() is loop

    def hand_out(self, loop: Loop, handed: Handed) -> None:
        """``loop`` is given a batch."""
        if self.counted_by(loop):
            self.handed = handed

    @property
    def is_looped_over(self) -> bool:
        """Whether a loop that counts is under way, as far as can be seen."""
        return self._loop() is not None and (self.handed is None or not self.handed.caller.has_left())

    @property
    def held(self) -> Handed | None:
        """The batch that counts if one looks now: the loop is at work on it, or it was the pass's last.

        A loop that an exception has left has not trained on its batch, not on the last one either.
        """
        handed = self.handed
        if handed is None or handed.caller.is_failing():
            return None
        if handed.is_last:
            return handed
        return None if self._loop() is None or handed.caller.has_left() else handed

    @property
    def left(self) -> Handed | None:
        """The batch that was handed to a loop which is over, and that nobody settled: it will be given again."""
        return None if self.held else self.handed

    @property
    def is_drained(self) -> bool:
        """Whether a loader that does not count has read a pass to its end."""
        return self.drained and self.read_by_loader and self._loop is _nobody

    def give_up(self) -> None:
        """Forget the batch of a loop that is gone; one that lives may still come back, and its batch then counts.

        By that alone: that it was the last of its pass, and an error has left it, ends no pass later on.
        """
        if self._loop() is None:
            self.handed = None
        elif self.handed is not None:
            self.handed = self.handed._replace(is_last=False)

    # -- who reports

    @property
    def untouched(self) -> bool:
        """Whether nothing was taken from this pass yet."""
        return self._last is None

    @property
    def untold(self) -> bool:
        """Whether ids were handed out and nobody reports deliveries."""
        return (self._last is not None or self.copy_is_read) and not self.told

    @property
    def only_drawn(self) -> bool:
        """Whether a pass was drawn to its end and nobody reported a delivery."""
        return self._last is not None and not self.told and self._last.exhausted

    def note_second_draw(self, cursor: Cursor, committed: int) -> None:
        """Remember an iterator that begins when the one before it is at its end and its ids are not committed.

        After a break that is right: it draws all that is left at once, as its loader's workers did before. A loader
        that repeats itself draws a batch of it for each one that it delivers of those before.
        """
        last, by_hand = self._last, self.told and self._loop is _nobody and committed > 0
        if by_hand and cursor.by_loader and last is not None and last.by_loader and last.exhausted:
            self._second = ref(cursor) if last.issued > committed else _nobody

    @property
    def draws_ahead(self) -> bool:
        """Whether such an iterator is drawn from, but not yet to its end."""
        second = self._second()
        return second is not None and second is self._last and not second.exhausted

    def _forget(self) -> None:
        self._cursors, self._last, self._loop = WeakSet(), None, _nobody
        self.handed = self.dealt_to = None
        self.told = self.drained = self.copy_is_read = self.read_by_loader = False
        self._second = _nobody
        self._dropped_at = 0


def _nobody() -> None:
    return None
