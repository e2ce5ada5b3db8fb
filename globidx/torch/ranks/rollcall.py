"""Which ranks still answer when a collective has failed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any


class RollCall:
    """Every rank that saw the failure sets a key in the store by which the ranks found each other.

    A rank that does not is dead, stopped, or never came. ``key`` is this failure's own; ``rank``
    and ``ranks`` count among all ranks of the job.
    """

    def __init__(self, store: Any, key: str, rank: int, ranks: Sequence[int]) -> None:
        self._store, self._key = store, key
        self._rank, self._ranks = rank, ranks

    def missing(self, patience: float) -> list[int]:
        """Indices in ``ranks`` that do not answer within ``patience`` seconds.

        RuntimeError if the store is gone.
        """
        deadline = time.monotonic() + patience
        self._store.set(f"{self._key}/{self._rank}", "here")
        self._store.add(f"{self._key}/present", 1)
        while (
            self._store.add(f"{self._key}/present", 0) < len(self._ranks)
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        return [
            index
            for index, rank in enumerate(self._ranks)
            if not self._store.check([f"{self._key}/{rank}"])
        ]
