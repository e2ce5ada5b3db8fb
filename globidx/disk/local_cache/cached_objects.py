"""Objects whose bytes are kept on local disk, and are asked for once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from globidx.disk.files import forks
from globidx.disk.local_cache.entry import ABOUT, ABSENT, Identity, Kept
from globidx.disk.local_cache.folder import LocalCache
from globidx.disk.remote.ahead import Wish
from globidx.disk.remote.objects import Found, Objects, OutageError, Piece
from globidx.errors import ReadError

_log = logging.getLogger("globidx")
#: How long the version of an object counts without asking for it again, in ns: a day.
COUNTS_FOR = 86_400 * 10**9
#: Of so many objects at most a process remembers what is known of them.
_MOST_KNOWN = 2**16
#: How long a server is left alone that could not be reached, in ns.
_PAUSE = 600 * 10**9
#: Files that say what a store holds. Their versions never count without asking, since what is
#: compared with the index must be what is there now.
_METADATA = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
#: So many pieces in a row that were kept are taken for a filled cache.
_FILLED = 1024
#: Pieces that were had are noted so many at a time.
_AT_ONCE = 64
_ABSENT = Found(b"", ABSENT, "")


@dataclass
class Counts:
    """Pieces that were kept, those that were fetched, and the bytes of the former."""

    hits: int = 0
    misses: int = 0
    nbytes: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits, self.misses + other.misses, self.nbytes + other.nbytes
        )


class CachedObjects:
    """The objects of ``inner``; what was fetched of them is kept in ``cache``.

    A piece that is kept is not asked for again while the version of its object counts:
    ``counts_for`` ns from when the server last told it, unless the index was refreshed since, here
    (``count_from``) or by a run before this one. After that, the server is asked for one byte; if it
    has another version, or another size, the piece is fetched anew. If it cannot be reached, what is
    kept counts, so that a filled cache serves without a network. That an object is absent counts
    only then, and so do metadata of stores. What the server refuses is an error, and so is a piece
    of another version than this run has read of its object: another run may have kept it since.

    Parameters
    ----------
    inner : Objects
        Where bytes come from that are not kept.
    cache : LocalCache
        Where they are kept.
    files : int
        How many files share its room.
    counts_for : int
        As above.
    clock : callable
        The time in ns.
    """

    def __init__(
        self,
        inner: Objects,
        cache: LocalCache,
        files: int = 1,
        *,
        counts_for: int = COUNTS_FOR,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.url = inner.url
        self._place: str = getattr(inner, "place", inner.url)
        self._inner, self._cache, self._files = inner, cache, files
        #: What this run has read of an object is one version, kept or fetched.
        self._compare: Callable[[str, Found], None] = getattr(inner, "compare", _nothing)
        self._counts_for, self._clock = counts_for, clock
        #: A later run is to know of a refresh, too.
        self._counts_from = cache.refreshed
        self._start_anew()
        forks.renew_in_child(self, CachedObjects._start_anew)

    def __reduce__(self) -> tuple[Any, ...]:
        known = {"_counts_from": self._counts_from}
        return type(self), (self._inner, self._cache, self._files), known

    def count_from(self, moment: int) -> None:
        """Ask again for what the server told before, in ns: the index was refreshed then."""
        # by a clock that was ahead, nothing would count
        moment = min(moment, self._clock())
        # a thread may tell of an earlier refresh late
        with self._lock:
            self._counts_from = max(moment, self._counts_from)
        self._cache.note_refresh(moment)

    def get(self, piece: Piece) -> Found | None:
        """A piece, kept or fetched; as ``Objects.get``."""
        found = self._at_once(piece)
        return self.get_many([piece])[0] if found is None else found

    def part(self, piece: Piece, start: int, stop: int) -> Found | None:
        """Bytes ``[start, stop)`` of a piece that is kept; None where it is to be had by ``get``."""
        found = self._at_once(piece, (start, stop))
        if found is not None:
            self.taken(piece)
        return found

    def get_many(self, pieces: Sequence[Piece]) -> list[Found | None]:
        """Pieces, kept or fetched; as ``Objects.get_many``."""
        kept = self._still([self._kept(piece) for piece in pieces])
        for had in filter(None, kept):
            self._compare(had.identity.key, had.found)
        lacking = [at for at, one in enumerate(kept) if one is None]
        found = [None if one is None else one.found for one in kept]
        if lacking:
            fetched = self._fetched([pieces[at] for at in lacking])
            for at, one in zip(lacking, fetched, strict=True):
                found[at] = one
        sizes = [len(one.found.data) for one in kept if one is not None]
        self._count(len(sizes), len(lacking), sum(sizes))
        return found

    def names(self, prefix: str) -> Iterator[str]:
        """As ``Objects.names``: a listing is not kept."""
        return self._inner.names(prefix)

    def ask(self, keys: Iterable[str]) -> None:
        """Learn the versions of objects anew, however long those that are kept would count."""
        known = {key: about for key in keys if (about := self._about(key)) is not None}
        asked = self._clock()
        for key, told in self._told(list(known.values())).items():
            self._note(key, told, asked)

    def has(self, piece: Piece) -> bool:
        """Whether a piece is kept, of the version that is known, and the server need not be asked."""
        identity = self._identity(piece)
        if identity is None:
            return False
        about = self._known.get(piece.key) if identity.is_of_version else None
        if about is not None:
            return not self._is_old(piece.key, about.asked) and self._cache.has(identity)
        asked = self._cache.asked(identity)
        return asked is not None and not self._is_old(piece.key, asked)

    def drop(self, piece: Piece) -> bool:
        """Keep a piece no longer, which may not be what the server has; whether it is fetched anew."""
        identity = self._identity(piece)
        return identity is None or self._cache.drop(identity)

    def forget(self, pieces: Iterable[Piece]) -> None:
        """Let pieces go first when there is need for room: they will not be asked for soon."""
        identities = [self._identity(piece) for piece in pieces]
        self._cache.forget(one for one in identities if one is not None)

    def taken(self, piece: Piece) -> None:
        """Let a piece that a batch has had go before those that this epoch will ask for still."""
        with self._lock:
            self._had.append(piece)
            if len(self._had) < _AT_ONCE:
                return
            had = self._had[:]
            self._had.clear()
        # where all finds room, nothing goes, and nothing need be noted
        if self._cache.is_tight:
            self.forget(had)

    @property
    def room(self) -> int:
        """The bytes that the cache has for each file."""
        return self._cache.bound // self._files

    @property
    def is_filled(self) -> bool:
        """Whether of late all pieces were kept and counted: planning ahead costs more than it saves."""
        return self._streak >= _FILLED

    @property
    def counts(self) -> Counts:
        """What this process has counted."""
        with self._lock:
            return Counts(self._counts.hits, self._counts.misses, self._counts.nbytes)

    def _start_anew(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counts()
        #: Pieces that were kept since the server was asked.
        self._streak = 0
        self._known: dict[str, Kept] = {}
        #: When the server had the version of a whole object still, where that could not be noted.
        self._unnoted: dict[str, int] = {}
        self._had: list[Piece] = []
        #: After an attempt in vain, the server is not asked before then.
        self._asks_from = 0

    def _count(self, hits: int, misses: int, nbytes: int) -> None:
        with self._lock:
            counts = self._counts
            counts.hits += hits
            counts.misses += misses
            counts.nbytes += nbytes
            self._streak = 0 if misses else self._streak + hits

    def _identity(self, piece: Piece) -> Identity | None:
        """The identity of a piece; None of a part of an object whose version is not known."""
        key, start, stop = piece
        if start == 0 and stop is None:
            return Identity(self._place, key)
        about = self._about(key)
        # nothing proves that two parts of an object without a version are of the same one
        if about is None or about.found.size == ABSENT or not about.found.version:
            return None
        return Identity(self._place, key, start, stop, about.found.version)

    def _kept(self, piece: Piece, part: tuple[int, int] | None = None) -> Kept | None:
        identity = self._identity(piece)
        kept = None if identity is None else self._cache.get(identity, part)
        if kept is None or not kept.identity.is_of_version:
            return kept
        about = self._known.get(piece.key)
        # all parts of an object are as old as what is known of it
        return kept if about is None else Kept(kept.identity, kept.found, about.asked)

    def _at_once(self, piece: Piece, part: tuple[int, int] | None = None) -> Found | None:
        """What is kept of a piece, of the version that this run has; None where the server is asked."""
        kept = self._kept(piece, part)
        if kept is None or self._is_old(piece.key, kept.asked):
            return None
        self._compare(piece.key, kept.found)
        self._count(1, 0, len(kept.found.data))
        return kept.found

    def _about(self, key: str) -> Kept | None:
        """What is known of an object: an entry without bytes."""
        about = self._known.get(key)
        if about is None:
            about = self._cache.get(Identity(self._place, key, ABOUT))
            if about is not None:
                self._remember(about)
        return about

    def _remember(self, about: Kept) -> None:
        if len(self._known) >= _MOST_KNOWN:
            self._known.clear()
        self._known[about.identity.key] = about

    def _note(self, key: str, told: Found | None, asked: int) -> None:
        """Keep what the server tells of an object for which it was asked then."""
        told = (told or _ABSENT)._replace(data=b"")
        identity = Identity(self._place, key, ABOUT, version=told.version)
        about = self._about(key)
        self._remember(Kept(identity, told, asked))
        # parts without what is known of their object are not found by others
        if about is None or about.found != told or not self._cache.has(identity):
            self._cache.put(identity, told, asked)
        elif abs(asked - about.asked) > self._counts_for // 2 or about.asked < self._counts_from:
            # a write for each piece would be too many
            self._cache.confirm(identity, asked)

    def _still(self, kept: list[Kept | None]) -> list[Kept | None]:
        """The entries whose version counts, if need be because the server has the same still."""
        old = [one for one in kept if one and self._is_old(one.identity.key, one.asked)]
        # an answer that is under way while the index is refreshed was asked for before
        asked = self._clock()
        told = self._told(old)
        # metadata are asked for each time that a file is opened
        if any(not key.endswith(_METADATA) for key in told):
            with self._lock:
                self._streak = 0
        return [one if one and self._is_still(one, told, asked) else None for one in kept]

    def _is_old(self, key: str, asked: int) -> bool:
        asked = self._unnoted.get(key, asked)
        # a time in the future is that of a clock that was wrong
        is_old = abs(self._clock() - asked) > self._counts_for or asked < self._counts_from
        return is_old or key.endswith(_METADATA)

    def _is_still(self, kept: Kept, told: Mapping[str, Found | None], asked: int) -> bool:
        key = kept.identity.key
        if key not in told:
            return True
        now = told[key]
        if now is None or (now.size, now.version) != (kept.found.size, kept.found.version):
            return False
        # of as many bytes without a version, nothing proves that they are the same
        if now.size and not now.version:
            return False
        if kept.identity.is_of_version:
            self._note(key, now, asked)
        elif not self._cache.confirm(kept.identity, asked):
            # another user's
            if len(self._unnoted) >= _MOST_KNOWN:
                self._unnoted.clear()
            self._unnoted[key] = asked
        return True

    def _told(self, kept: Sequence[Kept]) -> dict[str, Found | None]:
        """What the server tells of objects now; nothing where it cannot be reached."""
        sizes = {one.identity.key: one.found.size for one in kept}
        if not sizes or self._is_left_alone():
            return {}
        # of an empty object there is no first byte
        pieces = [Piece(key, 0, 1 if size > 0 else None) for key, size in sizes.items()]
        try:
            return dict(zip(sizes, self._inner.get_many(pieces), strict=True))
        except OSError as error:
            self._go_offline(error)
            return {}

    def _fetched(self, pieces: Sequence[Piece]) -> list[Found | None]:
        """Fetch pieces, and keep them."""
        asked = self._clock()
        if self._is_left_alone() and self._are_absent(pieces):
            return [None] * len(pieces)
        try:
            fetched = self._inner.get_many(pieces)
        except OSError as error:
            if not self._are_absent(pieces):
                raise
            self._go_offline(error)
            return [None] * len(pieces)
        # it can be reached again
        self._asks_from = 0
        for piece, found in zip(pieces, fetched, strict=True):
            identity = Identity(self._place, *piece)
            if found is not None and (found.version or not identity.is_of_version):
                self._cache.put(identity, found, asked)
            if found is None or identity.is_of_version:
                # after the piece, for which it may have had to go
                self._note(piece.key, found, asked)
        return fetched

    def _are_absent(self, pieces: Sequence[Piece]) -> bool:
        """Whether all of these were absent when their server was asked."""
        abouts = [self._about(piece.key) for piece in pieces]
        return all(about is not None and about.found.size == ABSENT for about in abouts)

    def _is_left_alone(self) -> bool:
        """Whether the server could not be reached of late."""
        # a pause that is longer was begun by a clock that was wrong
        return 0 < self._asks_from - self._clock() <= _PAUSE

    def _go_offline(self, error: OSError) -> None:
        # what a server refuses, it has answered: the credentials have expired, say
        if isinstance(error, ReadError) and not isinstance(error, OutageError):
            raise error
        if not self._asks_from:
            _log.warning(
                "going on with what is kept of %s, which is not asked: %s", self.url, error
            )
        self._asks_from = self._clock() + _PAUSE


def drop(asked: Wish) -> bool:
    """Whether a piece that cannot be decoded may have been kept, and is fetched anew when it is asked for.

    It may have been damaged on its way into a cache, once. What is fetched each time is not.
    """
    return isinstance(asked.objects, CachedObjects) and asked.objects.drop(asked.piece)


def _nothing(_key: str, _found: Found, /) -> None:
    """Of objects that nobody compares."""
