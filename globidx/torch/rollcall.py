"""Who is still there when a collective has failed."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any


class RollCall:
    """Every rank that saw it fail writes its name into the store by which the ranks found each other.

    Who does not is dead, stopped, or never came. The store may hang or be gone too, so it is asked in a thread that
    nobody waits for. ``key`` is this failure's own; ``rank`` and ``ranks`` are numbers among all ranks of the job.
    """

    def __init__(self, store: Any, key: str, rank: int, ranks: Sequence[int]) -> None:
        self._store, self._key, self._rank, self._ranks = store, key, rank, ranks

    def missing(self, patience: float) -> list[int] | None:
        """Places in ``ranks`` that do not answer within ``patience`` seconds; None: nor does the store."""
        found: list[list[int]] = []
        asking = threading.Thread(target=lambda: found.extend(self._asked(patience)), daemon=True)
        asking.start()
        asking.join(1.5 * patience)
        return found[0] if found else None

    def _asked(self, patience: float) -> list[list[int]]:
        until = time.monotonic() + patience
        try:
            self._store.set(f"{self._key}/{self._rank}", "here")
            self._store.add(f"{self._key}/present", 1)
            while self._store.add(f"{self._key}/present", 0) < len(self._ranks) and time.monotonic() < until:
                time.sleep(0.01)
            return [[at for at, rank in enumerate(self._ranks) if not self._store.check([f"{self._key}/{rank}"])]]
        except RuntimeError:  # DistError: its host is gone
            return []
