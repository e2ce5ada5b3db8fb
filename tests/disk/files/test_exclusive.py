"""The lock of a few microseconds: one holder, whatever becomes of it."""

import os
import signal
import subprocess
import sys
import threading

import pytest
from processes import clean_environment

from globidx.disk.files.exclusive import Exclusive

_COUNT = """
import sys
from pathlib import Path
from globidx.disk.files.exclusive import Exclusive

folder = Path(sys.argv[1])
lock = Exclusive(folder / "lock")
for _ in range(200):
    with lock.hold(timeout=60) as held:
        assert held
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""
_HOLD = """
import sys, time
from pathlib import Path
from globidx.disk.files.exclusive import Exclusive

with Exclusive(Path(sys.argv[1])).hold(timeout=0) as held:
    print(held, flush=True)
    time.sleep(600)
"""


def started(program, *arguments, **options):
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, text=True, env=clean_environment(), **options)


def test_eight_processes_add_to_a_number_one_at_a_time(tmp_path):
    """What each of them adds is in the sum."""
    (tmp_path / "number").write_text("0")
    processes = [started(_COUNT, tmp_path) for _ in range(8)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 8
    assert (tmp_path / "number").read_text() == "1600"


def test_threads_of_one_process_exclude_one_another(tmp_path):
    """As processes do, with one object for all."""
    lock, inside, most = Exclusive(tmp_path / "lock"), [], []

    def work():
        for _ in range(50):
            with lock.hold(timeout=60) as held:
                assert held
                inside.append(None)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200 and max(most) == 1


def test_it_ends_with_its_holder(tmp_path):
    """One that is killed leaves the lock to others."""
    process = started(_HOLD, tmp_path / "lock", stdout=subprocess.PIPE)
    assert process.stdout.readline() == "True\n"
    lock = Exclusive(tmp_path / "lock")
    with lock.hold(timeout=0) as held:
        assert not held
    process.kill()
    process.wait()
    with lock.hold(timeout=0) as held:
        assert held
    process.stdout.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_under_it_does_not_hold_it(tmp_path):
    """Where the parent dies with the lock, a child that lives on must not keep it."""
    reading, writing = os.pipe()
    parent = os.fork()
    if not parent:
        with Exclusive(tmp_path / "lock").hold(timeout=0):
            child = os.fork()
            if not child:
                signal.pause()
            os.write(writing, str(child).encode())
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(parent, 0)
    child = int(os.read(reading, 16))
    try:
        with Exclusive(tmp_path / "lock").hold(timeout=1) as held:
            assert held
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(reading)
        os.close(writing)
