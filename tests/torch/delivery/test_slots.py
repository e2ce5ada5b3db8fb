"""The file of slots: found again in other processes, and gone with the last of them."""

import multiprocessing
import os

import pytest

from globidx.torch.delivery.slots import FREE, TAKEN, SlotFile, rounded


def fill(file, slot, byte):
    """Take a slot, and fill a page."""
    file.reserve(slot, 4096)
    memoryview(file.map(slot, 4096).block()).cast("B")[:] = bytes([byte]) * 4096
    file.counts[3] += 5
    file.states[slot] = TAKEN


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_that_starts_gets_the_same_slots(method):
    """By any start method: bytes, states and counts are shared."""
    file = SlotFile.made(2, 3)
    process = multiprocessing.get_context(method).Process(target=fill, args=(file, 4, 9))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    assert list(file.states) == [FREE] * 4 + [TAKEN, FREE]
    assert file.counts.tolist() == [0, 0, 0, 5, 0, 0]
    assert bytes(memoryview(file.map(4, 4096).block())) == b"\t" * 4096


def test_slots_states_and_counts_do_not_overlap():
    """Every one of many keeps what was written to it."""
    file = SlotFile.made(40, 200)
    for slot in range(0, 8000, 97):
        file.reserve(slot, 4096)
        memoryview(file.map(slot, 4096).block()).cast("B")[:] = bytes([slot % 251]) * 4096
    for slot in range(8000):
        file.states[slot] = slot % 2
    for number in range(120):
        file.counts[number] = 1 << 60
    file.is_logged[0] = 1
    assert list(file.states) == [slot % 2 for slot in range(8000)]
    assert set(file.counts) == {1 << 60}
    for slot in range(0, 8000, 97):
        assert bytes(memoryview(file.map(slot, 4096).block())) == bytes([slot % 251]) * 4096


def test_only_what_is_reserved_is_memory_and_what_is_given_back_no_more():
    """The file is far larger than any memory."""
    file = SlotFile.made(8, 4)
    before = os.fstat(file._fd).st_blocks
    file.reserve(7, 1 << 20)
    assert os.fstat(file._fd).st_blocks - before == (1 << 20) // 512
    file.give_back(7)
    assert os.fstat(file._fd).st_blocks == before


def test_it_has_no_name_and_closes_its_descriptor():
    """It is nowhere in a folder, so that a killed process leaves none; and what goes leaves no open file."""
    opened = len(os.listdir("/proc/self/fd"))
    file = SlotFile.made(1, 1)
    other = file.another()
    assert os.readlink(f"/proc/self/fd/{file._fd}") == "/memfd:globidx-slots (deleted)"
    file.close()
    file.close()
    other.reserve(0, 4096)
    del file, other
    assert len(os.listdir("/proc/self/fd")) == opened


def test_a_batch_that_no_slot_can_hold_is_refused():
    """Rather than written over the next slot."""
    with pytest.raises(OSError, match="68719476737 bytes is larger than a slot can be"):
        SlotFile.made(1, 1).reserve(0, (1 << 36) + 1)


def test_sizes_are_whole_pages():
    """The least that is enough."""
    assert [rounded(size) for size in (1, 4095, 4096, 4097)] == [4096, 4096, 4096, 8192]


def test_more_memory_than_is_free_is_refused():
    """Before the kernel kills a process for it."""
    with pytest.raises(OSError, match=r"\d+ bytes are free"):
        SlotFile.made(1, 1).reserve(0, 1 << 36)
