"""Parts of files in memory, which live as long as they are used."""

import gc
import os

import numpy as np
import pytest
import torch

from globidx.torch.delivery.mapping import Mapping, give_back

PAGE = 4096


@pytest.fixture
def fd():
    """A file that is nothing but memory, of 8 pages."""
    fd = os.memfd_create("test")
    os.ftruncate(fd, 8 * PAGE)
    yield fd
    os.close(fd)


def mapped_parts():
    """How many parts of such a file this process has mapped."""
    with open("/proc/self/maps") as lines:
        return sum("memfd:test" in line for line in lines)


def test_two_mappings_of_a_place_are_the_same_bytes(fd):
    """Shared memory: what one writes, the other reads, and so does whoever reads the file."""
    one, other = Mapping(fd, PAGE, 2 * PAGE), Mapping(fd, 2 * PAGE, PAGE)
    memoryview(one.block()).cast("B")[PAGE] = 7
    assert memoryview(other.block()).cast("B")[0] == os.pread(fd, 1, 2 * PAGE)[0] == 7


def test_it_is_mapped_as_long_as_a_block_or_what_is_made_over_one_lives(fd):
    """A view of a tensor over it is enough; afterwards the addresses are free again."""
    block = Mapping(fd, 0, PAGE).block()
    view = torch.frombuffer(block, dtype=torch.int64, count=8)[2:]
    del block
    gc.collect()
    assert mapped_parts() == 1
    assert view.tolist() == [0] * 6
    del view
    assert mapped_parts() == 0


def test_what_is_to_be_done_before_it_is_unmapped_is_done_then(fd):
    """With the address, while it is still mapped."""
    mapping, seen = Mapping(fd, 0, PAGE), []
    mapping.on_unmap = lambda address: seen.append((address, mapped_parts()))
    address = mapping.address
    del mapping
    assert seen == [(address, 1)]


def test_a_private_copy_stays_where_it_is_and_sees_no_change(fd):
    """Arrays over it keep their address and bits, whatever is written to the file."""
    mapping = Mapping(fd, 0, 2 * PAGE)
    array = np.frombuffer(mapping.block(), np.uint8)
    array[:] = 3
    mapping.make_private()
    os.pwrite(fd, b"\5" * PAGE, 0)
    assert (array == 3).all()
    array[:] = 4
    assert os.pread(fd, 1, 0) == b"\5"


def test_what_is_given_back_is_no_memory_any_more(fd):
    """The file keeps its size, and reads as zeros there alone."""
    os.pwrite(fd, b"\1" * 8 * PAGE, 0)
    used = os.fstat(fd).st_blocks
    give_back(fd, PAGE, 6 * PAGE)
    assert os.fstat(fd).st_blocks == used // 4
    assert os.fstat(fd).st_size == 8 * PAGE
    assert os.pread(fd, 8 * PAGE, 0).count(1) == 2 * PAGE


def test_what_cannot_be_mapped_is_an_error_that_says_so(fd):
    """And nothing is unmapped for it."""
    with pytest.raises(OSError, match="cannot map 17592186044416 bytes of shared memory"):
        Mapping(-1, 0, 1 << 44)
