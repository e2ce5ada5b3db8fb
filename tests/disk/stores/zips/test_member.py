"""Where the bytes of a member lie, and that all of it is what was written."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.files.blocks import BlockCache
from globidx.disk.stores.zips.member import Member, OpenedMember

STORED, DEFLATED = 0, 8


def laid(data, *, name="größe/0", extra=0, gap=0, method=STORED, front=7):
    """A member of ``data`` in a file, and the file from its first byte on."""
    packed = data if method == STORED else zlib.compress(data, wbits=-15)
    spelled = name.encode()
    head = b"PK\x03\x04" + bytes(22) + struct.pack("<HH", len(spelled), extra)
    file = bytes(front) + head + spelled + bytes(extra) + packed + bytes(gap)
    member = Member(name, front, len(file), -1, len(packed), len(data), zlib.crc32(data), method, 0)
    return member, file + b"PK\x01\x02"


class Raw:
    """An open file in memory."""

    packed, version = 0, 1

    def __init__(self, data):
        self.data, self.size, self.is_open = data, len(data), True

    def read(self, size, offset):
        return self.data[offset : offset + size]

    def close(self):
        self.is_open = False


@settings(max_examples=100)
@given(
    data=st.binary(min_size=1, max_size=80),
    name=st.sampled_from(["c/0/0", "größe"]),
    extra=st.sampled_from([0, 4, 255, 256, 257, 65_535]),
    gap=st.sampled_from([0, 12, 24, 90_000]),
    method=st.sampled_from([STORED, DEFLATED]),
    span=st.tuples(st.integers(0, 80), st.integers(0, 80)),
)
def test_a_member_is_read_by_its_header_whole_or_in_parts(data, name, extra, gap, method, span):
    """What is asked for always has all of it, and hardly more than where the next one begins."""
    member, file = laid(data, name=name, extra=extra, gap=gap, method=method)
    member.require_sound()
    start = member.begin(file[member.header : member.header + member.head])
    assert start + member.packed <= member.end() <= min(member.limit, start + member.packed + 2**16)
    assert member.end(extra) == start + member.packed
    raw = Raw(file)
    for inflated in (None, BlockCache(2**16)):
        opened = OpenedMember(raw, member, start, 1, inflated)
        for _ in range(2):
            size, offset = span
            assert opened.read(size, offset) == data[offset : offset + size]
            assert opened.read(len(data), 0) == data
    opened.close()
    assert not raw.is_open


@settings(max_examples=100)
@given(
    data=st.binary(min_size=1, max_size=80),
    method=st.sampled_from([STORED, DEFLATED]),
    place=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_a_bit_that_flipped_is_told(data, method, place, bit):
    """By the checksum, or by what inflates it."""
    member, file = laid(data, method=method)
    start = member.begin(file[member.header :])
    packed = bytearray(file[start : start + member.packed])
    packed[int(place * len(packed))] ^= 1 << bit
    try:
        assert member.unpacked(bytes(packed)) == data
    except (ValueError, zlib.error):
        return
    # a bit that stands for nothing in a deflated stream
    assert method == DEFLATED


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"flags": 1}, "is encrypted"),
        ({"method": 12}, "compressed by bzip2"),
        ({"method": 77}, "compressed by method 77"),
        ({"header": -1}, "claims bytes"),
        ({"packed": 10**6, "size": 10**6}, "claims bytes"),
        ({"size": 3}, "where 3 bytes belong"),
        ({"limit": 0}, "others begin at 0"),
    ],
)
def test_what_cannot_be_is_told_by_the_name(changes, told):
    """Before anything is read of it."""
    member, _ = laid(b"data")
    with pytest.raises(ValueError, match=f"member 'größe/0'.*{told}"):
        member._replace(**changes).require_sound()


def test_a_header_that_is_not_the_members_is_told():
    """None, another one's, or one so long that the bytes would lie over the next member."""
    member, file = laid(b"data", name="c/0")
    local = file[member.header :]
    for wrong in (b"", local[:20], b"x" + local[1:]):
        with pytest.raises(ValueError, match="there is no header of member 'c/0'"):
            member.begin(wrong)
    with pytest.raises(ValueError, match="is not that of member 'c/1'"):
        member._replace(name="c/1").begin(local)
    with pytest.raises(ValueError, match="others begin at"):
        member.begin(local[:28] + b"\1" + local[29:])
