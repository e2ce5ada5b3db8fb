"""Memory that processes of one user share, and that the kernel frees with the last of them.

It has no name in any file system, so that there is nothing to sweep: not after ``kill -9``, nor when
all are killed at once. Others find it among the open files of processes that have it, and open it
from there (``/proc/PID/fd``), which the kernel allows to the same user alone.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
import socket
import stat
import struct
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from globidx.disk.files import forks
from globidx.disk.files.cgroup import free_memory
from globidx.disk.files.lock import taken_within

_PREFIX = "globidx-"
#: Whoever makes the memory holds the turn for as long as that takes, 0.25 s a GiB: others wait for
#: so long, and for so long more a GiB.
_TURN_SECONDS, _TURN_SECONDS_A_GIB = 10.0, 1.0
#: Between two looks at a socket that is bound and not listening yet, in seconds.
_LOOK_SECONDS = 2e-3


class Memory:
    """Shared memory as this process has it: ``buffer``, and locks over places that are none of it.

    The kernel releases a lock with its holder, however that ends. Threads of a process hold one
    together; ``apart`` opens the memory for a lock of its own.
    """

    def __init__(self, descriptor: int) -> None:
        size = os.fstat(descriptor).st_size
        # by another descriptor: that of a mapping cannot be closed in a child that was forked
        mapped = _opened_again(descriptor)
        try:
            self.buffer = mmap.mmap(mapped, size)
        finally:
            os.close(mapped)
        self._descriptor = descriptor
        self._opening, self._apart = threading.Lock(), set[int]()
        self._close = weakref.finalize(self, os.close, descriptor)

    def close(self) -> None:
        """Leave it; the mapping goes with the last view of it."""
        # a thread that opens it again would otherwise get another file under its number
        with self._opening:
            self._close()

    def leave_to_parent(self) -> None:
        """In a forked child: close what would go on to hold the parent's locks when that is killed."""
        self._close()
        for descriptor in self._apart:
            with suppress(OSError):
                os.close(descriptor)

    def try_lock(self, place: int, *, seconds: float, shared: bool = False) -> bool:
        """Take the lock at a place, waiting at most so long; whether it was had."""
        return _try_lock(self._descriptor, place, seconds, shared=shared)

    def unlock(self, place: int) -> None:
        """Give the lock back."""
        _set_lock(self._descriptor, fcntl.F_UNLCK, place)

    def is_locked_elsewhere(self, place: int) -> bool:
        """Whether somebody holds the lock, who is not this object."""
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, place, 1, 0)
        answer = fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, asked)
        kind: int = struct.unpack(_FLOCK, answer)[0]
        return kind != fcntl.F_UNLCK

    @contextmanager
    def apart(self, place: int, *, seconds: float) -> Iterator[bool]:
        """Hold the lock at a place against everybody, other threads included; yields whether it was had."""
        own = self._opened_apart()
        if own is None:
            yield False
            return
        try:
            had = _try_lock(own, place, seconds)
            try:
                yield had
            finally:
                # a child that was forked meanwhile has the descriptor, and with it the lock
                if had:
                    _set_lock(own, fcntl.F_UNLCK, place)
        finally:
            self._apart.discard(own)
            os.close(own)

    def _opened_apart(self) -> int | None:
        with self._opening, suppress(OSError):
            if self._close.alive:
                own = _opened_again(self._descriptor)
                self._apart.add(own)
                return own
        return None


def attach(name: str, nbytes: int, prepare: Callable[[mmap.mmap], object]) -> Memory:
    """The memory of that name, of ``nbytes`` bytes; made, all zeros, and prepared if nobody has it.

    OSError where it cannot be had, saying why.
    """
    label = label_of(name)
    try:
        # a child would have what is half made, and keep others waiting
        with forks.held_off(), _turn(label, _TURN_SECONDS + _TURN_SECONDS_A_GIB * nbytes / 2**30):
            descriptor = _found(label, nbytes)
            if descriptor is not None:
                return Memory(descriptor)
            memory = Memory(_made(label, nbytes))
            prepare(memory.buffer)
            return memory
    except AttributeError as error:
        raise OSError(f"this Python has no {error.name}") from None


def label_of(name: str) -> str:
    """A name of any length, as the kernel shows it."""
    return hashlib.blake2b(os.fsencode(name), digest_size=12).hexdigest()


@contextmanager
def _turn(label: str, seconds: float = _TURN_SECONDS) -> Iterator[None]:
    """One process at a time, also where one is killed in its turn.

    By a socket's name in the abstract namespace, which goes with the socket.
    """
    address, deadline = f"\0{_PREFIX}{os.geteuid()}-{label}", time.monotonic() + seconds
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as turn:
        while True:
            try:
                turn.bind(address)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if deadline < time.monotonic():
                    raise OSError(f"its turn did not come within {seconds:.3g} seconds") from None
                _await_end(address, deadline)
            else:
                break
        turn.listen(128)
        yield


def _await_end(address: str, deadline: float) -> None:
    """Wait until the socket at ``address`` is closed, or the deadline; OSError if it is another user's."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as waiting:
        waiting.settimeout(max(_LOOK_SECONDS, deadline - time.monotonic()))
        try:
            waiting.connect(address)
        except OSError:
            # closed meanwhile, or bound and not listening yet
            time.sleep(_LOOK_SECONDS)
            return
        credentials = waiting.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        process, user, _ = struct.unpack("3i", credentials)
        if user != os.geteuid():
            raise OSError(f"user {user} holds its name, by process {process}")
        # nobody sends: it ends with the other side
        with suppress(OSError):
            waiting.recv(1)


def _found(label: str, nbytes: int) -> int | None:
    """The memory as another process has it."""
    link = f"/memfd:{_PREFIX}{label} (deleted)"
    # first those that have it most likely
    near = [str(os.getpid()), str(os.getppid())]
    others = [name for name in os.listdir("/proc") if name.isdigit() and name not in near]
    for process in [*near, *others]:
        with suppress(OSError):
            for number in os.listdir(f"/proc/{process}/fd"):
                path = f"/proc/{process}/fd/{number}"
                # a descriptor may be closed at any moment, and its number be another file's
                with suppress(OSError):
                    if os.readlink(path) == link and _is_ours(os.stat(path), nbytes):
                        return _checked(path, nbytes)
    return None


def _checked(path: str, nbytes: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    if not _is_ours(os.fstat(descriptor), nbytes):
        os.close(descriptor)
        raise OSError("it is no longer the same file")
    return descriptor


def _is_ours(status: os.stat_result, nbytes: int) -> bool:
    """Whether it is memory that this user made, for this user alone, and of the right size."""
    return (
        stat.S_ISREG(status.st_mode)
        and stat.S_IMODE(status.st_mode) == 0o600
        and status.st_uid == os.geteuid()
        and status.st_size == nbytes
    )


def _made(label: str, nbytes: int) -> int:
    """New memory, all of it reserved: what is not there is an error now, and no signal later."""
    free = free_memory()
    if nbytes > free:
        raise OSError(f"it takes {nbytes} bytes, and {free} are free")
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    descriptor = os.memfd_create(_PREFIX + label, flags)
    try:
        os.fchmod(descriptor, 0o600)
        os.posix_fallocate(descriptor, 0, nbytes)
        # a mapping of what another process cut off would end this one by a signal
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


#: The ``struct flock`` of Linux on 64 bits: type, whence, start, length, process.
_FLOCK = "hhqqi4x"


def _opened_again(descriptor: int) -> int:
    """Another open file description: locks belong to these, and children that are forked share them."""
    return os.open(f"/proc/self/fd/{descriptor}", os.O_RDWR | os.O_CLOEXEC)


def _set_lock(descriptor: int, kind: int, place: int) -> None:
    asked = struct.pack(_FLOCK, kind, os.SEEK_SET, place, 1, 0)
    fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, asked)


def _try_lock(descriptor: int, place: int, seconds: float, *, shared: bool = False) -> bool:
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK

    def take() -> bool:
        try:
            _set_lock(descriptor, kind, place)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    try:
        return taken_within(seconds, take)
    except OSError:
        return False
