"""The running pass of a sampler: its iterators, and the loop that counts deliveries."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from weakref import WeakSet, ref

import numpy as np

from globidx.core.progress.ranges import Ranges
from globidx.torch.loops.callers import Caller
from globidx.torch.loops.iterator import Cursor


class Loop(Protocol):
    """A loop over a loader that counts what it delivers."""

    def end(self) -> None:
        """Learn that the pass is over: everything of it was delivered and committed."""


class HeldBatch(NamedTuple):
    """The batch that a loop was given last, until it is settled.

    ``replaced`` are those of ``ids`` for which the loop got other samples. ``is_last`` means that
    nothing of the pass follows it. ``at`` are the indices of ``ids`` in the rank's stream; None if
    they are the first that are left.
    """

    ids: Sequence[int]
    replaced: Sequence[int]
    is_last: bool
    caller: Caller
    at: Sequence[int] | None = None

    def indices(self, amount: int) -> Ranges | None:
        """``at`` for the first ``amount`` of the ids."""
        return None if self.at is None else Ranges.of_ids(np.array(self.at[:amount], np.int64))


class Passes:
    """Iterators and loops of one pass.

    ``generation`` counts the passes: an iterator of another one is stale.
    """

    _cursors: WeakSet[Cursor]
    # the iterator that was drawn from last
    _last: Cursor | None
    _loop: Callable[[], Loop | None]
    # an iterator that began while the one before it was exhausted but not committed
    _second: Callable[[], Cursor | None]
    # how far the furthest iterator of this pass had come when it was dropped
    _dropped_at: int
    # the batch that was given last and is not settled
    batch: HeldBatch | None
    # whether anybody reports deliveries
    is_reported: bool
    # the world size at which ids were last drawn
    dealt_to: int | None
    # whether an iterator was asked for more ids than it had
    is_exhausted: bool
    # whether a loader asked for ids
    read_by_loader: bool
    # whether a loop over a copy of this sampler runs, whose deliveries are not reported here
    copy_is_read: bool

    def __init__(self) -> None:
        # held around every change: one thread may save while the training loop runs in another
        self.lock = threading.RLock()
        self.generation = 0
        # why the pass before this one is over
        self.moved = ""
        self.ever_read = False
        self._forget()

    # -- iterators

    def add(self, cursor: Cursor) -> None:
        """Count an iterator among those of this pass."""
        cursor.generation = self.generation
        self._cursors.add(cursor)

    def knows(self, cursor: Cursor) -> bool:
        """Whether an iterator is of this pass."""
        return cursor in self._cursors

    def drawn(self, cursor: Cursor, world_size: int) -> None:
        """Note that ids are drawn from an iterator, dealt to ``world_size`` ranks."""
        self._last = cursor
        self.dealt_to = world_size
        self.ever_read = True

    def ended(self, cursor: Cursor) -> None:
        """Note that an iterator was asked for more ids than it has."""
        if cursor.generation == self.generation:
            self.is_exhausted = True

    def dropped(self, cursor: Cursor) -> None:
        """Note that an iterator is gone."""
        if cursor.generation == self.generation:
            self._dropped_at = max(self._dropped_at, cursor.issued)

    @property
    def issued(self) -> int:
        """How many ids were drawn in this pass, by the iterator that has come furthest."""
        # a loader that is gone has drawn ids all the same, which may be committed by hand
        return max([self._dropped_at, *(cursor.issued for cursor in self._cursors)])

    def move(self, why: str) -> None:
        """Begin another pass; iterators of this one raise ``why`` at their next touch."""
        self.generation += 1
        self.moved = why
        # a copy: the set loses members as iterators are collected
        for cursor in list(self._cursors):
            cursor.invalidate(why)
        self._forget()

    def end(self, why: str) -> None:
        """End the pass because all of it was delivered: its loop ends without an error."""
        loop = self._loop()
        if loop is not None:
            loop.end()
        self.move(why)

    # -- the loop that counts

    def count_by(self, loop: Loop) -> None:
        """Let ``loop`` count from here on, in place of any loop before it."""
        # a weak reference, so that an abandoned loop and its batch are freed
        self._loop, self.batch = ref(loop), None
        self.is_reported = self.read_by_loader = True

    def counted_by(self, loop: Loop) -> bool:
        """Whether ``loop`` is the one that counts."""
        return self._loop() is loop

    @property
    def has_loop(self) -> bool:
        """Whether a loop has counted in this pass, alive or not."""
        return self._loop is not _no_reference

    def hand_out(self, loop: Loop, batch: HeldBatch) -> None:
        """Note that ``loop`` is given a batch."""
        if self.counted_by(loop):
            self.batch = batch

    @property
    def is_looped_over(self) -> bool:
        """Whether a loop that counts is running, as far as can be seen."""
        return self._loop() is not None and (self.batch is None or not self.batch.caller.has_left())

    @property
    def held(self) -> HeldBatch | None:
        """The batch that counts now: the loop works on it, or it was the last of the pass.

        A loop that was left by an exception has not trained on its batch, even if that was the
        last.
        """
        batch = self.batch
        if batch is None or batch.caller.is_failing():
            return None
        if batch.is_last:
            return batch
        return None if self._loop() is None or batch.caller.has_left() else batch

    @property
    def abandoned(self) -> HeldBatch | None:
        """The batch of a loop that was left before the batch was settled; it is delivered again."""
        return None if self.held else self.batch

    @property
    def is_drained(self) -> bool:
        """Whether a loader that does not count has read a pass to its end."""
        return self.is_exhausted and self.read_by_loader and not self.has_loop

    def give_up(self) -> None:
        """Forget the batch of a loop that is gone.

        A loop that is alive may still come back, and its batch then counts; but the batch no longer
        ends the pass, even if it was the last one and an error has left it.
        """
        if self._loop() is None:
            self.batch = None
        elif self.batch is not None:
            self.batch = self.batch._replace(is_last=False)

    # -- reports

    @property
    def untouched(self) -> bool:
        """Whether no id was drawn in this pass yet."""
        return self._last is None

    @property
    def lacks_reports(self) -> bool:
        """Whether ids were drawn and nobody reports deliveries."""
        return (self._last is not None or self.copy_is_read) and not self.is_reported

    @property
    def only_drawn(self) -> bool:
        """Whether a pass was drawn to its end and nobody reported a delivery."""
        return self._last is not None and not self.is_reported and self._last.exhausted

    def note_second_draw(self, cursor: Cursor, committed: int) -> None:
        """Remember an iterator that begins while ids of an exhausted one are not committed.

        After a break that is right: the iterator draws all that is left at once, as the workers did
        before. A loader that repeats itself draws one batch of it for each batch that it delivers
        of the iterator before.
        """
        last = self._last
        by_hand = self.is_reported and not self.has_loop and committed > 0
        if by_hand and cursor.by_loader and last is not None and last.by_loader and last.exhausted:
            self._second = ref(cursor) if last.issued > committed else _no_reference

    @property
    def draws_ahead(self) -> bool:
        """Whether such an iterator is drawn from, but not yet to its end."""
        second = self._second()
        return second is not None and second is self._last and not second.exhausted

    def _forget(self) -> None:
        self._cursors = WeakSet()
        self._last = self.batch = None
        self.dealt_to = None
        self._loop = self._second = _no_reference
        self.is_reported = self.is_exhausted = False
        self.read_by_loader = self.copy_is_read = False
        self._dropped_at = 0


def _no_reference() -> None:
    return None
