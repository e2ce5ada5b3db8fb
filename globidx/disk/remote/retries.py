"""What is asked for once more, how often, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from globidx.disk.remote.objects import OutageError

Result = TypeVar("Result")

#: How many requests are in flight, and how many bytes are fetched before they are wanted.
REQUESTS, PREFETCH_BYTES = 64, 256 * 2**20


class Bounds(NamedTuple):
    """How much is asked for at a time, how often, and for how long.

    ``requests`` are in flight at a time, ``prefetch_bytes`` held that no batch has taken. A request
    is given ``timeout`` seconds, and made ``tries`` times within ``patience`` seconds.
    """

    requests: int = REQUESTS
    prefetch_bytes: int = PREFETCH_BYTES
    tries: int = 7
    timeout: float = 30.0
    patience: float = 180.0

    @property
    def at_first(self) -> Bounds:
        """Those for a server that was never reached: there may be none of that name."""
        return self._replace(
            tries=min(self.tries, 3), patience=min(self.patience, self.timeout + 10)
        )


class PassingError(Exception):
    """What may be gone at the next try: a server that is busy, a connection that broke, half an answer.

    ``after``: seconds that the server asks to be left alone. ``reached``: whether it was the server
    that answered.
    """

    def __init__(self, reason: str, after: float = 0.0, *, reached: bool = True) -> None:
        super().__init__(reason)
        self.after, self.reached = after, reached


class UnfitError(Exception):
    """What makes requests cannot make this one, and something else may; why not, in words."""


def passes(status: int) -> bool:
    """Whether a later try may have another status than this one, which is an error.

    >>> [passes(status) for status in (503, 429, 404, 501)]
    [True, True, False, False]
    """
    # what a server does not do, it will not do later
    return status in (408, 425, 429) or (status >= 500 and status not in (501, 505))


def seconds(retry_after: str) -> float:
    """What the header ``Retry-After`` says, where it does so in seconds.

    >>> seconds("120"), seconds("Wed, 21 Oct 2026 07:28:00 GMT"), seconds("\N{SUPERSCRIPT TWO}")
    (120.0, 0.0, 0.0)
    """
    return float(retry_after) if retry_after.isascii() and retry_after.isdigit() else 0.0


def pause(tried: int, jitter: float) -> float:
    """Seconds to wait after so many tries: twice as long each time, to ten seconds.

    ``jitter`` in [0, 1) spreads the workers that one outage has stopped.
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter ("equal jitter")

    >>> [pause(tried, 0.0) for tried in (1, 2, 3, 9)]
    [0.1, 0.2, 0.4, 5.0]
    """
    longest = float(min(0.1 * 2**tried, 10.0))
    return longest * (1 + jitter) / 2


def persistently(
    ask: Callable[[], Result],
    what: Callable[[], str],
    bounds: Callable[[], Bounds],
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """The result of ``ask``, once more after a PassingError; OutageError, about ``what``, when it stays.

    ``bounds`` are those that hold when it fails.
    """
    begun, tried = clock(), 0
    while True:
        try:
            return ask()
        except PassingError as error:
            tried += 1
            wait = max(pause(tried, random.random()), error.after)
            most = bounds()
            if tried >= most.tries or clock() + wait - begun > most.patience:
                times = "once" if tried == 1 else f"{tried} times"
                raise OutageError(
                    f"{what()} cannot be had; asked {times} in {clock() - begun:.1f} s: {error}"
                ) from None
            sleep(wait)
