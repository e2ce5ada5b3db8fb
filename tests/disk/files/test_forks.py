"""A child that is forked while other threads read, open or import, reads as if nobody had (P10)."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
from files import run_python, write_hdf5, write_zarr
from forking import Fork

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.cached import cached_property
from globidx.disk.files import forks

FORK_WHILE_READING = """
import os, sys, threading
import torch
from globidx import FileCacheDataset, GlobalIndexManager
int(torch.ones(2, dtype=torch.int64)[0])  # torch sets itself up at its first call, and no fork may come between
dataset = FileCacheDataset(GlobalIndexManager(sys.argv[1]), max_open_files=2, cache_bytes=2000)
stop = threading.Event()
def read(first):
    while not stop.is_set():
        for id in range(first, len(dataset), 7):
            assert int(dataset[id][0]) == id + 1
threads = [threading.Thread(target=read, args=(first,), daemon=True) for first in range(3)]
for thread in threads: thread.start()
exits = []
for number in range(int(sys.argv[2])):
    pid = os.fork()
    if pid == 0:
        os._exit(0 if [int(dataset[id][0]) for id in range(0, len(dataset), 11)] == list(range(1, len(dataset) + 1, 11)) else 3)
    exits.append(pid)
print([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in exits])
stop.set()
for thread in threads: thread.join()
"""


@pytest.mark.parametrize("write", [write_zarr, write_hdf5])
def test_children_forked_while_threads_read_read_too(tmp_path, write):
    """From the first read on, when modules are still being imported: none hangs, none reads anything else."""
    for number in range(6):
        items = np.arange(number * 20 + 1, number * 20 + 21, dtype="i8")[:, None].repeat(4, 1)
        write(tmp_path / f"{number}.{'h5' if write is write_hdf5 else 'zarr'}", items, chunk=4)
    GlobalIndexManager(tmp_path)
    told = run_python(FORK_WHILE_READING, tmp_path, "12", timeout=180, env={"OMP_NUM_THREADS": "1"})
    assert told.stdout == f"{[0] * 12}\n", told.stderr


IMPORT_WHILE_FORKING = """
import os, sys, threading, time
from globidx.disk.files import forks
from h5py._objects import phil
forks._SECONDS = 5
sys.path.insert(0, sys.argv[1])
importing, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # the last one that is registered is the first to run
sys.modules["__main__"].phil_is_free = lambda: phil.acquire(blocking=False) and not phil.release()
threading.Thread(target=forks.import_module, args=("slow",), daemon=True).start()
importing.wait()
pid = os.fork()
if pid == 0:
    os._exit(0 if sys.modules["slow"].done else 3)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""

SLOW = """
import __main__, time
__main__.importing.set()
__main__.forking.wait()
end = time.monotonic() + 1
while __main__.phil_is_free() and time.monotonic() < end:
    time.sleep(0.001)  # until the fork holds h5py's lock, where that comes first
with __main__.phil:
    done = True
"""


def test_a_fork_and_an_import_never_wait_for_each_other(tmp_path):
    """An import may take h5py's lock, as that of our HDF5 modules does: the fork must not hold it when it waits."""
    (tmp_path / "slow.py").write_text(SLOW)
    assert run_python(IMPORT_WHILE_FORKING, tmp_path).stdout == "0\n"


LOCK_FIRST = """
import os, sys, threading, time
lock = threading.RLock()
# such as h5py's: it is taken for a fork after what this package takes
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
from globidx.disk.files import forks
forks._SECONDS = 0.5
inside, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)
def work():
    with lock:
        if sys.argv[1] == "within":
            with forks.held_off():
                inside.set()
                forking.wait()
                is_taken()
            return
        inside.set()
        forking.wait()
        is_taken()
        with forks.held_off():
            pass
def is_taken():
    # until the fork has waited, or has what blocks wait for
    end = time.monotonic() + 2
    while time.monotonic() < end and forks._Blocks.lock.acquire(blocking=False):
        forks._Blocks.lock.release()
        time.sleep(0.001)
threading.Thread(target=work, daemon=True).start()
inside.wait()
pid = os.fork()
if pid == 0:
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.parametrize("when", ["before", "within"])
def test_a_thread_with_a_lock_that_the_fork_waits_for_goes_on(when):
    """After a while, in a block that it begins then, or was in."""
    assert run_python(LOCK_FIRST, when, timeout=30).stdout == "0\n"


def test_a_computed_attribute_has_no_lock():
    """A fork while one thread computes it would leave the lock held, for all instances of the class."""

    class Slow:
        def __init__(self, wait):
            self.wait = wait

        @cached_property
        def value(self):
            started.set()
            self.wait()
            return 1

    started, go_on = threading.Event(), threading.Event()
    thread = threading.Thread(target=lambda: Slow(go_on.wait).value)
    thread.start()
    started.wait()
    other = threading.Thread(target=lambda: Slow(lambda: None).value, daemon=True)
    other.start()
    other.join(5)
    assert not other.is_alive()
    go_on.set()
    thread.join()


def exit_code_of_child(work, seconds=20):
    """What a forked child exits with: 0 if ``work()`` returned; -9 where it had to be killed since it hung."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("part", ["cached", "handles", "_tally", "_indexes"])
def test_no_lock_of_a_reader_is_inherited(tmp_path, part):
    """Each is held by another thread at the moment of the fork; the child starts with nothing open or cached."""
    write_zarr(tmp_path / "a.zarr", np.arange(1, 33, dtype="u2").reshape(8, 4), chunk=2, shard=4)
    dataset = FileCacheDataset(GlobalIndexManager(tmp_path))
    assert int(dataset[3][0]) == 13
    held, done = threading.Event(), threading.Event()

    def hold():
        with getattr(dataset._reader, part)._lock:
            held.set()
            done.wait()

    def read():
        assert len(dataset._reader.handles) == 0 and dataset._reader.cached.nbytes == 0
        assert dataset.counters().opens == 0 and int(dataset[3][0]) == 13

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert exit_code_of_child(read) == 0
    finally:
        done.set()
        thread.join()
    assert int(dataset[3][0]) == 13 and dataset.counters().opens == 1


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_waits_for_an_import(tmp_path, monkeypatch):
    """A module that another thread was importing is there, whole, in the child."""
    (tmp_path / "slowly_imported.py").write_text(
        "import slow_import\nslow_import.began.set()\nslow_import.go_on.wait(1)\n"
    )
    (tmp_path / "slow_import.py").write_text(
        "import threading\nbegan, go_on = threading.Event(), threading.Event()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    state = forks.import_module("slow_import")
    thread = threading.Thread(target=forks.import_module, args=("slowly_imported",))
    thread.start()
    state.began.wait()
    code = exit_code_of_child(lambda: forks.import_module("slowly_imported"))
    thread.join()
    for name in ("slow_import", "slowly_imported"):
        del sys.modules[name]
    assert code == 0


def test_what_is_gone_is_not_renewed():
    """Objects that wait for a fork are not kept alive by that."""
    before = len(forks._renewals)

    class Owner:
        pass

    owner = Owner()
    forks.renew_in_child(owner, Owner.__init__)
    assert len(forks._renewals) == before + 1
    del owner
    assert len(forks._renewals) == before


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_waits_until_a_block_of_another_thread_is_over():
    """What a block under ``held_off`` leaves half done, no child has."""
    done, inside = [], threading.Event()

    def work():
        with forks.held_off():
            inside.set()
            Fork.begun.wait(30)
            # one that did not wait would be done long before
            Fork.done.wait(0.5)
            done.append(True)

    Fork.watch()
    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    child = os.fork()
    if not child:
        os._exit(0 if done else 1)
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_does_not_wait_for_blocks_of_threads_that_it_has_not(monkeypatch):
    """A fork waits so long and no longer; a thread forks in a block of its own, which the child ends, too."""
    inside, go_on = threading.Event(), threading.Event()

    def work():
        with forks.held_off():
            inside.set()
            go_on.wait(60)

    thread = threading.Thread(target=work)
    thread.start()
    assert inside.wait(30)
    monkeypatch.setattr(forks, "_SECONDS", 0.2)
    with forks.held_off(), forks.held_off():
        child = os.fork()
    if not child:
        forks._SECONDS = 30
        begun = time.monotonic()
        assert exit_code_of_child(lambda: None) == 0
        other = threading.Thread(target=lambda: exit_code_of_child(lambda: None))
        other.start()
        other.join()
        os._exit(0 if time.monotonic() - begun < 20 else 1)
    go_on.set()
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0
