"""Pieces that coming batches will take, fetched before they are asked for.

It is a help and no more: what was not fetched, or was forgotten, is fetched when it is asked for.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, zip_longest
from typing import NamedTuple
from weakref import ref

from globidx.disk.files import forks
from globidx.disk.remote import neighbours
from globidx.disk.remote.hands import Hands
from globidx.disk.remote.objects import Found, Objects, Piece
from globidx.errors import ReadError

#: A loop of a thread that reads otherwise meanwhile is thought to be left after so many ids, of
#: which each batch that another loop tells of counts as some.
_LEFT_AFTER, _TOLD = 256, 64
#: So many pieces that were taken last are remembered: those of a batch that is planned meanwhile.
_MOST_TAKES = 1024


class Wish(NamedTuple):
    """A piece that will be asked for, and about how many bytes it has.

    With ``is_claimed`` some thread is decoding it, or waits for it to do so.
    """

    objects: Objects
    piece: Piece
    nbytes: int
    is_claimed: bool = False

    @property
    def key(self) -> tuple[str, Piece]:
        """What it is known by."""
        return self.objects.url, self.piece


def wish(objects: Objects, piece: Piece, nbytes: int) -> Wish:
    """The wish for a piece of ``objects``, which are asked themselves and not by way of ``Ahead``."""
    return Wish(themselves(objects), piece, nbytes)


def themselves(objects: Objects) -> Objects:
    """These objects, asked themselves and not by way of ``Ahead``."""
    return objects.behind if isinstance(objects, Expected) else objects


class Ahead:
    """At most ``most`` bytes of pieces that are expected, fetched by ``hands``.

    A *ticket* stands for a batch. A piece is kept while a batch that is expected wants it: one that no
    other batch wants is gone when the batch has taken it as often as it was wished for.
    """

    def __init__(self, hands: Hands, most: int) -> None:
        self._hands, self._most = hands, most
        self._start()
        forks.renew_in_child(self, Ahead._start)

    def expect(
        self, tickets: Sequence[Hashable], *, aside: int | None = None, anew: bool = False
    ) -> list[Hashable]:
        """Learn which batches this thread reads now, the first of these, and next.

        What else the same loop expected is forgotten. A thread may have some loops by turns, and
        read ``aside`` of them, so many ids; without tickets, it has none. ``anew``, the first is
        read once more. Returns the tickets that were not expected before.
        """
        with self._changed:
            before = self._expected()
            loops = self._loops()
            for loop in loops:
                loop.idle += _TOLD if aside is None else aside
            goes_on = [loop for loop in loops if tickets and loop.may_go_on(tickets)]
            loops[:] = [_Loop(list(tickets), aside is not None), *goes_on]
            for reader in [one for one in self._readers if not one.is_alive]:
                del self._readers[reader]
            over = before - self._expected()
            if anew:
                over.update(tickets[:1])
            for ticket in over:
                for key in self._wanted_by.pop(ticket, ()):
                    self._release(key, ticket)
            self._send()
            return [one for one in dict.fromkeys(tickets) if one not in before or one in over]

    def go_on(self, ticket: Hashable) -> None:
        """Let this thread go on with a batch that it reads, after it has read aside of it."""
        with self._changed:
            loops = self._loops()
            loops.sort(key=lambda loop: loop.tickets[:1] != [ticket])
            if loops:
                loops[0].idle = 0

    def want(
        self,
        ticket: Hashable,
        wishes: Iterable[Wish],
        *,
        since: int | None = None,
        again: bool = False,
    ) -> None:
        """Fetch what a batch will ask for, each piece as often as it is wished for.

        Of what is claimed, or some batch has ``taken`` ``since``, only what is here or on its way is
        kept for this batch, too: it may find the rest decoded, which whoever found out these wishes
        did not see yet. ``again``, only what is not on its way for this batch. What a batch needs that
        is read now goes first. What is kept on a disk of this machine comes sooner when it is asked
        for.
        """
        wishes = [one for one in wishes if not _is_kept(one)]
        with self._changed:
            if ticket not in self._expected():
                return
            had = set(self._wanted_by.get(ticket, ())) & self._kept.keys() if again else set()
            had |= {one.key for one in wishes if self._is_in_hand(one, since)} - self._kept.keys()
            fetches = list(self._fetches(ticket, [one for one in wishes if one.key not in had]))
            if any(ticket in _firsts(loops) for loops in self._readers.values()):
                self._waiting.extendleft(reversed(fetches))
            else:
                self._waiting.extend(fetches)
            self._send()

    def take(self, objects: Objects, piece: Piece) -> Found | None:
        """The piece, once it is there; it is asked for at once if nobody has."""
        # where all is kept on disk, nothing is expected: the lock would cost as much as the look
        if not self._kept:
            return objects.get(piece)
        key = objects.url, piece
        with self._changed:
            self._takes[key] = self.taken
            self._takes.move_to_end(key)
            self.taken += 1
            if len(self._takes) > _MOST_TAKES:
                self._takes.popitem(last=False)
            kept = self._kept.get(key)
            if kept is not None and not kept.is_sent:
                # it waits for room, or for its turn
                self._drop(key)
                kept = None
            if kept is not None:
                kept.awaited += 1
                self._changed.wait_for(lambda: kept.is_here or kept.error is not None)
                kept.awaited -= 1
                if self._kept.get(key) is kept:
                    # what this thread reads now
                    for ticket in _firsts(self._loops())[:1]:
                        self._release(key, ticket)
                    self._send()
        if kept is None:
            return objects.get(piece)
        if kept.error is not None:
            raise ReadError(kept.error)
        return kept.found

    @property
    def now(self) -> list[Hashable]:
        """The batch that this thread reads, as far as it has told, and those of its other loops."""
        with self._changed:
            return _firsts(self._loops())

    @property
    def expected(self) -> set[Hashable]:
        """The tickets that some thread reads or expects."""
        with self._changed:
            return self._expected()

    @property
    def nbytes(self) -> int:
        """The bytes that are held, or on their way."""
        with self._changed:
            return self._nbytes

    def clear(self) -> None:
        """Forget all."""
        with self._changed:
            self._readers.clear()
            self._wanted_by.clear()
            for key in list(self._kept):
                self._drop(key)

    # -- inside, under the lock

    def _loops(self) -> list[_Loop]:
        """Those of this thread, the one that it is in first."""
        return self._readers.setdefault(_Reader(threading.current_thread()), [])

    def _is_in_hand(self, wish: Wish, since: int | None) -> bool:
        """Whether a thread has claimed a piece, or taken it since."""
        return wish.is_claimed or (since is not None and self._takes.get(wish.key, -1) >= since)

    def _expected(self) -> set[Hashable]:
        return {one for loops in self._readers.values() for loop in loops for one in loop.tickets}

    def _fetches(self, ticket: Hashable, wishes: Iterable[Wish]) -> Iterator[_Fetch]:
        """Requests for the pieces that nobody has asked for yet, in the sequence of the wishes."""
        keys = self._wanted_by.setdefault(ticket, [])
        for _, some in groupby(wishes, lambda wish: wish.objects.url):
            new: list[Wish] = []
            for wish in some:
                keys.append(wish.key)
                kept = self._kept.get(wish.key)
                if kept is None:
                    kept = self._kept[wish.key] = _Kept(wish.nbytes)
                    new.append(wish)
                kept.tickets[ticket] += 1
            groups = neighbours.grouped([wish.piece for wish in new], self._most)
            for _, members in sorted(groups, key=lambda one: one[1][0]):
                pieces = [new[index].piece for index in members]
                yield _Fetch(self, new[0].objects, pieces)

    def _send(self) -> None:
        """Let hands fetch what there is room for."""
        while self._waiting and self._flying < self._hands.count:
            fetch = self._waiting[0]
            unsent = (key for key in fetch.keys if key in self._kept)
            wanted = [key for key in unsent if not self._kept[key].is_sent]
            nbytes = sum(self._kept[key].nbytes for key in wanted)
            # what lies between the pieces is held until they are here
            between = (
                max(0, neighbours.span([piece for _, piece in wanted]) - nbytes) if wanted else 0
            )
            if wanted and self._nbytes and self._nbytes + nbytes + between > self._most:
                return
            self._waiting.popleft()
            if wanted:
                fetch.between = between
                fetch.kept = {key: self._kept[key] for key in wanted}
                for kept in fetch.kept.values():
                    kept.is_sent = True
                self._nbytes += nbytes + between
                self._flying += 1
                self._hands.put(fetch)

    def _arrived(self, fetch: _Fetch, found: Sequence[Found | None], error: str | None) -> None:
        with self._changed:
            self._flying -= 1
            self._nbytes -= fetch.between
            for (key, kept), one in zip_longest(fetch.kept.items(), found):
                is_wanted = self._kept.get(key) is kept
                if is_wanted:
                    self._nbytes -= kept.nbytes
                kept.found = one
                kept.error, kept.is_here = error, error is None
                kept.nbytes = 0 if kept.found is None else len(kept.found.data)
                if is_wanted:
                    self._nbytes += kept.nbytes
                    if error is not None:
                        # whoever waits for it is told, and whoever comes later asks anew
                        self._drop(key)
            # a reader waits for one piece, and is not woken for each of the others
            if not self._flying or any(kept.awaited for kept in fetch.kept.values()):
                self._changed.notify_all()
            self._send()

    def _release(self, key: tuple[str, Piece], ticket: Hashable) -> None:
        """Let a batch have taken a piece once, or be without a need of it."""
        kept = self._kept.get(key)
        if kept is not None and ticket in kept.tickets:
            kept.tickets[ticket] -= 1
            if not kept.tickets[ticket]:
                del kept.tickets[ticket]
            if not kept.tickets:
                self._drop(key)

    def _drop(self, key: tuple[str, Piece]) -> None:
        kept = self._kept.pop(key)
        if kept.is_sent:
            self._nbytes -= kept.nbytes

    def _start(self) -> None:
        self._changed = threading.Condition()
        self._kept: dict[tuple[str, Piece], _Kept] = {}
        self._wanted_by: dict[Hashable, list[tuple[str, Piece]]] = {}
        self._readers: dict[_Reader, list[_Loop]] = {}
        #: How many pieces batches have taken.
        self.taken = 0
        self._takes: OrderedDict[tuple[str, Piece], int] = OrderedDict()
        self._waiting: deque[_Fetch] = deque()
        self._flying = self._nbytes = 0


class _Reader(ref[threading.Thread]):
    """A thread that reads, which is not kept alive. Numbers of threads are given again."""

    @property
    def is_alive(self) -> bool:
        thread = self()
        return thread is not None and thread.is_alive()


@dataclass
class _Loop:
    """What a thread reads now and next in a loop, and how much it has read otherwise since."""

    tickets: list[Hashable]
    is_aside: bool
    idle: int = 0

    def may_go_on(self, tickets: Sequence[Hashable]) -> bool:
        """Whether it is another loop than the one of these, and not thought to be left."""
        # batches that are empty here are in any loop
        is_same = not {*self.tickets, ()}.isdisjoint({*tickets} - {()})
        return not (is_same or self.is_aside or self.idle >= _LEFT_AFTER)


def _firsts(loops: Sequence[_Loop]) -> list[Hashable]:
    return [loop.tickets[0] for loop in loops if loop.tickets]


def _is_kept(one: Wish) -> bool:
    has = getattr(one.objects, "has", None)
    return has is not None and has(one.piece)


class _Kept:
    """A piece, on its way or here, and the batches that want it."""

    __slots__ = ("awaited", "error", "found", "is_here", "is_sent", "nbytes", "tickets")

    def __init__(self, nbytes: int) -> None:
        self.nbytes = nbytes
        # and how often each will take it
        self.tickets: Counter[Hashable] = Counter()
        self.found: Found | None = None
        self.error: str | None = None
        self.is_sent = self.is_here = False
        # how many threads wait for it
        self.awaited = 0


class _Fetch:
    """A request for neighbouring pieces."""

    def __init__(self, ahead: Ahead, objects: Objects, pieces: Sequence[Piece]) -> None:
        self._ahead, self._objects = ahead, objects
        self.keys = [(objects.url, piece) for piece in pieces]
        self.kept: dict[tuple[str, Piece], _Kept] = {}
        #: The bytes between them, which are fetched as well.
        self.between = 0

    def make(self) -> None:
        try:
            # one by one: what is kept of them on a disk is kept so
            found = self._objects.get_many([piece for _, piece in self.kept])
        except Exception as error:  # noqa: BLE001 - it is raised where the piece is asked for
            self._ahead._arrived(self, [], f"{error}" or type(error).__name__)
        else:
            self._ahead._arrived(self, found, None)

    def drop(self) -> None:
        self._ahead._arrived(self, [], "the files were closed while they were read")


class Expected:
    """Objects of which expected pieces are taken from ``ahead``; see ``Objects``."""

    def __init__(self, objects: Objects, ahead: Ahead) -> None:
        self.behind, self._ahead = objects, ahead
        self.url = objects.url
        #: Told of each piece that was had, where there is a cache.
        self._taken = getattr(objects, "taken", None)

    def get(self, piece: Piece) -> Found | None:
        """The piece, fetched already where it was expected."""
        found = self._ahead.take(self.behind, piece)
        if self._taken is not None:
            self._taken(piece)
        return found

    def get_many(self, pieces: Sequence[Piece]) -> list[Found | None]:
        """Pieces that nobody has expected."""
        return self.behind.get_many(pieces)

    def names(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``."""
        return self.behind.names(prefix)
