"""How bytes from afar are asked for: objects below a URL, and pieces of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from globidx.errors import ReadError


class Piece(NamedTuple):
    """Bytes ``[start, stop)`` of an object; to its end where ``stop`` is None.

    A negative ``start`` without a ``stop`` counts from the end, as in a slice.
    """

    key: str
    start: int = 0
    stop: int | None = None

    def within(self, size: int) -> tuple[int, int]:
        """The bounds of the bytes that an object of ``size`` bytes has of it.

        >>> Piece("a", -3).within(10), Piece("a", 4, 20).within(10)
        ((7, 10), (4, 10))
        """
        start = max(0, size + self.start) if self.start < 0 else self.start
        return start, size if self.stop is None else min(self.stop, size)


class Found(NamedTuple):
    """What came of a piece: its bytes, the size of the whole object, and the version of that.

    The version is an ETag, or size and time of change; "" where the server tells neither.
    """

    data: bytes
    size: int
    version: str


class ReplacedError(ReadError):
    """An object is another one than what was read of it before: its server was reached."""


class OutageError(ReadError):
    """An object could not be asked for, however often: its server is out of reach, or out of order."""


def replaced(name: str, before: tuple[int, str], now: tuple[int, str]) -> ReplacedError:
    """The error for an object that had one size and version, and now has others."""
    return ReplacedError(
        f"{name} was replaced while it was read: it had {before[0]} bytes, version {before[1]}, "
        f"and has {now[0]}, version {now[1]}; refresh() the index and start a new epoch"
    )


def refuse_another(name: str, before: tuple[int, str], now: tuple[int, str]) -> None:
    """ReplacedError where an object, by its size and version, is another one than it was before."""
    # a back end that tells versions of some answers only proves nothing by their lack
    if before[0] != now[0] or (before[1] != now[1] and before[1] and now[1]):
        raise replaced(name, before, now)


class Objects(Protocol):
    """The objects below one URL, by keys relative to it.

    Threads may share them. They pickle without connections, and nothing of them is open in a forked
    child. ``url`` has no credentials in it, and no query.
    """

    url: str

    def get(self, piece: Piece) -> Found | None:
        """Fetch a piece, which may take its time.

        None where there is no such object; ReadError where it cannot be had, or is no longer what
        it was.
        """

    def get_many(self, pieces: Sequence[Piece]) -> list[Found | None]:
        """Fetch pieces at the same time, neighbours in one request, as far as the bounds allow.

        They come in the sequence they are asked for. ReadError where one of them cannot be had.
        """

    def names(self, prefix: str) -> Iterator[str]:
        """The keys that begin with ``prefix``, listed page by page."""
