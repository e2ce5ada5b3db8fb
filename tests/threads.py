"""Threads of a test that begin together, and take turns as often as they can."""

import sys
import threading
from contextlib import contextmanager

#: Seconds until a thread that does not end is given up; after half of them, one that did not begin.
_PATIENCE = 60
#: Between two looks whether another thread is to go on, in seconds: as good as after each step.
_TURN = 1e-6


@contextmanager
def hurried():
    """Let threads take turns all the time in the block, where there is a GIL; else they run at once."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(_TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def in_threads(count, work):
    """Run ``work(number)`` in so many threads that begin together, and return what they return.

    What the first of them raised is raised here.
    """
    start, failed, results = threading.Barrier(count), [], [None] * count

    def run(number):
        try:
            start.wait(_PATIENCE / 2)
            results[number] = work(number)
        # raised again where the threads were started
        except BaseException as error:  # noqa: BLE001
            failed.append(error)

    threads = [threading.Thread(target=run, args=(number,), daemon=True) for number in range(count)]
    with hurried():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(_PATIENCE)
            assert not thread.is_alive()
    if failed:
        raise failed[0]
    return results
