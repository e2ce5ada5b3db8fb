"""Preemption: real signals to real processes."""

import os
import signal
import threading

import pytest
from files import run_python
from processes import run_ranks

from globidx import PreemptionGuard, errors


@pytest.fixture
def handlers():
    """A way to set handlers that are put back afterwards."""
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
    }
    yield signal.signal
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_sets_a_flag_and_nothing_else(number):
    """The process lives, the first signal is remembered, and the handlers of before are back after the block."""
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)]
    with PreemptionGuard() as guard:
        assert not guard.should_stop()
        os.kill(os.getpid(), number)
        os.kill(os.getpid(), signal.SIGTERM)
        assert guard.received == number
        assert guard.should_stop()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_only_the_signals_asked_for_are_taken():
    """Others still do what they did."""
    before = signal.getsignal(signal.SIGTERM)
    with PreemptionGuard(signals=[signal.SIGUSR2]):
        assert signal.getsignal(signal.SIGTERM) == before


def test_a_handler_of_before_is_called_too(handlers):
    """Ours comes first; ignoring and the default are no handlers; one that was set inside the block stays."""
    heard = []
    handlers(signal.SIGUSR1, lambda number, frame: heard.append((number, guard.received)))
    handlers(signal.SIGTERM, signal.SIG_IGN)
    with PreemptionGuard() as guard:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        handlers(signal.SIGTERM, later := lambda *_: None)
    assert heard == [(signal.SIGUSR1, signal.SIGUSR1)]
    assert signal.getsignal(signal.SIGTERM) is later


def test_guards_nest(handlers):
    """The outer one hears what the inner one took, and gets its signals back."""
    with PreemptionGuard() as outer:
        with PreemptionGuard() as inner:
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert inner.received == outer.received == signal.SIGTERM


def test_guards_that_close_in_any_sequence_leave_the_handler_of_before(handlers):
    """The outer one first: the inner still works, and behind it the signal means what it meant."""
    told = []
    handlers(signal.SIGUSR1, lambda *_: told.append(1))
    outer, inner = PreemptionGuard(), PreemptionGuard()
    outer.close()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (inner.received, outer.received, told) == (signal.SIGUSR1, None, [1])
    inner.close()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert told == [1, 1]
    assert signal.getsignal(signal.SIGUSR1) not in (outer._handle, inner._handle)


def test_a_second_interrupt_interrupts(handlers):
    """Ctrl-C once asks to stop, twice insists."""
    handlers(signal.SIGINT, signal.default_int_handler)
    with PreemptionGuard([signal.SIGINT]) as guard:
        os.kill(os.getpid(), signal.SIGINT)
        assert guard.should_stop()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_other_threads_are_refused():
    """By a sentence that says where."""
    said = []

    def make():
        try:
            PreemptionGuard()
        except ValueError as error:
            said.append(str(error))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    assert "must be made in the main thread" in said[0]


@pytest.mark.parametrize(
    "bad", [{"signals": [signal.SIGUSR1, signal.SIGKILL]}, {"signals": [999]}, {"timeout": 0}]
)
def test_what_cannot_be_is_refused_and_changes_nothing(bad):
    """No handler is left behind."""
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(ValueError):  # noqa: PT011 - each argument has a reason of its own
        PreemptionGuard(**bad)
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_forked_child_ends_when_asked_and_survives_a_notice():
    """SIGUSR1 to all processes of a job must not kill loader workers; Process.terminate() must."""
    said = run_python(
        """
import os, signal, sys
from globidx import PreemptionGuard
with PreemptionGuard() as guard:
    heard, ready = os.pipe()
    child = os.fork()
    if not child:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.write(ready, b"alive")
        os.kill(os.getpid(), signal.SIGTERM)
        os._exit(7)
    print(os.read(heard, 5).decode(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), guard.received)
"""
    ).stdout
    assert said.split() == ["alive", str(-signal.SIGTERM), "None"]


def stop_together(rank, world_size):
    """Rank 1 is told at its step 5; every rank says at which step it stopped, and what it was told itself."""
    with PreemptionGuard(timeout=60) as guard:
        for step in range(100):
            if (rank, step) == (1, 5):
                os.kill(os.getpid(), signal.SIGUSR1)
            if guard.should_stop():
                break
        again = guard.should_stop() if rank == 0 else None  # no collective any more
    return step, again, guard.received is not None


@pytest.mark.slow
def test_every_rank_stops_at_the_same_step():
    """Though only one was told."""
    assert run_ranks(3, stop_together) == [(5, True, False), (5, None, True), (5, None, False)]


def one_leaves(rank, world_size):
    """Rank 1 ends without a word."""
    with PreemptionGuard(timeout=60) as guard:
        guard.should_stop()
        if rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            guard.should_stop()
        except errors.LostRankError as error:
            return error.ranks, str(error)


@pytest.mark.slow
def test_a_rank_that_is_gone_is_named():
    """Instead of a wait without end."""
    [(ranks, said)] = run_ranks(2, one_leaves, lost=[1])
    assert ranks == (1,)
    assert said.startswith("should_stop: not all ranks answered")
