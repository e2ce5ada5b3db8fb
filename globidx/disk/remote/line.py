"""The line of a reader: all that it asks of servers, within its bounds, and what it has learned of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

from globidx.disk.files import forks
from globidx.disk.remote import neighbours
from globidx.disk.remote.addresses import redacted, split
from globidx.disk.remote.ahead import Ahead, Expected
from globidx.disk.remote.by_fsspec import ByFsspec
from globidx.disk.remote.by_obstore import ByObstore, is_usable
from globidx.disk.remote.foresight import Foresight
from globidx.disk.remote.hands import Hands, rest
from globidx.disk.remote.objects import Found, Objects, Piece, refuse_another
from globidx.disk.remote.options import family_of, is_in_profile, server_of, translated
from globidx.disk.remote.retries import Bounds, PassingError, UnfitError, persistently
from globidx.errors import MissingPackageError, ReadError

Result = TypeVar("Result")

#: Objects of which it is remembered which version was read.
_MOST_VERSIONS = 2**18


class Back(Protocol):
    """What makes a request; ``how`` tells its name. Threads share it."""

    how: str

    def fetch(self, piece: Piece) -> Found | None:
        """Make one request for a piece.

        None where there is no such object; PassingError where another try may have it, ReadError
        where none will.
        """

    def names(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``; it raises as ``fetch`` does."""

    def forget(self) -> None:
        """Forget what was told of objects."""


class Line:
    """Objects by URL, for one reader. It pickles with its options, and without connections.

    Parameters
    ----------
    bounds
        How much is asked for at a time.
    options
        ``storage_options`` as fsspec has them.
    around
        What is put between a reader and the objects of an origin, such as a cache on disk.
    scans
        Whether obstore is left alone where fsspec will do: children that are forked later can then
        use it.
    """

    def __init__(
        self,
        bounds: Bounds = Bounds(),  # noqa: B008 - it does not change
        options: Mapping[str, Any] | None = None,
        *,
        around: Callable[[Objects], Objects] | None = None,
        scans: bool = False,
    ) -> None:
        self.bounds, self.options = bounds, options
        self._around, self._scans = around, scans
        self._start()

    def at(self, url: str) -> tuple[Objects, str]:
        """The objects of the server or bucket of a URL, and the key of the URL among them."""
        parts = split(url)
        if parts is None or family_of(parts[0]) is None:
            origin, key, query = url.rstrip("/"), "", ""
        else:
            _, origin, key, query = parts
        with self._lock:
            known = self._origins.get((origin, query))
            if known is None:
                known = self._origins[origin, query] = self._made(origin, query)
        return known, key

    def map(self, function: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
        """Call a function that waits, for all that is given at the same time."""
        return self.hands.map(function, given)

    def persistently(self, url: str, ask: Callable[[], Result]) -> Result:
        """What a call says that asks the server of a URL by itself, again where another try may go well."""
        asked = Requests(url, partial(self._back, url, ""), self.bounds, self)
        return asked.persistently(ask, "")

    def gone(self, keys: Sequence[Hashable]) -> None:
        """Learn of what was decoded and kept, and is no more: coming batches may count on it."""
        self.foresight.gone(keys)

    def forget(self) -> None:
        """Take objects as they are from here on, whatever they were, also those fetched ahead."""
        self.ahead.clear()
        with self._lock:
            for objects in self._requests:
                objects.forget()

    def close(self) -> None:
        """Drop what was asked for ahead, and all connections."""
        self.openers.close()
        self.hands.close()
        self._start()

    def how(self) -> list[str]:
        """By what means servers are asked, as far as they were."""
        with self._lock:
            return sorted({objects.how for objects in self._requests})

    def _made(self, origin: str, query: str) -> Objects:
        requests = Requests(origin, partial(self._back, origin, query), self.bounds, self)
        self._requests.append(requests)
        made = requests if self._around is None else self._around(requests)
        return made if self._scans else Expected(made, self.ahead)

    def _back(self, origin: str, query: str, because: str = "") -> Back:
        """The means to ask for objects of an origin: obstore where it can, and not fsspec ``because`` of it."""
        parts = split(origin)
        protocol = parts[0] if parts else ""
        if because:
            pass
        elif family_of(protocol) is None:
            because = f"as all but S3, GCS, Azure and HTTP{' in a chain' * ('::' in origin)}"
        elif not is_usable():
            because = "obstore was used before this process was forked"
        else:
            made = translated(protocol, self.options)
            if isinstance(made, str):
                because = f"obstore has no option {made!r}"
            elif is_in_profile(str(family_of(protocol)), made):
                because = "credentials are in a profile of AWS"
            else:
                try:
                    if not self._scans:
                        return ByObstore(protocol, origin, query, made, self.bounds)
                    because = "for the index"
                    return ByFsspec(origin, query, self.options, self.bounds, because)
                except MissingPackageError:
                    return ByObstore(protocol, origin, query, made, self.bounds)
                except ImportError:
                    because = "obstore is not installed"
        try:
            return ByFsspec(origin, query, self.options, self.bounds, because)
        except MissingPackageError as error:
            if is_usable():
                raise
            raise ReadError(
                f"{error}; or start workers with multiprocessing_context='spawn' or 'forkserver': {because}"
            ) from None

    def __getstate__(self) -> dict[str, Any]:
        names = ("bounds", "options", "_around", "_scans")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()

    def _start(self) -> None:
        self.hands = Hands(self.bounds.requests)
        #: Opens files: whoever waits for a file that another thread opens must not be one of those
        #: that fetch what it is opened by.
        self.openers = Hands(self.bounds.requests)
        self.ahead = Ahead(self.hands, self.bounds.prefetch_bytes)
        self.foresight = Foresight(self.ahead)
        self._renew()
        forks.renew_in_child(self, Line._leave_parents)

    _inherited: object = None

    def _leave_parents(self) -> None:
        # Kept alive: a connection that is closed in a child is taken off the list that parent and
        # child share, by which the kernel tells the parent that an answer has come.
        self._inherited = (self._origins, self._requests, self._inherited)
        self._renew()

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self.permits = threading.BoundedSemaphore(self.bounds.requests)
        self._origins: dict[tuple[str, str], Objects] = {}
        self._requests: list[Requests] = []


class _Scans:
    """The line of what was scanned last."""

    line: Line | None = None


def for_scans(options: Mapping[str, Any] | None) -> Line:
    """The line by which files are scanned, the same one for the same options."""
    line = _Scans.line
    if line is None or line.options != options:
        line = _Scans.line = Line(options=options, scans=True)
    # a new look takes objects as they are, also those that were others at the last one
    line.forget()
    return line


class Requests:
    """The objects of an origin, as its server has them; see ``Objects``.

    ``back`` makes what asks for them, once that is needed, and once more where that turns out to be
    unfit, which it is told why.
    """

    def __init__(self, url: str, back: Callable[..., Back], bounds: Bounds, line: Line) -> None:
        self.url = redacted(url)
        #: The URL and what else says where that is, which a cache on disk goes by.
        self.place = " at ".join(filter(None, [self.url, server_of(line.options)]))
        self._make, self._bounds, self._line = back, bounds, line
        self._lock = threading.Lock()
        self._back: Back | None = None
        self._versions: dict[str, tuple[int, str]] = {}
        self._has_answered = False

    @property
    def how(self) -> str:
        """By what means the server is asked."""
        return self._reached().how

    def get(self, piece: Piece) -> Found | None:
        """Fetch a piece, again where a try fails that another may not."""

        def ask() -> Found | None:
            # held for a try and not for the pause after it
            with self._line.permits:
                return self._by_what_fits(lambda back: back.fetch(piece))

        found = self.persistently(ask, piece.key)
        if found is not None:
            self.compare(piece.key, found)
        return found

    def get_many(self, pieces: Sequence[Piece]) -> list[Found | None]:
        """Fetch pieces at the same time, neighbours in one request."""
        groups = neighbours.grouped(pieces)
        answers = self._line.map(self.get, [group for group, _ in groups])
        given: list[Found | None] = [None] * len(pieces)
        for (group, members), found in zip(groups, answers, strict=True):
            for index in members:
                given[index] = found and neighbours.cut(found, group, pieces[index])
        return given

    def names(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``, page by page."""

        def ask() -> list[str]:
            return self._by_what_fits(lambda back: list(back.names(prefix)))

        # pages are few: the first error of a passing kind begins the listing anew
        yield from self.persistently(ask, f"{prefix}*")

    def forget(self) -> None:
        """Take objects as they are from here on."""
        self._versions = {}
        if self._back is not None:
            self._back.forget()

    def persistently(self, ask: Callable[[], Result], what: str) -> Result:
        """What is asked for; not for long where this server never answered."""

        def asked() -> Result:
            try:
                answer = ask()
            except PassingError as error:
                self._has_answered |= error.reached
                raise
            self._has_answered = True
            return answer

        def bounds() -> Bounds:
            return self._bounds if self._has_answered else self._bounds.at_first

        return persistently(asked, lambda: f"{self.url}/{what}".rstrip("/"), bounds, sleep=rest)

    def _by_what_fits(self, ask: Callable[[Back], Result]) -> Result:
        """What is asked for by other means from here on, where these are unfit for it."""
        back = self._reached()
        try:
            return ask(back)
        except UnfitError as error:
            with self._lock:
                # another thread may have found out first
                if self._back is back:
                    self._back, self._versions = self._make(f"{error}"), {}
            return ask(self._reached())

    def _reached(self) -> Back:
        with self._lock:
            if self._back is None:
                self._back = self._make()
            return self._back

    def compare(self, key: str, found: Found) -> None:
        """ReadError where an object is another one than what was read of it before.

        Whoever keeps pieces of it tells of those, too: by another process they may be of another.
        """
        now = found.size, found.version
        # most often, and without waiting for others
        if self._versions.get(key) == now:
            return
        # two threads may have had the first pieces of it at the same moment
        with self._lock:
            known = self._versions
            before = known.setdefault(key, now)
            if len(known) > _MOST_VERSIONS:
                del known[next(iter(known))]
        refuse_another(f"{self.url}/{key}", before, now)
