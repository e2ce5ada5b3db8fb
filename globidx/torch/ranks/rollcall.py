"""Who is still there when a collective has failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any


class RollCall:
    """Every rank that saw it fail writes its name into the store by which the ranks found each other.

    Who does not is dead, stopped, or never came. ``key`` is this failure's own; ``rank`` and ``ranks`` are numbers
    among all ranks of the job.
    """

    def __init__(self, store: Any, key: str, rank: int, ranks: Sequence[int]) -> None:
        self._store, self._key, self._rank, self._ranks = store, key, rank, ranks

    def missing(self, patience: float) -> list[int]:
        """Places in ``ranks`` that do not answer within ``patience`` seconds; RuntimeError where the store is gone."""
        until = time.monotonic() + patience
        self._store.set(f"{self._key}/{self._rank}", "here")
        self._store.add(f"{self._key}/present", 1)
        while self._store.add(f"{self._key}/present", 0) < len(self._ranks) and time.monotonic() < until:
            time.sleep(0.01)
        return [at for at, rank in enumerate(self._ranks) if not self._store.check([f"{self._key}/{rank}"])]
