"""Who reads a sampler: its iterators, the loop that counts deliveries, and whether anybody told of any."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet, ref

from globidx.torch.cursor import Cursor


class Loop(Protocol):
    """A loop over a loader that counts what it delivers."""

    def settle(self) -> None:
        """Commit what the loop holds now."""


class Readers:
    """Iterators and loops of one pass. ``generation`` numbers the passes: who remembers another one is stale."""

    _cursors: WeakSet[Cursor]
    _last: Cursor | None  # the one last drawn from
    _loop: Callable[[], Loop | None]
    told: bool  # whether anybody tells of deliveries
    dealt_to: int | None  # the world size at which ids were last drawn

    def __init__(self) -> None:
        self.lock = threading.RLock()  # state may be asked for in one thread while the loop goes on in another
        self.generation = 0
        self._forget()

    def add(self, cursor: Cursor) -> None:
        """An iterator was made."""
        self._cursors.add(cursor)

    def knows(self, cursor: Cursor) -> bool:
        """Whether an iterator is of this pass."""
        return cursor in self._cursors

    def drawn(self, cursor: Cursor, world_size: int) -> None:
        """Ids are taken from an iterator, as they are dealt to so many ranks."""
        self._last, self.dealt_to = cursor, world_size

    def move(self, why: str) -> None:
        """The pass is over, or another begins: who still holds an iterator of it learns so."""
        self.generation += 1
        for cursor in list(self._cursors):
            cursor.invalidate(why)
        self._forget()

    def count_by(self, loop: Loop) -> None:
        """Let ``loop`` count from here on, instead of any before it; held weakly, so that a loop left holds nothing."""
        self._loop = ref(loop)
        self.told = True

    def counted_by(self, loop: Loop | None) -> bool:
        """Whether ``loop`` is the one that counts; None: whether nobody does."""
        return self._loop() is loop

    def settle(self) -> None:
        """Commit what the counting loop holds, if there is one."""
        loop = self._loop()
        if loop is not None:
            loop.settle()

    @property
    def untouched(self) -> bool:
        """Whether nothing was taken from this pass yet."""
        return self._last is None

    @property
    def untold(self) -> bool:
        """Whether ids were handed out and nobody tells of deliveries."""
        return self._last is not None and not self.told

    @property
    def only_drawn(self) -> bool:
        """Whether a pass was drawn to its end without a word of delivery."""
        return self.untold and self._last is not None and self._last.exhausted

    def _forget(self) -> None:
        self._cursors, self._last, self._loop = WeakSet(), None, _nobody
        self.told = False
        self.dealt_to = None


def _nobody() -> None:
    return None
