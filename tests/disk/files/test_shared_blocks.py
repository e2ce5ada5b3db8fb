"""Blocks that all processes of a node share: whole or not there, whoever is killed, and nothing left."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import signal
import threading

import numpy as np
import pytest

from globidx.core.reading.planning import Run
from globidx.disk.files import nameless, shared_blocks
from globidx.disk.files.shared_blocks import SharedBlocks

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def key_of(number):
    """A key as digests are."""
    return hashlib.blake2b(str(number).encode(), digest_size=16).digest()


def content(number):
    """The block of a key: sizes differ by a factor of 60."""
    rows = 1 + number * number * 7 % 60
    return (np.arange(rows * 64, dtype="u4") * 2654435761 + number).reshape(rows, 64)


def whole(array):
    """The run that is all rows of a block."""
    return [Run(0, 0, 0, len(array), 0)]


def taken(blocks, number):
    """Whether a block was kept, and then whether it was right."""
    rows = np.zeros_like(content(number))
    if not blocks.take(key_of(number), whole(rows), rows):
        return None
    return np.array_equal(rows, content(number))


@pytest.fixture
def make(tmp_path):
    """Makes the blocks of one name, and leaves them at the end."""
    made = []

    def another(capacity=2**20, **options):
        made.append(SharedBlocks(str(tmp_path), capacity, **options))
        return made[-1]

    yield another
    for blocks in made:
        blocks.clear()


def test_a_block_that_one_puts_the_others_take(make):
    """All of it, or runs of its rows, each where it belongs; and a copy, which is theirs."""
    one, other = make(), make()
    assert taken(other, 5) is None and other.get(key_of(5), "u4", (64,)) is None
    one.put(key_of(5), content(5))
    assert taken(other, 5) and taken(one, 5)
    rows = np.zeros((9, 64), "u4")
    assert other.take(key_of(5), [Run(5, 32, 33, 35, 4), Run(5, 32, 40, 41, 0)], rows)
    assert np.array_equal(rows[4:6], content(5)[1:3]) and np.array_equal(rows[0], content(5)[8])
    copied = other.get(key_of(5), "u4", (64,))
    copied[...] = 0
    assert taken(other, 5) and one.nbytes == content(5).nbytes == other.nbytes


def test_what_is_kept_is_what_was_used_last_by_anybody(make):
    """As much as fits of it, for all together; one that is larger is not kept."""
    size = content(2).nbytes
    one, other = make(4 * size), make(4 * size)
    block = content(2)
    for number in range(4):
        (one, other)[number % 2].put(key_of(number), block)
    rows = np.zeros_like(block)
    assert other.take(key_of(0), whole(rows), rows)
    one.put(key_of(4), block)
    kept = [one.take(key_of(number), whole(rows), rows) for number in range(5)]
    assert kept == [True, False, True, True, True]
    one.put(key_of(5), np.zeros(4 * size + 1, "u1"))
    assert not other.take(key_of(5), whole(rows), rows)


def test_a_block_that_goes_while_it_is_read_was_not_there(make):
    """Also if it was looked up half, and what came instead has another shape; else that is an error."""
    one = make(2**14)
    arena = one.open()
    for error in (None, ValueError("could not be broadcast")):

        def use(block, error=error):
            one.put(key_of(9), np.zeros(2**14, "u1"))
            one.put(key_of(8), np.zeros(2**14, "u1"))
            if error is not None:
                raise error

        one.put(key_of(1), np.zeros(2**14, "u1"))
        assert not one._read(arena, key_of(1), np.dtype("u1"), (), use)
    one.put(key_of(1), np.zeros(2**14, "u1"))
    with pytest.raises(ValueError, match="broadcast"):
        one.take(key_of(1), [Run(0, 0, 0, 5, 0)], np.zeros(2, "u1"))


def test_who_claims_a_block_makes_it_for_those_who_wait(make):
    """Two that want one at once: one makes it, and the other finds it; threads and processes alike."""
    one, made = make(), []

    def want(blocks):
        with blocks.claim(key_of(1)):
            if not taken(blocks, 1):
                made.append(blocks)
                room = blocks.room(key_of(1), content(1).shape, content(1).dtype)
                room[...] = content(1)
                blocks.put(key_of(1), room)

    threads = [threading.Thread(target=want, args=(each,)) for each in (one, one, make(), make())]
    with make().claim(key_of(1)) as had:
        assert had
        for thread in threads:
            thread.start()
    for thread in threads:
        thread.join(30)
    assert len(made) == 1 and taken(one, 1)


def test_nobody_waits_for_ever(make):
    """One that was stopped with a claim, or in the directory: the others go on, and share less."""
    stopped = make()
    other = make(claim_seconds=0.01, lock_seconds=0.01)
    other.put(key_of(1), content(1))
    with stopped.claim(key_of(2)):
        with other.claim(key_of(2)) as had:
            assert not had
            room = other.room(key_of(2), content(2).shape, content(2).dtype)
            room[...] = content(2)
            # without another wait
            other._claim_seconds = 100.0
            other.put(key_of(2), room)
        # by itself, so that it need not wait once more
        assert taken(other, 2) and taken(make(), 2) is None
    assert not taken(stopped, 2)
    stopped.open()
    assert stopped._memory.try_lock(0, seconds=0)
    other.put(key_of(3), content(3))
    assert taken(other, 3) is None and taken(other, 1)
    stopped._memory.unlock(0)
    other._not_before = 0.0
    other.put(key_of(3), content(3))
    assert taken(stopped, 3)


def test_a_block_whose_making_failed_is_made_by_the_next(make):
    """Its room is free again, all of it."""
    one = make(2**16)
    room = (2**14,), np.dtype("u4")
    with pytest.raises(ZeroDivisionError), one.claim(key_of(1)):
        one.room(key_of(1), *room)[...] = 1 / 0
    one.put(key_of(2), np.ones(*room))
    assert one.nbytes == 2**16


def test_objects_stay_in_their_process(make):
    """They are pointers, which mean nothing elsewhere."""
    one, other = make(), make()
    block, rows = np.array([b"a", b"bc"], object), np.empty(2, object)
    one.put(key_of(1), block)
    assert not other.take(key_of(1), whole(rows), rows)
    assert one.take(key_of(1), whole(rows), rows) and rows.tolist() == [b"a", b"bc"]
    assert other.open().nbytes == 0


@pytest.mark.parametrize("reason", ["memory", "broken", "scribbled"])
def test_without_shared_memory_each_process_keeps_its_own(tmp_path, make, caplog, reason):
    """Too little of it, or not what it should be: one line says so, and all else goes on."""
    blocks = make(2**50 if reason == "memory" else 2**20)
    if reason == "broken":
        planted = os.memfd_create(f"globidx-{nameless.label_of(str(tmp_path))}")
        os.fchmod(planted, 0o600)
        os.ftruncate(planted, shared_blocks.Arena.nbytes_for(2**20))
    if reason == "scribbled":
        arena = blocks.open()
        arena._words[arena._place(0)] = 5
    for number in (1, 2):
        blocks.put(key_of(number), content(number))
    if reason == "scribbled":
        blocks.put(key_of(1), content(1))
    assert taken(blocks, 1)
    assert caplog.text.count("decoded chunks are not shared") == 1
    assert blocks.why_not in caplog.text and "cannot be had: " in caplog.text
    assert blocks.local.nbytes == blocks.nbytes > 0
    if reason == "broken":
        os.close(planted)


def test_where_loads_may_be_seen_out_of_order_readers_hold_a_lock(make, monkeypatch):
    """On other machines than x86: a block is not read while its memory may be given away."""
    monkeypatch.setattr(shared_blocks, "_IS_ORDERED", False)
    one, other = make(), make(lock_seconds=0.01)
    one.put(key_of(1), content(1))
    assert taken(other, 1) and other.get(key_of(1), "u4", (64,)) is not None
    with one._reading() as may:
        assert may and taken(other, 1)
        other.put(key_of(2), content(2))
    assert taken(one, 2) is None
    assert one._memory.try_lock(0, seconds=0)
    assert taken(other, 1) is None
    one._memory.unlock(0)


def test_what_all_have_left_is_gone_and_comes_back_empty(make):
    """``clear`` leaves it; others keep it; the next use comes back."""
    one, other = make(), make()
    one.put(key_of(1), content(1))
    other.open()
    one.clear()
    assert taken(one, 1)
    one.clear()
    other.clear()
    assert taken(one, 1) is None


def test_a_forked_child_finds_what_its_parent_has(make):
    """By a descriptor of its own, though the parent's lock was held when it forked."""
    one = make()
    one.put(key_of(1), content(1))
    one._lock.acquire()
    child = os.fork()
    if not child:
        signal.alarm(20)
        code = 1
        try:
            code = 0 if taken(one, 1) and taken(one, 2) is None else 2
            one.put(key_of(2), content(2))
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    one._lock.release()
    assert taken(one, 2)


class Hammer:
    """Processes that want few blocks, more than fit, and look at every bit of them."""

    #: What a process says after each block: it was there, it was made, it was wrong.
    THERE, MADE, WRONG = b"+", b".", b"!"

    def __init__(self, name, capacity):
        self.name, self.capacity = name, capacity
        self.reads, self.writes = os.pipe()
        self.children = set()
        self.said = b""

    def start(self, seed):
        """One more of them."""
        child = os.fork()
        if child:
            self.children.add(child)
            return
        try:
            blocks, chance = SharedBlocks(self.name, self.capacity), random.Random(seed)
            while True:
                os.write(self.writes, self.one(blocks, chance.randrange(12)))
        finally:
            os._exit(1)

    def one(self, blocks, number):
        """One block, taken or made."""
        found = taken(blocks, number)
        if found is None:
            with blocks.claim(key_of(number)):
                found = taken(blocks, number)
                if found is None:
                    room = blocks.room(key_of(number), content(number).shape, np.dtype("u4"))
                    room[...] = content(number)
                    blocks.put(key_of(number), room)
                    return self.MADE
        return self.THERE if found else self.WRONG

    def wait(self, count):
        """Until they have said so much more."""
        end = len(self.said) + count
        while len(self.said) < end:
            self.said += os.read(self.reads, end - len(self.said))

    def kill(self, child):
        """End one of them wherever it is."""
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        self.children.discard(child)

    def end(self):
        """End all."""
        for child in [*self.children]:
            self.kill(child)
        os.close(self.reads)
        os.close(self.writes)


@pytest.mark.parametrize("is_ordered", [True, False])
def test_processes_that_are_killed_at_any_moment_do_no_harm(tmp_path, monkeypatch, is_ordered):
    """Eight of them, of which one at a time is killed and another one comes: no wrong bit, blocks are found, nothing stays."""
    monkeypatch.setattr(shared_blocks, "_IS_ORDERED", is_ordered)
    before = set(os.listdir("/dev/shm"))
    capacity, chance = sum(content(number).nbytes for number in range(12)) // 2, random.Random(1)
    hammer = Hammer(str(tmp_path), capacity)
    signal.alarm(120)
    try:
        for seed in range(8):
            hammer.start(seed)
        for seed in range(8, 40 if is_ordered else 16):
            hammer.wait(chance.randrange(1, 40))
            hammer.kill(chance.choice(sorted(hammer.children)))
            hammer.start(seed)
        blocks = SharedBlocks(str(tmp_path), capacity)
        hammer.wait(200)
        # under the lock, so that nobody changes it meanwhile
        blocks.open()
        used = blocks._changing(lambda arena: arena.check())
        hammer.wait(100)
    finally:
        hammer.end()
        signal.alarm(0)
    assert Hammer.WRONG not in hammer.said
    assert hammer.said.count(Hammer.THERE) > 100 and hammer.said.count(Hammer.MADE) > 50
    # all are dead: what they held is free
    for number in range(12):
        blocks.put(key_of(number), content(number))
        assert taken(blocks, number)
    assert used and blocks.open().check() and blocks.why_not is None
    blocks.clear()
    assert nameless._found(nameless.label_of(str(tmp_path)), 0) is None
    assert not [
        name
        for name in set(os.listdir("/dev/shm")) - before
        if "globidx-" in name and "chunk" in name
    ]


def test_it_is_not_pickled_but_named_again(make):
    """The memory of a process is its own; a reader that is pickled opens it by its name."""
    with pytest.raises(TypeError):
        pickle.dumps(make())
