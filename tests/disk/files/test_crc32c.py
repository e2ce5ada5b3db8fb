"""The checksum is the one that zarr's codec of that name has."""

from __future__ import annotations

import numcodecs
from files import run_python

from globidx.disk.files.crc32c import crc32c


def test_the_checksum_is_that_of_zarrs_codec():
    """The codec puts it behind the bytes, little-endian."""
    data = bytes(range(256))
    stored = bytes(numcodecs.CRC32C(location="end").encode(data))
    assert stored[-4:] == crc32c().value(data).to_bytes(4, "little")


IMPORTS = """
import sys
import globidx.disk.local_cache.folder, globidx.disk.stores.codecs
from globidx.disk.files.crc32c import crc32c
before = "google_crc32c" in sys.modules
crc32c()
print(before, "google_crc32c" in sys.modules)
"""


def test_the_package_is_imported_on_use():
    """Nothing that only might need it turns a GIL on."""
    assert run_python(IMPORTS).stdout == "False True\n"
