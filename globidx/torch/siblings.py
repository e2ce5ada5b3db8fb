"""Several groups of one job that do the same: one does it, and the others take over what came of it."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any, ClassVar

_KEPT = 64  # outcomes of so many turns stay in the store, for groups that are behind


class Siblings:
    """The groups that give an Agreement the same ``name``, such as one for each tensor-parallel place.

    The first of them to come is the one that acts, for good: one writer, whoever that is, also where only some of a
    job's groups take part. They meet in the job's ``store``. Turns are counted, so all groups must take them alike.
    """

    _made: ClassVar[Counter[str]] = Counter()  # how many of a name this process has made: the same in every group

    def __init__(self, store: Any, name: str, rank: int) -> None:
        self._made[name] += 1
        self._store, self._key = store, f"globidx/{self._made[name]}/{name}"
        self._turn = 0
        self.acts = bool(store.compare_set(f"{self._key}/acting", "", str(rank)) == str(rank).encode())

    def begin(self) -> None:
        """Another turn begins."""
        self._turn += 1

    def tell(self, outcome: bytes) -> None:
        """The acting group's: what came of this turn."""
        self._store.set(f"{self._key}/{self._turn}", outcome)
        self._store.delete_key(f"{self._key}/{self._turn - _KEPT}")

    def hear(self, patience: float) -> bytes:
        """The others': what came of this turn in the acting group; RuntimeError if that is not told in time."""
        key = f"{self._key}/{self._turn}"
        self._store.wait([key], timedelta(seconds=patience))
        outcome: bytes = self._store.get(key)
        return outcome
