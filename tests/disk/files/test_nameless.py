"""Memory without a name: found by processes of one user, and gone with the last of them, however it ends."""

from __future__ import annotations

import multiprocessing
import os
import signal
import stat
import threading
from contextlib import suppress

import pytest

from globidx.disk.files import nameless
from globidx.disk.files.cgroup import free_memory
from globidx.disk.files.nameless import attach

SIZE = 2**16
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture
def name(tmp_path):
    """A name of this test alone."""
    return str(tmp_path)


def nothing(buffer):
    """Prepare no memory."""


def holding(work, *arguments):
    """A process that has done ``work`` and waits to be killed: its id, and what it found."""
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        try:
            kept = work(*arguments)
            os.write(writes, repr(kept[-1]).encode())
            signal.pause()
        finally:
            os._exit(1)
    os.close(writes)
    found = os.read(reads, 1000)
    os.close(reads)
    assert found, "it ended"
    return child, found.decode()


def kill(child):
    """End a process as nothing can be held off."""
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def marked(name, mark):
    """The memory, and which mark is in it: that of the first process."""

    def prepare(buffer):
        buffer[0] = mark

    memory = attach(name, SIZE, prepare)
    return memory, memory.buffer[0]


def test_all_have_the_memory_of_the_first_until_the_last_is_killed(name):
    """Also when the first one has gone; and nothing is left of it then, not in /dev/shm either."""
    before = os.listdir("/dev/shm")
    first, one = holding(marked, name, 1)
    second, two = holding(marked, name, 2)
    kill(first)
    third, three = holding(marked, name, 3)
    assert [one, two, three] == ["1", "1", "1"]
    kill(second)
    kill(third)
    memory, four = marked(name, 4)
    assert four == 4
    memory.close()
    assert not {entry for entry in os.listdir("/dev/shm") if "chunks" in entry} - {*before}


def test_of_many_that_come_at_once_one_makes_it(name):
    """Four processes: nobody begins while the first one is at it, and all have what that made."""
    fork = multiprocessing.get_context("fork")
    together, another, answers = fork.Barrier(4), fork.Barrier(2), fork.Queue()

    def come(number):
        def prepare(buffer):
            with suppress(threading.BrokenBarrierError):
                # so long that the others would have come as well
                another.wait(0.5)
            buffer[0] = number

        together.wait(30)
        memory = attach(name, SIZE, prepare)
        answers.put(memory.buffer[0])
        together.wait(30)

    processes = [fork.Process(target=come, args=(number,)) for number in range(1, 5)]
    for process in processes:
        process.start()
    assert len({answers.get(timeout=30) for _ in processes}) == 1
    for process in processes:
        process.join(30)


def test_who_is_killed_in_its_turn_holds_nobody_up(name):
    """The next one goes on at once."""

    def stop(buffer):
        raise KeyboardInterrupt

    def half(name):
        turn = nameless._turn(nameless.label_of(name))
        turn.__enter__()
        return turn, "in its turn"

    child, _ = holding(half, name)
    waiting = threading.Thread(target=marked, args=(name, 5))
    waiting.start()
    kill(child)
    waiting.join(10)
    assert not waiting.is_alive()
    with pytest.raises(KeyboardInterrupt):
        attach(name, SIZE, stop)
    assert marked(name, 6)[1] == 6


def test_a_turn_that_does_not_end_is_waited_for_no_longer_than_that(name, monkeypatch):
    """A process that was stopped in its turn: an error says so."""
    monkeypatch.setattr(nameless, "_TURN_SECONDS", 0.1)
    with (
        nameless._turn(nameless.label_of(name)),
        pytest.raises(OSError, match=r"did not come within 0\.1 seconds"),
    ):
        attach(name, SIZE, nothing)


def test_a_turn_that_another_user_holds_is_not_waited_for(name, monkeypatch):
    """Anybody can take a socket's name: the error says who did."""
    user, own = os.geteuid() + 1, os.geteuid()
    # for this process as it would be for that user
    monkeypatch.setattr(os, "geteuid", lambda: user)
    with (
        nameless._turn(nameless.label_of(name)),
        pytest.raises(OSError, match=rf"user {own} holds its name, by process {os.getpid()}"),
    ):
        attach(name, SIZE, nothing)


@pytest.mark.parametrize("wrong", ["mode", "size"])
def test_what_another_one_put_under_its_name_is_not_taken(name, wrong):
    """Memory that others can write to, or of another size, is left alone."""
    planted = os.memfd_create(f"globidx-{nameless.label_of(name)}")
    os.fchmod(planted, 0o666 if wrong == "mode" else 0o600)
    os.ftruncate(planted, SIZE if wrong == "mode" else SIZE - 1)
    memory, mark = marked(name, 7)
    assert mark == 7 and os.pread(planted, 1, 0) == b"\0"
    memory.close()
    os.close(planted)


def test_memory_of_another_user_is_not_taken(name):
    """Whatever its name, mode and size."""
    memory, _ = marked(name, 1)
    status = os.fstat(memory._descriptor)
    assert nameless._is_ours(status, SIZE)
    assert stat.S_IMODE(status.st_mode) == 0o600 and status.st_nlink == 0
    other = list(status)
    other[stat.ST_UID] += 1
    assert not nameless._is_ours(os.stat_result(other), SIZE)
    memory.close()


def test_nobody_can_cut_it_off_under_those_who_have_it(name):
    """Not even its owner: a process that reads what was cut off is ended by a signal."""
    memory, _ = marked(name, 1)
    with pytest.raises(PermissionError):
        os.ftruncate(memory._descriptor, 10)
    memory.close()


def test_more_than_there_is_is_an_error_at_once(name):
    """It says how much is wanted, and how much there is; nothing is taken."""
    with pytest.raises(OSError, match=r"it takes 1125899906842624 bytes, and \d+ are free"):
        attach(name, 2**50, nothing)
    assert 2**20 < free_memory() < 2**50


def test_a_lock_goes_with_its_holder(name):
    """Others see it while that lives, whether or not it is apart, and have it when that is killed."""
    memory, _ = marked(name, 1)

    def locked(name):
        own = attach(name, SIZE, nothing)
        apart = own.apart(5, seconds=0)
        return own, apart, (own.try_lock(4, seconds=0), apart.__enter__())

    child, found = holding(locked, name)
    assert found == "(True, True)"
    for place in (4, 5):
        assert memory.is_locked_elsewhere(place)
        assert not memory.try_lock(place, seconds=0.01)
    assert not memory.is_locked_elsewhere(6)
    kill(child)
    for place in (4, 5):
        assert memory.try_lock(place, seconds=0)
        memory.unlock(place)
    memory.close()


def test_a_lock_that_is_apart_is_one_threads_alone(name):
    """Another thread of the process does not have it, until it is given back."""
    memory, _ = marked(name, 1)
    with memory.apart(1, seconds=0) as had:
        assert had
        with memory.apart(1, seconds=0) as again:
            assert not again
    with memory.apart(1, seconds=0) as had:
        assert had
    memory.close()
    with memory.apart(1, seconds=0) as had:
        assert not had


def test_a_forked_child_holds_no_lock_of_its_parent(name):
    """Not when the parent gives it back, and not when the parent is killed and the child lives on."""
    memory, _ = marked(name, 1)
    with memory.apart(3, seconds=0):
        child, _ = holding(lambda: ["born"])
    with memory.apart(3, seconds=0) as had:
        kill(child)
        assert had

    def parent():
        own = attach(name, SIZE, nothing)
        apart = own.apart(3, seconds=0)
        apart.__enter__()
        os.register_at_fork(after_in_child=own.leave_to_parent)
        grandchild, _ = holding(lambda: ["born"])
        return own, apart, grandchild

    first, grandchild = holding(parent)
    kill(first)
    with memory.apart(3, seconds=0) as had:
        os.kill(int(grandchild), signal.SIGKILL)
        assert had
    memory.close()
