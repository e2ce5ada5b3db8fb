"""A codec gives what was encoded, and stops where more comes than belongs there."""

from __future__ import annotations

import gzip
import zlib

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.stores import codecs
from globidx.disk.stores.codecs import _inflate_by_pieces as by_streams
from globidx.disk.stores.codecs import codec_of, inflate_into, inflates_by


@pytest.mark.parametrize("name", ["gzip", "zlib", "bz2", "lzma", "zstd", "lz4", "blosc", "crc32c"])
@pytest.mark.parametrize("size", [0, 1, 5, 4096])
def test_every_codec_stops_behind_its_limit(name, size):
    """One byte less than there is, is an error; exactly as many are given."""
    made = {
        "gzip": numcodecs.GZip(1),
        "zlib": numcodecs.Zlib(1),
        "bz2": numcodecs.BZ2(1),
        "zstd": numcodecs.Zstd(1),
    }
    made |= {"lzma": numcodecs.LZMA(preset=1), "lz4": numcodecs.LZ4(), "blosc": numcodecs.Blosc()}
    made |= {"crc32c": numcodecs.CRC32C()}
    data = np.arange(size).astype("u1").tobytes()
    if not data and name in ("zstd", "lz4", "blosc"):
        pytest.skip("numcodecs encodes nothing of nothing")
    stored, codec = bytes(made[name].encode(data)), codec_of(name, {})
    assert bytes(codec.expand(stored, size)) == data
    if size:
        with pytest.raises(ValueError, match="where|claims"):
            codec.expand(stored, size - 1)


@given(st.binary(max_size=3000), st.integers(0, 3000), st.data())
@settings(max_examples=200, deadline=None)
def test_libdeflate_and_streams_give_the_same_or_refuse_the_same(data, room, drawn):
    """Whole, cut, damaged and lengthened streams, of either header, into buffers of any size."""
    pytest.importorskip("deflate")
    stored = bytearray(drawn.draw(st.sampled_from([zlib.compress, gzip.compress]))(data))
    kind = drawn.draw(st.sampled_from(["whole", "cut", "damaged", "longer"]))
    if kind == "cut":
        del stored[drawn.draw(st.integers(0, len(stored) - 1)) :]
    elif kind == "damaged":
        stored[drawn.draw(st.integers(0, len(stored) - 1))] ^= 1 << drawn.draw(st.integers(0, 7))
    elif kind == "longer":
        stored += drawn.draw(st.binary(min_size=1, max_size=9))
    room = drawn.draw(st.sampled_from([len(data), room]))
    by_either = [inflated(way, bytes(stored), room) for way in (inflate_into, by_streams)]
    assert by_either[0] == by_either[1]
    if kind == "whole":
        assert by_either[0] == (data if room == len(data) else None)


def test_libdeflate_is_what_inflates_where_it_is_installed(monkeypatch):
    """Streams are asked for what libdeflate refuses, and for nothing else."""
    pytest.importorskip("deflate")
    assert inflates_by() == "libdeflate"
    monkeypatch.setattr(codecs, "_inflate_by_pieces", None)
    assert inflated(inflate_into, zlib.compress(b"abc"), 3) == b"abc"


def inflated(way, stored, room):
    """What comes out; None where it is refused, as what is damaged is."""
    out = np.zeros(room, "u1")
    try:
        way(stored, out)
    except ValueError:
        return None
    return out.tobytes()
