"""CRC-32C, by a package that is imported on use: it gives a free-threaded Python its GIL back."""

from __future__ import annotations

from functools import cache
from typing import Any

from globidx.disk.files import forks


@cache
def crc32c() -> Any:
    """The package.

    >>> hex(crc32c().value(b"123456789"))
    '0xe3069283'
    """
    return forks.import_module("google_crc32c")
