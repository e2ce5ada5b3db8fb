"""A slot is given back when the last thing over it is gone, and never before."""

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from weakref import ref

import numpy as np
import pytest
import torch
from files import run_python
from processes import clean_environment
from threads import in_threads

from globidx.torch.delivery import lender as lender_module
from globidx.torch.delivery.lender import Lender, lent
from globidx.torch.delivery.slots import FREE, TAKEN, SlotFile

SIZE = 4096
FORK = multiprocessing.get_context("fork")


class Worker:
    """The other side: it writes ``value`` to a slot, as a worker does."""

    def __init__(self, slots=4, pins=None):
        self.file = SlotFile.made(1, slots)
        self.lender = Lender(self.file.another(), pins)

    def fills(self, slot, value, size=SIZE):
        """The block that the main process gets; the slot must be free."""
        assert self.file.states[slot] == FREE
        self.file.reserve(slot, size)
        memoryview(self.file.map(slot, size).block()).cast("B")[:] = bytes([value]) * size
        self.file.states[slot] = TAKEN
        return lent(self.lender.key, slot, size)

    def mapped(self):
        """The sizes of what this process has mapped of the file."""
        inode = str(os.fstat(self.file._fd).st_ino)
        with open("/proc/self/maps") as lines:
            fields = [line.split() for line in lines]
        ends = [first.split("-") for first, _, _, _, found, *_ in fields if found == inode]
        return [int(end, 16) - int(start, 16) for start, end in ends]

    def descriptors(self):
        """How many descriptors of the file this process has."""
        own, found = os.fstat(self.file._fd), []
        for path in Path("/proc/self/fd").iterdir():
            # that of the folder itself is closed by now
            with suppress(OSError):
                found.append(path.stat())
        return sum(os.path.samestat(own, one) for one in found)

    def memory(self):
        """How many bytes of slots are memory."""
        return 512 * os.fstat(self.file._fd).st_blocks - SIZE


def over(block, count=SIZE):
    return torch.frombuffer(block, dtype=torch.uint8, count=count)


HOLDERS = {
    "a view": lambda tensor: tensor[5:9],
    "numpy": lambda tensor: tensor.numpy()[::2],
    "a view of an array": lambda tensor: np.asarray(tensor).reshape(8, 8)[3].view(np.int64),
    "storage": lambda tensor: tensor.untyped_storage(),
    "dlpack": lambda tensor: np.from_dlpack(tensor),
    "dlpack of torch": lambda tensor: torch.from_dlpack(tensor),
    "a memoryview": lambda tensor: memoryview(tensor.numpy()),
    "a list": lambda tensor: [{"deep": (tensor,)}],
    "another dtype": lambda tensor: tensor.view(torch.float32),
    "a parameter": lambda tensor: torch.nn.Parameter(tensor, requires_grad=False),
    "a graph": lambda tensor: (
        (tensor[:4].view(torch.float32) * torch.ones(1, requires_grad=True)).grad_fn
    ),
    "a cycle": lambda tensor: cycle(tensor),
}


def cycle(tensor):
    loop = [tensor]
    loop.append(loop)
    return loop


@pytest.mark.parametrize("name", HOLDERS)
def test_whatever_has_a_part_of_a_batch_holds_its_slot(name):
    """One of several tensors is enough; when it goes, in whatever way, the slot is free."""
    worker = Worker()
    block = worker.fills(2, 7)
    first, second = over(block), over(block, 64)
    del block, first
    holder = HOLDERS[name](second)
    del second
    gc.collect()
    assert (worker.file.states[2], worker.lender.held) == (TAKEN, [2])
    del holder
    gc.collect()
    assert (worker.file.states[2], worker.lender.held) == (FREE, [])


def test_a_block_that_no_tensor_is_made_over_gives_its_slot_back():
    """As for a batch that was on its way when the loop was left."""
    worker = Worker()
    worker.fills(0, 1)
    assert list(worker.file.states) == [FREE] * 4


def test_a_slot_that_grew_is_mapped_anew_and_keeps_its_bytes():
    """And what it was before is unmapped."""
    worker = Worker(1)
    for pages in (1, 3, 2, 5):
        block = worker.fills(0, pages, pages * SIZE)
        assert over(block, pages * SIZE).eq(pages).all()
        del block
    # both heads, and what is mapped now
    assert sorted(worker.mapped()) == [SIZE, SIZE, 5 * SIZE]


def test_what_is_pinned_is_each_mapping_once():
    """Not once a batch; a larger mapping is another one."""
    pinned = []

    class Noted:
        def pin(self, mapping):
            pinned.append(mapping.size)

    worker = Worker(2, Noted())
    for slot, pages in ((0, 1), (1, 1), (0, 1), (0, 2), (0, 2), (1, 1)):
        worker.fills(slot, 1, pages * SIZE)
    assert pinned == [SIZE, SIZE, 2 * SIZE]


def test_slots_that_are_not_used_are_no_memory_after_the_end_and_the_others_as_long_as_they_are():
    """A batch that is kept for long keeps its own memory, not that of all slots."""
    worker = Worker()
    kept = over(worker.fills(1, 6))
    worker.fills(2, 7)
    assert worker.memory() == 2 * SIZE
    worker.lender.close()
    assert worker.memory() == SIZE
    assert kept.eq(6).all()
    del kept
    assert worker.memory() == 0


def test_a_lender_is_gone_with_its_last_tensor():
    """It keeps no descriptor and no address."""
    worker = Worker()
    kept = over(worker.fills(1, 6))
    worker.lender.close()
    lender = ref(worker.lender)
    del worker.lender
    gc.collect()
    assert (sorted(worker.mapped()), worker.descriptors()) == ([SIZE] * 3, 2)
    del kept
    assert lender() is None
    assert (worker.mapped(), worker.descriptors()) == ([SIZE], 1)


def test_a_batch_that_outlives_its_pass_is_the_childs_own_too():
    """Also after the garbage collector came by."""
    worker = Worker()
    kept = over(worker.fills(1, 6))
    worker.lender.close()
    del worker.lender
    gc.collect()
    pipe, other = FORK.Pipe()
    child = FORK.Process(target=child_sees, args=(other, kept, True), daemon=True)
    child.start()
    pipe.recv()
    pipe.send("change it")
    assert pipe.recv()[0] == 99
    child.join()
    assert kept.eq(6).all()


def test_any_thread_may_free_the_last_tensor():
    """And many at once."""
    worker = Worker(64)
    kept = [over(worker.fills(slot, slot)) for slot in range(64)]
    threads = [threading.Thread(target=lambda: [kept.pop() for _ in range(8)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(worker.file.states) == [FREE] * 64


def child_sees(pipe, kept, change):
    """In a forked child: what it holds, before and after the parent's slot was filled again."""
    pipe.send(kept.tolist())
    pipe.recv()
    if change:
        kept[0] = 99
    pipe.send(kept.tolist())


@pytest.mark.parametrize("change", [False, True])
def test_a_forked_child_keeps_what_it_had_and_gives_nothing_back(change):
    """Its parent's slot is filled again, the child sees its own bytes, and its own changes alone."""
    worker = Worker()
    kept = over(worker.fills(1, 6))
    idle = over(worker.fills(3, 5))
    del idle
    pipe, other = FORK.Pipe()
    child = FORK.Process(target=child_sees, args=(other, kept, change), daemon=True)
    child.start()
    assert pipe.recv() == [6] * SIZE
    assert worker.file.states[1] == TAKEN
    # the process object has dropped its arguments
    del kept
    again = over(worker.fills(1, 8))
    pipe.send("filled")
    assert pipe.recv() == [99 if change else 6] + [6] * (SIZE - 1)
    child.join()
    assert child.exitcode == 0
    assert again.eq(8).all()
    assert worker.file.states[1] == TAKEN


def test_what_is_freed_in_the_middle_of_a_fork_is_free_when_it_is_over_and_not_before():
    """The child may have it, and has not made its copy yet."""
    worker = Worker()
    kept = [over(worker.fills(1, 6))]
    lender_module._before_fork()
    thread = threading.Thread(target=kept.clear)
    thread.start()
    thread.join()
    assert worker.file.states[1] == TAKEN
    lender_module._after_in_parent()
    assert worker.file.states[1] == FREE


def test_after_a_child_that_made_no_copy_no_slot_is_used_again(monkeypatch):
    """It may have been stopped; better no slot than one that changes under somebody."""
    monkeypatch.setattr(lender_module, "_COPY_SECONDS", 0.05)
    worker = Worker()
    kept = over(worker.fills(1, 6))
    lender_module._before_fork()
    # a child that has the end of the pipe, and does nothing
    held = os.dup(lender_module._fork.pipe[1])
    lender_module._after_in_parent()
    os.close(held)
    del kept
    assert worker.file.states[1] == TAKEN
    worker.lender.close()
    assert worker.memory() == SIZE


PARENT_SLEEPS = """
import os, signal, sys, threading, time
from pathlib import Path

def until_parent_sleeps():
    # it has one thread, which sleeps when it waits for this child
    while Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()[0] != "S":
        time.sleep(0.001)
"""

INTERRUPTED = """
gate, opened = os.pipe()

def stop_parent():
    until_parent_sleeps()
    os.kill(os.getppid(), signal.SIGTERM)
    os.read(gate, 1)

# before that of slots: the child makes its copies when the parent's handler has run
os.register_at_fork(after_in_child=stop_parent)

from files import open_descriptors
from globidx.torch.delivery.slots import FREE
from tests.torch.delivery.test_lender import Worker, over

class Stop(BaseException):
    pass

def handler(number, frame):
    os.write(opened, b"1")
    raise Stop("of the handler")

signal.signal(signal.SIGTERM, handler)
worker = Worker()
kept = over(worker.fills(1, 6))
before = open_descriptors()
try:
    pid = os.fork()
    if not pid:
        os._exit(0 if kept.eq(6).all() else 1)
    threading.Event().wait(30)
except Stop as stopped:
    print("stopped", stopped)
print(os.wait()[1], open_descriptors() - before, signal.getsignal(signal.SIGINT).__name__)
del kept
print(worker.file.states[1] == FREE)
"""


def test_a_handler_that_raises_while_a_fork_waits_is_heard_and_costs_no_slot():
    """Python ignores what is raised in the middle of a fork; here it is raised when that is over."""
    lines = run_python(PARENT_SLEEPS + INTERRUPTED).stdout.splitlines()
    assert lines == ["stopped of the handler", "0 0 default_int_handler", "True"]


BATCH_BEFORE_FORK = """
kept, workers = [], []

def take_batch():
    workers.append(Worker()) if sys.argv[1] == "begin" else None
    kept.append(over(workers[0].fills(1, 6)))

# Before those of slots: this one before a fork runs after theirs, as one does that waits for a lock
# while another thread takes a batch; and the child makes its copies late.
os.register_at_fork(before=take_batch, after_in_child=until_parent_sleeps)

from globidx.torch.delivery.slots import FREE
from tests.torch.delivery.test_lender import Worker, over

workers.append(Worker()) if sys.argv[1] == "go on" else None
pid = os.fork()
if not pid:
    os._exit(0 if kept[0].eq(6).all() else 1)
kept.clear()
is_free = workers[0].file.states[1] == FREE
again = over(workers[0].fills(1, 8)) if is_free else None
print(os.wait()[1], is_free)
"""


@pytest.mark.parametrize(("loop", "is_used_again"), [("go on", True), ("begin", False)])
def test_a_batch_that_comes_after_a_forks_first_handler_is_the_childs_own_too(loop, is_used_again):
    """The first of the process; of a loop that has begun since, the child cannot tell that it has its copies."""
    done = run_python(PARENT_SLEEPS + BATCH_BEFORE_FORK, loop)
    assert done.stdout.split() == ["0", str(is_used_again)]


def test_nobody_waits_for_a_child_where_nothing_is_lent():
    """The workers of a first loop start at once; that of one which has lent something waits."""
    worker = Worker()
    lender_module._before_fork()
    # a child that has the end of the pipe, and does nothing
    held = os.dup(lender_module._fork.pipe[1])
    lender_module._after_in_parent()
    os.close(held)
    worker.fills(1, 6)
    assert worker.file.states[1] == FREE


def test_a_child_of_another_thread_keeps_no_fork_waiting(monkeypatch):
    """It is forked while a thread is in the middle of a fork of its own, and lives on."""
    monkeypatch.setattr(lender_module, "_COPY_SECONDS", 5)
    worker = Worker()
    kept = over(worker.fills(1, 6))
    lender_module._before_fork()
    pipe, other = FORK.Pipe()
    child = FORK.Process(target=child_sees, args=(other, kept, False), daemon=True)
    thread = threading.Thread(target=child.start)
    thread.start()
    thread.join()
    pipe.recv()
    lender_module._after_in_parent()
    pipe.send("end")
    child.join()
    del kept
    assert worker.file.states[1] == FREE


def test_forks_cost_nothing_where_there_are_no_slots():
    """No pipe is made."""
    gc.collect()
    assert not any(one._mappings for one in lender_module._lenders.values())
    lender_module._before_fork()
    assert lender_module._fork.pipe is None
    lender_module._after_in_parent()


def test_tensors_that_live_to_the_end_of_the_interpreter_end_quietly():
    """Kept in a module, in a cycle, in a thread: nothing is written to the error output."""
    program = """
import sys, torch
from tests.torch.delivery.test_lender import Worker, over, cycle
worker = Worker()
sys.kept = over(worker.fills(0, 1)), cycle(over(worker.fills(1, 1)))
kept = over(worker.fills(2, 2))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=clean_environment(), capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_slot_that_was_returned_in_a_fork_waits_for_all_forks_under_way():
    """Of two threads that fork at once, the child of one may copy it when that of the other is done."""
    worker = Worker()
    block = worker.fills(0, 1)
    forks, ended = threading.Event(), threading.Event()

    def fork_slowly():
        lender_module._before_fork()
        forks.set()
        ended.wait(30)
        lender_module._after_in_parent()

    other = threading.Thread(target=fork_slowly)
    other.start()
    assert forks.wait(30)
    lender_module._before_fork()
    del block
    lender_module._after_in_parent()
    still = worker.file.states[0]
    ended.set()
    other.join()
    assert still == TAKEN and worker.file.states[0] == FREE


def test_threads_may_fork_while_others_make_lenders():
    """And no fork is thought to be under way when all have ended."""
    worker = Worker()
    block, file = worker.fills(0, 1), worker.file.another()
    # many, so that to look at all of them takes a while
    made, over = [Lender(file) for _ in range(500)], threading.Event()

    def work(number):
        try:
            while number and not over.is_set():
                Lender(file)
            for _ in range(0 if number else 2000):
                lender_module._before_fork()
                lender_module._after_in_parent()
        finally:
            over.set()

    in_threads(2, work)
    del block
    assert worker.file.states[0] == FREE and len(made) == 500
