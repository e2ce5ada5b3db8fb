"""A chunk of Zstandard frames is what its frames hold together, in bounded memory."""

from __future__ import annotations

import gzip

import numcodecs
import numpy as np
import pytest
import zarr
from fastpaths import check
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.disk.stores.codecs import codec_of, decode


def without_size(frame):
    """A Zstandard frame of numcodecs', less what its header says it holds (RFC 8878, 3.1.1.1)."""
    descriptor = frame[4]
    single, flag = descriptor >> 5 & 1, descriptor >> 6
    width = (single, 2, 4, 8)[flag]
    # a single segment has no window in its header: one of 128 MiB is put there, which holds anything
    window = b"\x88" if single else frame[5:6]
    return frame[:4] + bytes([descriptor & 0b00011111]) + window + frame[6 - single + width :]


SKIPPABLE = b"\x53\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"


@settings(max_examples=150)
@given(
    parts=st.lists(st.integers(0, 3000), min_size=1, max_size=4),
    unsaid=st.lists(st.booleans(), min_size=4, max_size=4),
    skips=st.lists(st.booleans(), min_size=5, max_size=5),
    checksum=st.booleans(),
    gzipped=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_a_chunk_of_frames_is_what_its_frames_hold(parts, unsaid, skips, checksum, gzipped, seed):
    """With sizes in their headers and without, skippable ones between, one of nothing: as the data are, or zarr's."""
    data = np.random.default_rng(seed).integers(1, 9, sum(parts)).astype("u1")
    codec, stored, place = numcodecs.Zstd(1, checksum=checksum), b"", 0
    for size, says_nothing, skip in zip(parts, unsaid, skips, strict=False):
        frame = bytes(codec.encode(data[place : place + size].tobytes()))
        stored += SKIPPABLE * skip + (without_size(frame) if says_nothing and size else frame)
        place += size
    stored += SKIPPABLE * skips[-1]
    decoder = codec_of("zstd", {})
    assert bytes(decoder.expand(stored, len(data))) == data.tobytes()
    out = np.empty(len(data), "u1")
    if len(data):
        chain = [decoder, codec_of("gzip", {})] if gzipped else [decoder]
        decode(chain, gzip.compress(stored) if gzipped else stored, out)
        np.testing.assert_array_equal(out, data)
        for wrong in (len(data) - 1, len(data) + 1):
            with pytest.raises((ValueError, RuntimeError)):
                decode([decoder], stored, np.empty(wrong, "u1"))


def test_two_frames_are_read_as_zarr_reads_them(tmp_path):
    """As pzstd writes chunks."""
    data, codec = np.arange(1, 4001, dtype="i4").reshape(40, 100), numcodecs.Zstd()
    zarr.create_array(
        tmp_path / "a", data=data, chunks=data.shape, compressors=zarr.codecs.ZstdCodec()
    )
    raw = data.tobytes()
    (tmp_path / "a/c/0/0").write_bytes(
        bytes(codec.encode(raw[:8000])) + bytes(codec.encode(raw[8000:]))
    )
    check(tmp_path / "a", data, 0)
