"""A part of a file in the memory of this process, for as long as anybody uses it.

Python's ``mmap`` keeps a descriptor of the file for each mapping, and cannot be told where to map;
so the C library is called.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_mmap, _munmap, _fallocate = _libc.mmap, _libc.munmap, _libc.fallocate
_mmap.restype = ctypes.c_void_p
_mmap.argtypes = (
    *(ctypes.c_void_p, ctypes.c_size_t),
    *(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64),
)
_munmap.argtypes = ctypes.c_void_p, ctypes.c_size_t
_fallocate.argtypes = ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64

_FAILED = ctypes.c_void_p(-1).value
_READ_WRITE = mmap.PROT_READ | mmap.PROT_WRITE
# constants of Linux that Python does not have
_MAP_FIXED = 0x10
_KEEP_SIZE, _PUNCH_HOLE = 1, 2


class Mapping:
    """``size`` bytes of a file from ``offset``, which other processes see when they are written.

    Every block of it keeps it alive.

    Raises
    ------
    OSError
        If there is no address space.
    """

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self.size = size
        # faulted in here at once, and not page by page when a batch is copied
        self.address = _mapped(None, size, mmap.MAP_SHARED | mmap.MAP_POPULATE, fd, offset)
        #: Called with the address before it is given back.
        self.on_unmap: Callable[[int], None] | None = None
        # ctypes takes long to make a type
        self._block = ctypes.c_ubyte * size

    def block(self) -> Any:
        """A new object with the buffer of all of it: what is made over that keeps it alive."""
        block = self._block.from_address(self.address)
        block.mapping = self  # type: ignore[attr-defined]
        return block

    def make_private(self) -> None:
        """Put a copy of the bytes, which only this process has, at the same address."""
        self.on_unmap = None
        content = ctypes.string_at(self.address, self.size)
        anonymous = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        _mapped(self.address, self.size, anonymous | _MAP_FIXED, -1, 0)
        ctypes.memmove(self.address, content, self.size)

    # the function as a default: names of a module are gone when the interpreter ends
    def __del__(self, unmap: Callable[[int, int], int] = _munmap) -> None:
        # it could not be mapped
        if not hasattr(self, "address"):
            return
        if self.on_unmap is not None:
            self.on_unmap(self.address)
        unmap(self.address, self.size)


def give_back(fd: int, offset: int, size: int) -> None:
    """Free the memory of a part of a file that is nothing but memory; it then reads as zeros."""
    _fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, offset, size)


def _mapped(address: int | None, size: int, flags: int, fd: int, offset: int) -> int:
    got = _mmap(address, size, _READ_WRITE, flags, fd, offset)
    if got == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"cannot map {size} bytes of shared memory: {os.strerror(number)}")
    return int(got)
