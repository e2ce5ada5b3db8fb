"""A shard's index is verified once, kept where there is room, and read an entry at a time where there is none."""

from __future__ import annotations

import struct

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.zarr.shard_index import Extent, ShardIndexes

ENTRY = 16


class Shard:
    """A file with an index, and how many bytes were read of it in one call at most."""

    def __init__(self, places, *, before=7, flip=None):
        index = b"".join(struct.pack("<QQ", *place) for place in places)
        data = bytearray(before) + index + struct.pack("<I", google_crc32c.value(index))
        if flip is not None:
            data[before + flip] ^= 1
        self.data, self.extent = bytes(data), Extent(before, len(places), True)
        self.reads = []

    def read(self, size, offset):
        self.reads.append(size)
        return self.data[offset : offset + size]


places = st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1)


@given(places, st.sampled_from([0, 64, 2**20]), st.data())
def test_a_chunk_is_where_the_index_says_whether_that_is_kept_or_not(places, capacity, data):
    """As the list of pairs that was written, in any sequence of look-ups."""
    shard, indexes = Shard(places), ShardIndexes(BlockCache(capacity))
    for chunk in data.draw(st.lists(st.integers(0, len(places) - 1), max_size=8)):
        assert indexes.find("a", shard.extent, chunk, shard.read) == places[chunk]


@pytest.mark.parametrize("capacity", [0, 2**20])
def test_an_index_is_verified_once_and_not_again(capacity):
    """The second look-up reads an entry, or nothing; another version of the file, by its key, begins anew."""
    shard, indexes = Shard([(n, 1) for n in range(1000)]), ShardIndexes(BlockCache(capacity))
    assert indexes.find("a", shard.extent, 3, shard.read) == (3, 1)
    assert sum(shard.reads) >= 1000 * ENTRY + 4
    shard.reads.clear()
    assert indexes.find("a", shard.extent, 999, shard.read) == (999, 1)
    assert shard.reads == ([] if capacity else [ENTRY])
    shard.reads.clear()
    indexes.find("another version", shard.extent, 3, shard.read)
    assert sum(shard.reads) >= 1000 * ENTRY + 4


def test_an_index_that_is_not_kept_is_verified_piece_by_piece():
    """Of 4 MB no more than one is in memory at once."""
    shard = Shard([(n, 1) for n in range(2**18)])
    ShardIndexes(BlockCache(0)).find("a", shard.extent, 0, shard.read)
    assert max(shard.reads) <= 2**20


@pytest.mark.parametrize("capacity", [0, 2**20])
@pytest.mark.parametrize("flip", [0, 8000, 16_003])
def test_a_damaged_index_is_refused_each_time(capacity, flip):
    """Wherever the bit is, its checksum included; a refusal is not remembered as a success."""
    shard = Shard([(n, 1) for n in range(1000)], flip=flip)
    indexes = ShardIndexes(BlockCache(capacity))
    for _ in range(2):
        with pytest.raises(ValueError, match="its checksum is"):
            indexes.find("a", shard.extent, 3, shard.read)
