"""Several groups of one job that do the same: one does it, and the others take over what came of it."""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from typing import Any, ClassVar

_KEPT = 64  # outcomes of so many turns stay in the store, for groups that are behind
_REMEMBERED = 1024  # turns of so many names are counted


class Siblings:
    """The groups that give an Agreement the same ``name``, such as one for each tensor-parallel place.

    The first of them to come is the one that acts, for good: one writer, whoever that is, also where only some of a
    job's groups take part. They meet in the job's ``store``. A turn is named by what is done in it (the step that is
    saved, say), so that a group which has left one out is not behind in those that follow.
    """

    _turns: ClassVar[dict[str, int]] = {}  # how often this process has done a thing under a name

    def __init__(self, store: Any, name: str, rank: int) -> None:
        self._store, self._key = store, f"globidx/siblings/{name}"
        self._turn = ""
        self._told: deque[str] = deque()
        self.acts = bool(store.compare_set(f"{self._key}/acting", "", str(rank)) == str(rank).encode())

    def begin(self, over: str) -> None:
        """Another turn begins, over this."""
        turn = f"{self._key}/{over}"
        self._turns[turn] = nth = self._turns.pop(turn, 0) + 1
        self._turn = f"{turn}/{nth}"
        if len(self._turns) > _REMEMBERED:
            del self._turns[next(iter(self._turns))]

    def tell(self, outcome: bytes) -> None:
        """The acting group's: what came of this turn."""
        self._store.set(self._turn, outcome)
        self._told.append(self._turn)
        if len(self._told) > _KEPT:
            self._store.delete_key(self._told.popleft())

    def hear(self, patience: float) -> bytes:
        """The others': what came of this turn in the acting group; RuntimeError if that is not told in time."""
        self._store.wait([self._turn], timedelta(seconds=patience))
        outcome: bytes = self._store.get(self._turn)
        return outcome
