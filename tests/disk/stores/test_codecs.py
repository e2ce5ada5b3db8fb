"""A codec gives what was encoded, and stops where more comes than belongs there."""

from __future__ import annotations

import numcodecs
import numpy as np
import pytest

from globidx.disk.stores.codecs import codec_of


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
