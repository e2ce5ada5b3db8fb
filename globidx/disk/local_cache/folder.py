"""A bounded cache on local disk for bytes of remote objects, shared by the processes of a node."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from globidx.core import validate
from globidx.disk.files.atomic import is_temporary, make_directory, write_atomic
from globidx.disk.files.exclusive import Exclusive
from globidx.disk.files.paths import is_remote
from globidx.disk.local_cache import entry
from globidx.disk.local_cache.entry import DamagedError, Identity, Kept
from globidx.disk.local_cache.ledger import FOLDERS, Ledger, Victim, not_soon, taken
from globidx.disk.remote.objects import Found

_log = logging.getLogger("globidx")
#: The file that says that a folder is such a cache, and its bound.
_MARKER = "globidx-cache.json"
_VERSION = 1
#: The file that says when there was the last refresh, in ns.
_REFRESHED = "refreshed"
_OWN = {_MARKER, _REFRESHED, "chunks", "ledger", "lock", "not_soon", "oldest"}
#: How long a process waits for others that write, in seconds, before it goes on without.
_PATIENCE = 1.0
#: Beyond this part of the bound, it matters which entry goes next.
_TIGHT = 0.8


class Info(NamedTuple):
    """What a cache holds: by URL, how many entries, and how many bytes these take."""

    entries: Counter[str]
    nbytes: Counter[str]


class LocalCache:
    """Entries in a folder, which take at most ``nbytes`` there; the least recently used go first.

    All processes of a machine may use it at once. What is read does not depend on their locks: an
    entry is written beside and renamed, and is checked when it is read. What cannot be written is
    not kept, with one line in the log, and reading goes on.

    Parameters
    ----------
    path : str or Path
        The folder, on a disk of this machine. It is made if it is not there.
    nbytes : int, optional
        The bound. By default the one that the folder has had; of a new one, half of what is free on
        its disk.
    clock : callable
        The time in ns.

    Raises
    ------
    ValueError
        The folder holds something else.
    OSError
        It cannot be made.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> folder = TemporaryDirectory()
    >>> cache = LocalCache(folder.name, 2**20)
    >>> chunk = Identity("s3://bucket/a.zarr", "c/0/0")
    >>> cache.put(chunk, Found(b"bytes", 5, "etag"))
    >>> cache.get(chunk).found
    Found(data=b'bytes', size=5, version='etag')
    >>> folder.cleanup()
    """

    def __init__(
        self,
        path: str | Path,
        nbytes: int | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.path = Path(path).absolute()
        self._clock = clock
        self._ledger = Ledger(self.path)
        self._lock = Exclusive(self.path / "lock")
        self._patience, self._is_writing = _PATIENCE, True
        self.bound = self._opened(nbytes)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.bound)

    @classmethod
    def existing(cls, path: str | Path) -> LocalCache:
        """The cache in a folder; ValueError where there is none."""
        if not (Path(path) / _MARKER).is_file():
            raise ValueError(f"{path} is no cache of globidx: it has no {_MARKER}")
        return cls(path)

    @property
    def nbytes(self) -> int:
        """The bytes that its entries take, or somewhat more; 0 where the folder is gone."""
        with suppress(OSError):
            return self._ledger.nbytes
        return 0

    @property
    def is_tight(self) -> bool:
        """Whether there is little room left, so that entries go."""
        return self.nbytes > self.bound * _TIGHT

    @property
    def refreshed(self) -> int:
        """When one of those that use it has refreshed its index last, in ns; 0 if none has."""
        noted = self._noted_refresh()
        # nothing counts by a note that is damaged, or of a clock that was ahead
        return self._clock() if noted is None else noted

    def note_refresh(self, moment: int) -> None:
        """Let those that come later know of a refresh of that moment, in ns."""
        noted = self._noted_refresh()
        if noted is not None and noted >= moment:
            return
        with suppress(OSError), self._held():
            # of two at the same time the later one counts; what nobody can know was just now
            noted = self._noted_refresh()
            moment = self._clock() if noted is None else max(noted, moment)
            write_atomic(self.path / _REFRESHED, str(moment).encode())

    def has(self, identity: Identity) -> bool:
        """Whether there is an entry, whole or damaged."""
        return os.path.exists(self._ledger.path(identity.name))

    def asked(self, identity: Identity) -> int | None:
        """When the server last told the version of an entry, which is not checked; None without one."""
        with suppress(OSError, DamagedError):
            return entry.asked_of(self._ledger.path(identity.name))
        return None

    def get(self, identity: Identity, part: tuple[int, int] | None = None) -> Kept | None:
        """An entry, or a part of its data; None where there is none.

        One that is damaged is removed, and is none.
        """
        name = identity.name
        try:
            return entry.read(self._ledger.path(name), identity, part, now=self._clock())
        except FileNotFoundError:
            return None
        except DamagedError as error:
            _log.warning("entry %s of the cache %s is dropped: %s", name, self.path, error)
            self._drop(name)
            return None
        except OSError as error:
            _log.warning("entry %s of the cache %s cannot be read: %s", name, self.path, error)
            return None

    def put(self, identity: Identity, found: Found, asked: int | None = None) -> None:
        """Keep what was asked for then, or just now, under its version, unless it finds no room."""
        if not self._is_writing:
            return
        try:
            with self._held() as held:
                if held:
                    self._write(identity._replace(version=found.version), found, asked)
        except OSError as error:
            # full, or read-only: to try each time would cost time, and lines in the log
            self._is_writing = False
            _log.warning(
                "this process keeps nothing more in the cache %s, and reads on without: %s",
                self.path,
                error,
            )

    def confirm(self, identity: Identity, asked: int) -> bool:
        """Note that the server was asked then, and had the version of this entry still; whether it could be."""
        path = self._ledger.path(identity.name)
        try:
            entry.set_asked(path, asked)
        except OSError:
            return False
        return self._touch(path, self._clock())

    def drop(self, identity: Identity) -> bool:
        """Remove an entry; whether there is none now."""
        if self.has(identity):
            self._drop(identity.name)
        return not self.has(identity)

    def forget(self, identities: Iterable[Identity]) -> None:
        """Let entries go first when there is need for room: they will not be asked for soon.

        They stay until then, and one that is asked for after all counts as used again.
        """
        mark, marked = not_soon(self._clock()), list[Victim]()
        for name in (identity.name for identity in identities):
            if self._touch(self._ledger.path(name), mark):
                marked.append(Victim(name, mark))
        with suppress(OSError), self._held() as held:
            if held and marked:
                self._ledger.push(marked)

    def info(self) -> Info:
        """What it holds, looked at one by one."""
        info = Info(Counter(), Counter())
        for _, file in self._entries():
            with suppress(OSError, DamagedError):
                url = entry.identity_of(file.path).url
                info.entries[url] += 1
                info.nbytes[url] += taken(file.stat().st_size)
        return info

    def verify(self) -> Iterator[tuple[str, str]]:
        """Read all entries; for each its name, and what is wrong with it, if anything is."""
        for name, file in self._entries():
            try:
                kept = entry.read(file.path)
                yield name, "" if kept.identity.name == name else "it has the name of another one"
            except FileNotFoundError:
                continue
            except (DamagedError, OSError) as error:
                yield name, str(error)

    def clear(self) -> int:
        """Remove all entries; how many. OSError where others keep it locked, or one cannot go."""
        with self._lock.hold(timeout=30 * _PATIENCE) as held:
            if not held:
                raise OSError(f"{self.path} is in use: another process writes to it all the time")
            return self._ledger.clear()

    def _entries(self) -> Iterator[tuple[str, os.DirEntry[str]]]:
        return (pair for pair in self._ledger.entries() if not is_temporary(pair[1].name))

    def _noted_refresh(self) -> int | None:
        """The refresh that is noted, 0 without one; None for what cannot be."""
        try:
            noted = int((self.path / _REFRESHED).read_bytes())
        except FileNotFoundError:
            return 0
        except (OSError, ValueError):
            return None
        return noted if 0 <= noted <= self._clock() else None

    def _write(self, identity: Identity, found: Found, asked: int | None) -> None:
        now = self._clock()
        parts = entry.encode(identity, found, now if asked is None else asked)
        path = Path(self._ledger.path(identity.name))
        size = taken(sum(map(len, parts)))
        if not self._ledger.reserve(size, self.bound):
            return
        # after the reservation, for which it may have been removed
        before = taken(path.stat().st_size) if path.exists() else 0
        try:
            # not durable: after a power cut, the checksum tells what is whole
            write_atomic(path, *parts, durable=False)
        except BaseException:
            self._ledger.add(-size)
            raise
        self._touch(path, now)
        self._ledger.add(-before)

    def _drop(self, name: str) -> None:
        with suppress(OSError), self._held() as held:
            if held:
                self._ledger.remove(name)

    @contextmanager
    def _held(self) -> Iterator[bool]:
        with self._lock.hold(timeout=self._patience) as held:
            # whoever holds it, stopped or looking at a million entries, is waited for once
            self._patience = _PATIENCE if held else 0.0
            yield held

    @staticmethod
    def _touch(path: str | Path, time_ns: int) -> bool:
        try:
            os.utime(path, ns=(time_ns, time_ns))
        except OSError:
            # gone, or another user's
            return False
        return True

    def _opened(self, nbytes: int | None) -> int:
        """Make the folder, or see to it that it is a cache; its bound."""
        make_directory(self.path)
        marker = self.path / _MARKER
        told = _told(marker)
        if told is None:
            self._refuse_others()
            for folder in FOLDERS:
                (self.path / "chunks" / folder).mkdir(parents=True, exist_ok=True)
        bound = nbytes or told or _half_of_free(self.path)
        if bound != told:
            try:
                write_atomic(marker, _marker(bound), durable=False)
            except OSError:
                if told is None:
                    raise
                # another user's: this process keeps to its bound
        return bound

    def _refuse_others(self) -> None:
        others = {
            name for name in os.listdir(self.path) if name not in _OWN and not is_temporary(name)
        }
        if others:
            raise ValueError(
                f"{self.path} holds other things than a cache, {min(others)!r} among them; "
                "give an empty folder, or one that is not there yet"
            )


def cache_of(path: str | PathLike[str] | None, nbytes: int | None) -> LocalCache | None:
    """The cache that the arguments ``local_cache`` and ``local_bytes`` name, if they name one."""
    if path is None and nbytes is not None:
        raise ValueError(
            f"local_bytes is the bound of a local_cache, and there is none; got {nbytes!r}"
        )
    if path is None:
        return None
    if not isinstance(path, (str, PathLike)) or is_remote(os.fspath(path)):
        raise TypeError(f"local_cache must be a folder on a disk of this machine, got {path!r}")
    bound = None if nbytes is None else validate.integer(nbytes, "local_bytes", low=1)
    return LocalCache(os.fspath(path), bound)


def _marker(bound: int) -> bytes:
    return json.dumps({"format": "globidx cache", "version": _VERSION, "bytes": bound}).encode()


def _told(marker: Path) -> int | None:
    """The bound in a marker; None where there is no marker, ValueError for one of another kind."""
    try:
        told = json.loads(marker.read_bytes())
        version, bound = told["version"], told["bytes"]
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        raise ValueError(
            f"{marker} is no marker of a cache: remove the folder, or give another one"
        ) from None
    if version != _VERSION or not isinstance(bound, int) or bound < 1:
        raise ValueError(
            f"{marker} is of version {version!r}, and this globidx knows {_VERSION}; give another folder"
        )
    return bound


def _half_of_free(path: Path) -> int:
    status = os.statvfs(path)
    return max(1, status.f_bavail * status.f_frsize // 2)
