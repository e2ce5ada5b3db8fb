"""Slots: places in shared memory in which batches travel, one after the other.

All slots of a loader lie in one file that has no name, so that nothing is left of it when the last
process ends, however it ends. Before them lies a page of one byte for each slot:

* a worker takes a slot that is free, fills it, and says so by 1;
* the main process says that it is free again by 0.

So at any time one process may write a byte, and no lock is needed, which a killed process would
never release.
"""

from __future__ import annotations

import os
from multiprocessing import reduction
from typing import Any

from globidx.disk.files.cgroup import free_memory
from globidx.torch.delivery.mapping import Mapping, give_back

FREE, TAKEN = 0, 1
#: How many slots a worker can have: no file is larger than 2**63 bytes, and each loop looks at all.
MOST = 1 << 16
#: Where each slot begins, in bytes: none is larger. Only what is used of it is memory.
_APART = 1 << 36
_PAGE = 4096
#: What is counted by worker: batches that came in slots, others, and the largest slot's bytes.
IN_SLOTS, OTHERWISE, LARGEST = range(3)
COUNTS = 3


class SlotFile:
    """The shared memory of ``workers * slots`` slots, in this process.

    It can be given to a process that starts, by any start method.

    Parameters
    ----------
    fd : int
        Its descriptor, which it closes.
    workers, slots : int
        Of how many workers, and how many slots each has.
    """

    def __init__(self, fd: int, workers: int, slots: int) -> None:
        self._fd, self.workers, self.slots = fd, workers, slots
        words = workers * COUNTS
        head = memoryview(Mapping(fd, 0, _head(workers, slots)).block()).cast("B")
        #: By worker, how many of what.
        self.counts = head[: 8 * words].cast("Q")
        #: The state of each slot.
        self.states = head[8 * words : 8 * words + workers * slots]
        #: One byte: whether it was logged that memory ran out.
        self.is_logged = head[-1:]

    @classmethod
    def made(cls, workers: int, slots: int) -> SlotFile:
        """Make a new one.

        Raises
        ------
        OSError
            If the system has no such files, or no memory.
        """
        # not in /dev/shm: containers give that 64 MiB, and a file in it has a name
        if not hasattr(os, "memfd_create"):
            raise OSError("the system has no memfd_create")
        fd = os.memfd_create("globidx-slots")
        try:
            os.ftruncate(fd, _APART * (1 + workers * slots))
            os.posix_fallocate(fd, 0, _head(workers, slots))
        except OSError:
            os.close(fd)
            raise
        return cls(fd, workers, slots)

    def another(self) -> SlotFile:
        """The same file by a descriptor of its own."""
        return SlotFile(os.dup(self._fd), self.workers, self.slots)

    def reserve(self, slot: int, size: int) -> None:
        """Take memory for a slot; OSError if there is none, where a write would end the process."""
        if size > _APART:
            raise OSError(f"a batch of {size} bytes is larger than a slot can be")
        # the kernel would rather kill a process of the control group than refuse
        if size > (free := free_memory()):
            raise OSError(f"{free} bytes are free")
        os.posix_fallocate(self._fd, _APART * (1 + slot), size)

    def map(self, slot: int, size: int) -> Mapping:
        """The first ``size`` bytes of a slot, which were reserved."""
        return Mapping(self._fd, _APART * (1 + slot), size)

    def give_back(self, slot: int) -> None:
        """Free the memory of a slot that nobody uses any more."""
        give_back(self._fd, _APART * (1 + slot), _APART)

    def close(self) -> None:
        """Close the descriptor; what is mapped stays."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            self.close()

    def __reduce__(self) -> Any:
        return _arrived, (reduction.DupFd(self._fd), self.workers, self.slots)


def _head(workers: int, slots: int) -> int:
    """How many bytes lie before the slots."""
    used = 8 * COUNTS * workers + workers * slots + 1
    return used + -used % _PAGE


def _arrived(descriptor: Any, workers: int, slots: int) -> SlotFile:
    return SlotFile(descriptor.detach(), workers, slots)


def rounded(size: int) -> int:
    """``size`` in whole pages.

    >>> rounded(1), rounded(8192)
    (4096, 8192)
    """
    return size + -size % _PAGE
