"""Where the ranks meet: a number in the job's store, which goes up whenever a meeting has failed.

Connections that failed are of no use to anybody, so whoever saw it gives the meeting up, and the next one has the next
number. A rank that was not there, since it was late or had caught an error and left the call out, reads the number when
it comes: it then joins the others instead of waiting for them in a meeting that is over. So no rank counts anything by
itself that another rank could count differently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Meetings:
    """The meetings of some ranks, by the job's ``store``; ``key`` is theirs in it."""

    def __init__(self, store: Any, key: str) -> None:
        self._store, self._key = store, key

    def prefix(self, number: int) -> str:
        """Under which a meeting's own entries are in the store."""
        return f"{self._key}/{number}"

    def newest(self, patience: float) -> tuple[int, str]:
        """Number of the newest meeting, and what the one before it was given up over.

        RuntimeError where the store does not answer within ``patience`` seconds.
        """
        found = asked(self._newest, patience)
        if found is None:
            raise RuntimeError("the store by which the ranks found each other does not answer")
        return found

    def give_up(self, number: int, over: str) -> None:
        """The next meeting is the newest from now on, if ``number`` still is; the first to say over what is heard."""
        self._store.compare_set(f"{self._key}/{number}/over", "", over)
        self._store.compare_set(f"{self._key}/newest", str(number), str(number + 1))

    def _newest(self) -> tuple[int, str]:
        number = int(self._store.compare_set(f"{self._key}/newest", "", "0"))
        if not number:
            return 0, ""
        return number, self._store.get(f"{self._key}/{number - 1}/over").decode()


def asked(work: Callable[[], Answer], patience: float) -> Answer | None:
    """What ``work`` made of the store; None where that takes over ``patience`` seconds, or the store is gone.

    The store's host may hang, so it is asked in a thread that nobody waits for, if the system allows one more.
    """
    answers: list[Answer] = []

    def ask() -> None:
        with suppress(RuntimeError):  # DistError: its host is gone
            answers.append(work())

    asking = threading.Thread(target=ask, daemon=True)
    try:
        asking.start()
    except RuntimeError:
        ask()
    else:
        asking.join(patience)
    return answers[0] if answers else None
