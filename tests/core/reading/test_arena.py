"""Blocks in memory that many have: the last ones used, whole or not there, whoever is killed or reads meanwhile."""

from __future__ import annotations

import struct
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.reading.arena import GRAIN, Arena, BrokenArenaError

CAPACITY = 2048


def key_of(number):
    """Keys that a digest could be, half of which look for one slot, and half for the next."""
    return struct.pack("<QQ", number % 2 + 1, number + 1)


def content(number, size):
    """What is written into a block of that key: other bytes for each size."""
    return bytes((number * 31 + size + place) % 251 for place in range(size))


def fresh():
    """An empty arena and its memory."""
    buffer = bytearray(Arena.nbytes_for(CAPACITY))
    return Arena.laid_out(buffer, CAPACITY), buffer


def put(arena, buffer, number, size, now, claim=1, is_held=lambda claim: False):
    """Write a block as a process does, in two parts; whether there was room."""
    start = arena.reserve(size, claim=claim, is_held=is_held)
    if start is None:
        return False
    data, half = content(number, size), size // 2
    buffer[start : start + half] = data[:half]
    buffer[start + half : start + size] = data[half:]
    arena.publish(key_of(number), start, size, now)
    return True


def get(arena, buffer, number):
    """The bytes of a block, or None."""
    block = arena.find(key_of(number))
    return None if block is None else bytes(buffer[block.start : block.start + block.size])


@given(
    size=st.integers(1, 600),
    # of more keys that look for two slots, some would have to leave for want of a slot
    steps=st.lists(st.tuples(st.booleans(), st.integers(0, 7)), max_size=60),
)
@settings(max_examples=60)
def test_blocks_of_one_size_are_those_last_used(size, steps):
    """A list, its newest at the end and cut at the front to as many as have room, says the same."""
    arena, buffer = fresh()
    most = (CAPACITY + 2 * GRAIN) // (-(-(size + GRAIN) // GRAIN) * GRAIN)
    model, clock = [], count(1)
    for is_put, number in steps:
        now = next(clock)
        block = arena.find(key_of(number))
        assert (block is not None) == (number in model)
        if block is None and is_put:
            assert put(arena, buffer, number, size, now)
            model = [*model, number][-most:]
        elif block is not None:
            arena.mark(block, now)
            model = [*[one for one in model if one != number], number]
        assert {one for one in range(8) if get(arena, buffer, one)} == set(model)
        assert arena.nbytes == size * len(model)
    assert all(get(arena, buffer, one) == content(one, size) for one in model)


SIZES = st.lists(st.tuples(st.integers(0, 12), st.integers(1, CAPACITY)), max_size=40)


@given(SIZES)
@settings(max_examples=60)
def test_blocks_of_any_sizes_are_whole_and_lie_apart(steps):
    """Whatever came and went, there is room for the next one, and who is found has the bytes that were put."""
    arena, buffer = fresh()
    sizes = {}
    for now, (number, size) in enumerate(steps, 1):
        if arena.find(key_of(number)) is None:
            assert put(arena, buffer, number, size, now)
            sizes[number] = size
        used = arena.check()
        assert all(one[0] + one[1] <= other[0] for one, other in zip(used, used[1:], strict=False))
        found = {one: get(arena, buffer, one) for one in sizes}
        assert found[number] == content(number, sizes[number])
        assert all(data in (None, content(one, sizes[one])) for one, data in found.items())
        assert len(used) == sum(data is not None for data in found.values())


class Killed(BaseException):
    """A process ended here."""


class Watched:
    """Memory whose every store is told, before it happens."""

    def __init__(self, memory, tell):
        self.memory, self.tell = memory, tell

    def __getitem__(self, place):
        return self.memory[place]

    def __setitem__(self, place, value):
        self.tell()
        self.memory[place] = value

    def find(self, *arguments):
        """As ``bytearray`` has it."""
        return self.memory.find(*arguments)


def watched(buffer, tell):
    """An arena that tells of its stores, but for notes of the last use, and a buffer that does."""
    arena = Arena(buffer)
    own = Watched(buffer, tell)
    arena._words, arena._buffer = Watched(arena._words, tell), own
    return arena, own


FILLED = [(0, 700), (1, 200), (2, 500), (3, 90), (4, 400)]
LATER = [(5, 900), (6, 90), (7, 1500), (1, 200)]


@pytest.mark.parametrize("seed", range(6))
def test_a_process_that_is_killed_at_any_store_leaves_nothing_wrong(seed):
    """The rest tile the arena, are whole, and go on; what it had reserved is free again."""
    random = np.random.default_rng(seed)
    before, later = (
        [(number, int(random.integers(1, 1000))) for number in numbers]
        for numbers in (range(8), range(8, 14))
    )
    for last in count():
        arena, buffer = fresh()
        for now, (number, size) in enumerate(before, 1):
            put(arena, buffer, number, size, now)
        stores = count()

        def tell(stores=stores, last=last):
            if next(stores) == last:
                raise Killed

        dying, memory = watched(buffer, tell)
        try:
            for now, (number, size) in enumerate(later, 10):
                put(dying, memory, number, size, now)
        except Killed:
            pass
        else:
            assert last > 70
            return
        arena = Arena(buffer)
        arena.check()
        for number, size in before + later:
            assert get(arena, buffer, number) in (None, content(number, size))
        for number, size in [(20, 900), *later, *before, (22, CAPACITY)]:
            if arena.find(key_of(number)) is None:
                assert put(arena, buffer, number, size, 100)
            assert get(arena, buffer, number) == content(number, size)
            arena.check()


class Drifting:
    """What a reader sees while another process writes: each load is of that moment or a later one."""

    def __init__(self, moments, steps):
        self.moments, self.steps, self.now = moments, steps, 0

    def load(self):
        """Memory as it is now; time may have gone on."""
        self.now = min(self.now + next(self.steps, 0), len(self.moments) - 1)
        return self.moments[self.now]

    def __getitem__(self, place):
        if isinstance(place, slice):
            return self.load()[place]
        return struct.unpack_from("Q", self.load(), 8 * place)[0]

    def find(self, *arguments):
        """As ``bytes`` have it."""
        return self.load().find(*arguments)


def history():
    """All that memory was while blocks came and went, by one store at a time."""
    arena, buffer = fresh()
    for now, (number, size) in enumerate(FILLED, 1):
        put(arena, buffer, number, size, now)
    moments = []
    arena, memory = watched(buffer, lambda: moments.append(bytes(buffer)))
    for now, (number, size) in enumerate((LATER + FILLED) * 2, 10):
        if arena.find(key_of(number)) is None:
            put(arena, memory, number, size, now)
    return [*moments, bytes(buffer)]


HISTORY = history()


#: How far memory goes on before each load: little by little, or at once before one of the first.
STEPS = st.one_of(
    st.lists(st.sampled_from([0, 0, 0, 1, 1, 2, 5, 20]), max_size=60),
    st.builds(lambda at, far: [0] * at + [far], st.integers(0, 12), st.integers(1, 100)),
)


@given(st.integers(0, len(HISTORY) - 1), st.sampled_from(FILLED + LATER), STEPS)
@settings(max_examples=600)
def test_who_reads_while_others_write_gets_the_block_or_nothing(first, wanted, steps):
    """Whenever each of its loads happens, and as far apart as they may be: no torn block, and no other one's."""
    number, size = wanted
    seen = Drifting(HISTORY[first:], iter(steps))
    arena, _ = fresh()
    arena._words = arena._buffer = seen
    block = arena.find(key_of(number))
    if block is not None:
        ends = range(block.start, block.start + block.size, 100)
        data = b"".join(seen[at : min(at + 100, block.start + block.size)] for at in ends)
        if arena.is_still(block):
            assert data == content(number, size)


def test_a_slot_that_gets_another_key_while_it_is_looked_up_is_not_taken_for_it():
    """Between the load that finds the key and those of what the slot says, its block leaves for another."""
    arena, buffer = fresh()
    numbers = range(0, 18, 2)
    for number in numbers[:-1]:
        put(arena, buffer, number, 10 + number, number)

    class Late(Drifting):
        def find(self, *arguments):
            place = buffer.find(*arguments)
            put(arena, buffer, numbers[-1], 99, 99)
            return place

        def __getitem__(self, place):
            return buffer[place]

    reader = Arena(buffer)
    reader._buffer = Late([], iter(()))
    block = reader.find(key_of(0))
    assert get(arena, buffer, numbers[-1]) == content(numbers[-1], 99)
    assert block is None


def test_room_that_is_being_written_to_is_nobody_elses():
    """While its claim is held no other block lies there, whatever needs room; afterwards it is free."""
    arena, buffer = fresh()
    start = arena.reserve(1000, claim=7, is_held=lambda claim: False)
    held = {7}
    for number in range(20):
        put(arena, buffer, number, 300, number, claim=8, is_held=held.__contains__)
        block = arena.find(key_of(number))
        assert block.start + 300 <= start or block.start >= start + 1000
    assert not put(arena, buffer, 30, CAPACITY, 100, is_held=held.__contains__)
    assert put(arena, buffer, 30, CAPACITY, 100, is_held=set().__contains__)


def test_a_key_that_is_there_is_not_there_twice():
    """Who publishes it again changes nothing, and its room is free again."""
    arena, buffer = fresh()
    for now in range(10):
        put(arena, buffer, 1, 500, now)
    assert arena.nbytes == 500 and len(arena.check()) == 1


def test_more_blocks_than_slots_leave_in_the_sequence_of_their_use():
    """Where a key's slots are all taken, the one last used of them stays."""
    arena, _ = fresh()
    same = [struct.pack("<QQ", 1, number) for number in range(1, 11)]
    for now, key in enumerate(same):
        arena.publish(key, arena.reserve(1, claim=1, is_held=lambda claim: False), 1, now)
    assert [arena.find(key) is not None for key in same] == [False] * 2 + [True] * 8


def test_memory_that_is_none_of_ours_is_refused():
    """Not laid out, too short, or scribbled over: an error, and never an endless walk."""
    with pytest.raises(BrokenArenaError, match="not laid out"):
        Arena(bytearray(Arena.nbytes_for(CAPACITY)))
    arena, buffer = fresh()
    with pytest.raises(BrokenArenaError, match="ends before"):
        Arena(buffer[:-GRAIN])
    put(arena, buffer, 1, 100, 1)
    for wrong in (0, GRAIN + 1, 2**40):
        arena._words[arena._place(0)] = wrong
        with pytest.raises(BrokenArenaError, match="an extent of"):
            arena.check()


@pytest.mark.parametrize("capacity", [1, 4096, 10**6, 2**30, 2**36])
def test_what_stands_beside_the_blocks_is_small(capacity):
    """At most 6 % of them, from a megabyte on."""
    nbytes = Arena.nbytes_for(capacity)
    assert capacity < nbytes <= capacity + max(0.06 * capacity, 2**17)
    if capacity <= 10**6:
        arena = Arena.laid_out(bytearray(nbytes), capacity)
        start = arena.reserve(capacity, claim=1, is_held=lambda claim: False)
        assert arena.view(start, capacity, np.dtype("u1"), ()).shape == (capacity,)
