"""What is asked for once more, how often, and after how long."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from globidx.errors import ReadError

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


class PassingError(Exception):
    """What may be gone at the next try: a server that is busy, a connection that broke, half an answer.

    ``after``: seconds that the server asks to be left alone.
    """

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


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
    bounds: Bounds,
    *,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Result:
    """The result of ``ask``, once more after a PassingError; ReadError, about ``what``, when it stays."""
    begun, tried = clock(), 0
    while True:
        try:
            return ask()
        except PassingError as error:
            tried += 1
            wait = max(pause(tried, random.random()), error.after)
            if tried >= bounds.tries or clock() + wait - begun > bounds.patience:
                times = "once" if tried == 1 else f"{tried} times"
                raise ReadError(
                    f"{what()} cannot be had; asked {times} in {clock() - begun:.1f} s: {error}"
                ) from None
            sleep(wait)
