"""Threads: no more than allowed, ended with their owner and with the process, begun anew in a fork."""

import gc
import os
import subprocess
import sys
import threading

import pytest
from processes import clean_environment

from globidx.disk.remote.hands import Hands, alone
from globidx.errors import ReadError

# Python 3.12 and later
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


def hands_now():
    return [thread for thread in threading.enumerate() if thread.name == "globidx-remote"]


def test_so_many_work_at_a_time_and_no_more():
    """All four meet at a barrier, which a fifth would break; results come in sequence."""
    hands, barrier = Hands(4), threading.Barrier(4)
    busy, most = [0], [0]
    lock = threading.Lock()

    def work(number):
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        barrier.wait(timeout=30)
        with lock:
            busy[0] -= 1
        return number

    assert hands.map(work, range(8)) == list(range(8)) and most == [4]
    hands.close()


def test_the_first_error_is_raised():
    """That of what was given first."""
    with pytest.raises(ZeroDivisionError):
        Hands(2).map(lambda number: 1 / number, [1, 0, 2])


def test_a_thread_that_asks_its_own_hands_does_not_wait_for_itself():
    """One thread, and work inside work."""
    hands = Hands(1)
    assert hands.map(lambda n: sum(hands.map(abs, [-n, -n])), [1, 2]) == [2, 4]
    hands.close()


def test_a_thread_that_is_to_be_alone_does_all_by_itself():
    """It holds a lock that the only hand waits for."""
    hands, lock, begun = Hands(1), threading.Lock(), threading.Event()

    class Waits:
        def make(self):
            begun.set()
            with lock:
                pass

        def drop(self):
            pass

    with lock:
        hands.put(Waits())
        assert begun.wait(30)
        with alone():
            with alone():
                pass
            assert (
                hands.map(lambda _: threading.get_ident(), range(3)) == [threading.get_ident()] * 3
            )
    assert threading.get_ident() not in hands.map(lambda _: threading.get_ident(), range(3))
    hands.close()


def test_work_that_was_not_begun_is_dropped_at_a_close_and_told():
    """Whoever waits for it is not left waiting."""
    hands, begun, go_on = Hands(1), threading.Event(), threading.Event()

    def work(number):
        begun.set()
        assert go_on.wait(timeout=30)
        return number

    errors = []

    def reader():
        try:
            hands.map(work, [1, 2])
        except ReadError as error:
            errors.append(error)

    thread = threading.Thread(target=reader)
    thread.start()
    assert begun.wait(timeout=30)
    hands.close()
    go_on.set()
    thread.join(timeout=30)
    assert len(errors) == 1
    assert hands.map(abs, [-1, -2]) == [1, 2]
    hands.close()


def test_threads_end_with_their_hands():
    """Nobody has to close them."""
    before = set(hands_now())
    hands = Hands(3)
    hands.map(abs, range(9))
    mine = set(hands_now()) - before
    assert mine
    del hands
    gc.collect()
    for thread in mine:
        thread.join(timeout=30)
        assert not thread.is_alive()


def test_a_process_ends_though_work_is_left():
    """Jobs that wait are dropped when the main thread ends; those that run are let run."""
    program = """
import threading
from globidx.disk.remote.hands import Hands
hands, begun, left = Hands(2), threading.Event(), threading.Event()
class Job:
    def make(self):
        begun.set()
        left.wait(30)
        print("made", flush=True)
    def drop(self):
        left.set()
        print("dropped", flush=True)
for _ in range(5): hands.put(Job())
begun.wait()
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(),
        timeout=60,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    words = done.stdout.split()
    assert len(words) == 5 and 3 <= words.count("dropped") <= 4


def test_a_forked_child_has_threads_of_its_own():
    """Those of its parent are not there, and are not waited for."""
    hands = Hands(2)
    assert hands.map(abs, [-1, -2]) == [1, 2]
    child = os.fork()
    if child == 0:
        ok = hands.map(abs, [-3, -4]) == [3, 4]
        hands.close()
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    hands.close()


def test_a_call_that_nobody_waits_for_is_not_made():
    """One that was begun goes on, and what is put after it is made."""
    hands, begun, over, made = Hands(1), threading.Event(), threading.Event(), []

    def wait(_):
        begun.set()
        return over.wait(30)

    first = hands.begin(wait, None)
    assert begun.wait(30)
    second, third = hands.begin(made.append, 2), hands.begin(made.append, 3)
    assert second.cancel() and not first.cancel()
    over.set()
    assert first.result(30) and third.result(30) is None and made == [3]
    hands.close()


def test_what_is_dropped_is_told_to_whoever_waits_for_it():
    """Unless he waits no more."""
    hands, begun, over = Hands(1), threading.Event(), threading.Event()

    def wait(_):
        begun.set()
        over.wait(30)

    first = hands.begin(wait, None)
    assert begun.wait(30)
    second, third = hands.begin(abs, -2), hands.begin(abs, -3)
    third.cancel()
    hands.close()
    over.set()
    with pytest.raises(ReadError, match="closed while they were read"):
        second.result(30)
    assert third.cancelled() and first.result(30) is None
