"""What passes is tried again, for so long and no longer; time is told by the test."""

import pytest

from globidx.disk.remote.retries import Bounds, PassingError, pause, persistently
from globidx.errors import ReadError


class Clock:
    """Time that passes where somebody sleeps."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def __call__(self):
        return self.now


def failing(times, error=PassingError, after=0.0):
    """A call that fails so often, and the calls it had."""
    calls = []

    def ask():
        calls.append(1)
        if len(calls) <= times:
            raise error("busy", after) if error is PassingError else error("busy")
        return "here"

    return ask, calls


def persist(ask, clock, **bounds):
    return persistently(ask, lambda: "x", lambda: Bounds(**bounds), sleep=clock.sleep, clock=clock)


@pytest.mark.parametrize("times", range(4))
def test_what_passes_is_had_in_the_end(times):
    """As many tries as it takes, each after a longer pause."""
    ask, calls = failing(times)
    clock = Clock()
    assert persist(ask, clock, tries=4) == "here"
    assert len(calls) == times + 1 and len(clock.slept) == times
    assert clock.slept == sorted(clock.slept)


def test_what_stays_is_an_error_after_so_many_tries():
    """It says how often, and why."""
    ask, calls = failing(99)
    with pytest.raises(ReadError, match="x cannot be had; asked 3 times in .* busy"):
        persist(ask, Clock(), tries=3)
    assert len(calls) == 3


def test_no_patience_is_exceeded():
    """The last pause would, and is left out."""
    ask, _ = failing(99)
    clock = Clock()
    with pytest.raises(ReadError):
        persist(ask, clock, tries=99, patience=30.0)
    assert clock.now <= 30


def test_a_server_is_left_alone_as_long_as_it_asks():
    """Retry-After counts where it is longer."""
    ask, _ = failing(1, after=7.0)
    clock = Clock()
    persist(ask, clock)
    assert clock.slept == [7.0]


def test_other_errors_are_raised_at_once():
    """They would be the same at the next try."""
    ask, calls = failing(1, ReadError)
    with pytest.raises(ReadError, match="busy"):
        persist(ask, Clock())
    assert len(calls) == 1


def test_pauses_double_to_a_limit_and_differ():
    """Half of a pause is left to chance."""
    assert [pause(n, 0.0) for n in (1, 2, 3)] == [0.1, 0.2, 0.4]
    assert pause(50, 0.0) == 5.0 and pause(50, 0.999) < 10 and pause(1, 0.9) > pause(1, 0.1)
