"""Where the ranks meet: a counter in the job's store.

It is increased whenever a meeting has failed.

Connections that failed are useless, so a rank that sees a failure gives the meeting up, and the
next meeting has the next number. A rank that was not there, because it was late or had caught an
error and left the call out, reads the number when it comes: it then joins the others instead of
waiting for them in a meeting that is over. So no rank counts anything by itself that another rank
could count differently.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

Answer = TypeVar("Answer")


class Meetings:
    """The meetings of some ranks in the job's ``store``, under ``key``."""

    def __init__(self, store: Any, key: str) -> None:
        self._store, self._key = store, key

    def prefix(self, meeting: int) -> str:
        """The prefix of a meeting's own keys in the store."""
        return f"{self._key}/{meeting}"

    def newest(self, patience: float) -> tuple[int, str]:
        """The newest meeting, and the call over which the one before it was given up.

        RuntimeError if the store does not answer within ``patience`` seconds.
        """
        answer = answer_of(self._newest, patience)
        if answer is None:
            raise RuntimeError("the store by which the ranks found each other does not answer")
        return answer

    def give_up(self, meeting: int, subject: str) -> None:
        """Begin the next meeting, unless that has begun.

        The first rank to do so records the call that failed.
        """
        # first who gave up and over what: who reads the new number then finds this there
        self._store.compare_set(f"{self._key}/{meeting}/over", "", subject)
        self._store.compare_set(f"{self._key}/newest", str(meeting), str(meeting + 1))

    def _newest(self) -> tuple[int, str]:
        # a key that is not there is made, in one step; `get` would wait for it
        meeting = int(self._store.compare_set(f"{self._key}/newest", "", "0"))
        if not meeting:
            return 0, ""
        return meeting, self._store.get(f"{self._key}/{meeting - 1}/over").decode()


def answer_of(work: Callable[[], Answer], patience: float) -> Answer | None:
    """The result of ``work()``, which asks the store.

    None if that takes over ``patience`` seconds, or the store is gone.

    The store's host may hang, so a thread asks that nobody waits for, if the system allows one
    more.
    """
    answers: list[Answer] = []

    def ask() -> None:
        # DistError: its host is gone
        with suppress(RuntimeError):
            answers.append(work())

    # a daemon: a thread that hangs in the store must not keep the process from ending
    asking = threading.Thread(target=ask, daemon=True)
    try:
        asking.start()
    except RuntimeError:
        ask()
    else:
        asking.join(patience)
    return answers[0] if answers else None
