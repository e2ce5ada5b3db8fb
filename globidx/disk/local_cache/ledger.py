"""How full a cache folder is, and which entry goes next.

The folder is the truth: the size of an entry's file is what it takes, its time is when it was last
used. What is kept beside it saves looking at all entries for each one that must go: how many bytes
there are, a stack of those that will not be asked for soon, and a queue of the eighth that was used
longest ago, made by one look at all. It may be lost, and is made again.
"""

from __future__ import annotations

import os
import re
import struct
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, NamedTuple

from globidx.core.cached import cached_property
from globidx.disk.files.atomic import is_temporary, sweep, write_atomic

#: A file takes whole blocks of the file system.
_BLOCK = 4096
#: Bytes of all entries, and how many of the queue are gone.
_STATE = struct.Struct("<qq")
#: Name of an entry, and its time when it was put onto the stack or into the queue.
_VICTIM = struct.Struct("<32sq")
#: The part of all entries that one look at them puts into the queue, and how many at least.
_PART, _LEAST = 8, 64
#: To make room for one entry, all are looked at so many times at most.
_MOST_LOOKS = 32
_NAME = re.compile("[0-9a-f]{32}")
#: Entries that are read of the stack and the queue at once.
_AT_ONCE = 128
#: Bytes of the stack, of which the older half is dropped then.
_MOST_STACKED = 2**17 * _VICTIM.size
#: Files that a killed process was writing are removed when they are older than this, in ns.
_LITTER_NS = 600 * 10**9
#: Names of the folders among which entries are divided, by the first digits of their names.
FOLDERS = [f"{number:02x}" for number in range(256)]
#: The times of entries that will not be asked for soon are before this one, in 2001.
_NOT_SOON = 10**18


class Victim(NamedTuple):
    """An entry that may go, unless it was used since ``used``."""

    name: str
    used: int


def not_soon(now: int) -> int:
    """The time that marks an entry as one that will not be asked for soon; ``now`` in ns.

    The one marked last sorts first. So at the beginning of an epoch those that were marked in the
    epoch before, and will be asked for once more, go after those that this epoch has had.

    >>> not_soon(now=1_800_000_000 * 10**9) > not_soon(now=1_800_000_001 * 10**9)
    True
    """
    return _NOT_SOON - now // 8


def taken(size: int) -> int:
    """The bytes that a file of ``size`` takes on a disk.

    >>> taken(1), taken(4096), taken(4097)
    (4096, 4096, 8192)
    """
    return -(-size // _BLOCK) * _BLOCK


@dataclass(frozen=True)
class Ledger:
    """The ledger of the entries in ``folder``, for one user at a time: who holds its lock."""

    folder: Path

    def path(self, name: str) -> str:
        """The file of the entry ``name``."""
        return f"{self._chunks}/{name[:2]}/{name[2:]}"

    @cached_property
    def _chunks(self) -> str:
        # a path is spelled anew each time
        return f"{self.folder}/chunks"

    @property
    def nbytes(self) -> int:
        """The bytes that all entries take, or more."""
        return self._state()[0]

    def reserve(self, nbytes: int, bound: int) -> bool:
        """Count ``nbytes`` in, once what must go for them is removed; False where they find no room.

        Before they are written: if this process is killed meanwhile, too many bytes are counted
        until the next look at all entries, and never too few.
        """
        if nbytes > bound:
            return False
        with closing(self._victims()) as victims:
            while self.nbytes + nbytes > bound:
                victim = next(victims, None)
                if victim is None:
                    return False
                # another process may have used it since
                self.remove(victim.name, used=victim.used)
        self.add(nbytes)
        return True

    def add(self, nbytes: int) -> None:
        """Count bytes in, or out."""
        total, gone = self._state()
        self._save(max(0, total + nbytes), gone)

    def remove(self, name: str, *, used: int | None = None) -> None:
        """Remove an entry if it is there, and was not used since ``used``.

        What a damaged file names instead is left alone, wherever it leads.
        """
        if not _NAME.fullmatch(name):
            return
        path = self.path(name)
        with suppress(FileNotFoundError):
            status = os.stat(path)
            if used in (None, status.st_mtime_ns):
                os.unlink(path)
                self.add(-taken(status.st_size))

    def push(self, victims: Iterable[Victim]) -> None:
        """Put entries onto the stack of those that go next, the last of them first."""
        path = self.folder / "not_soon"
        with path.open("ab") as file:
            # what was cut, by a full disk or a kill, would shift all that follows
            file.truncate(file.tell() // _VICTIM.size * _VICTIM.size)
            file.write(b"".join(_VICTIM.pack(name.encode(), used) for name, used in victims))
            size = file.tell()
        if size > _MOST_STACKED:
            # those at the bottom still have the time that marks them
            kept = path.read_bytes()[size // _VICTIM.size // 2 * _VICTIM.size :]
            write_atomic(path, kept, durable=False)

    def recount(self) -> int:
        """Look at all entries: count their bytes, put the oldest into the queue, remove litter."""
        total, entries, youngest = 0, list[tuple[int, str]](), time.time_ns() - _LITTER_NS
        for name, file in self.entries():
            with suppress(FileNotFoundError):
                status = file.stat(follow_symlinks=False)
                if not is_temporary(file.name):
                    entries.append((status.st_mtime_ns, name))
                elif status.st_mtime_ns < youngest:
                    os.unlink(file.path)
                    continue
                total += taken(status.st_size)
        entries.sort(key=itemgetter(0))
        oldest = entries[: max(_LEAST, len(entries) // _PART)]
        queue = b"".join(_VICTIM.pack(name.encode(), used) for used, name in oldest)
        write_atomic(self.folder / "oldest", queue, durable=False)
        sweep(self.folder, older_than=_LITTER_NS / 1e9)
        # whatever it is, and however long
        (self.folder / "ledger").unlink(missing_ok=True)
        self._save(total, 0)
        return total

    def entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """The name and the file of each entry, and of what else lies among them."""
        for folder in FOLDERS:
            with suppress(FileNotFoundError), os.scandir(self.folder / "chunks" / folder) as listed:
                for file in listed:
                    yield folder + file.name, file

    def clear(self) -> int:
        """Remove all entries; how many that were."""
        removed = 0
        for _, file in self.entries():
            with suppress(FileNotFoundError):
                os.unlink(file.path)
                removed += not is_temporary(file.name)
        for name in ("oldest", "not_soon"):
            (self.folder / name).unlink(missing_ok=True)
        self._save(0, 0)
        return removed

    def _victims(self) -> Generator[Victim, None, None]:
        yield from self._stack()
        yield from self._queue()
        for _ in range(_MOST_LOOKS):
            self.recount()
            yield from self._queue()

    def _stack(self) -> Generator[Victim, None, None]:
        """Take entries from the stack."""
        with suppress(FileNotFoundError), (self.folder / "not_soon").open("r+b") as file:
            end = file.seek(0, os.SEEK_END) // _VICTIM.size
            while end:
                start = max(0, end - _AT_ONCE)
                for victim in reversed(_read(file, start, end)):
                    end -= 1
                    file.truncate(end * _VICTIM.size)
                    yield victim

    def _queue(self) -> Iterator[Victim]:
        """Take entries from the queue."""
        with suppress(FileNotFoundError), (self.folder / "oldest").open("rb") as file:
            end = file.seek(0, os.SEEK_END) // _VICTIM.size
            for start in range(self._state()[1], end, _AT_ONCE):
                block = _read(file, start, min(end, start + _AT_ONCE))
                for number, victim in enumerate(block, start):
                    self._save(self.nbytes, number + 1)
                    yield victim

    def _state(self) -> tuple[int, int]:
        with suppress(FileNotFoundError):
            data = (self.folder / "ledger").read_bytes()
            if len(data) == _STATE.size:
                total, gone = _STATE.unpack(data)
                if min(total, gone) >= 0:
                    return total, gone
        return self.recount(), 0

    def _save(self, total: int, gone: int) -> None:
        # in place: these bytes are written by one call, and have their blocks already
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / "ledger", flags, 0o666)
        try:
            os.pwrite(descriptor, _STATE.pack(total, gone), 0)
        finally:
            os.close(descriptor)


def _read(file: BinaryIO, start: int, end: int) -> list[Victim]:
    """Entries ``[start, end)`` of the stack or the queue."""
    file.seek(start * _VICTIM.size)
    data = file.read((end - start) * _VICTIM.size)
    return [Victim(name.decode("latin-1"), used) for name, used in _VICTIM.iter_unpack(data)]
