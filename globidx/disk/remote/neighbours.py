"""Pieces that lie near one another in an object are one request."""

from __future__ import annotations

from collections.abc import Sequence

from globidx.disk.remote.objects import Found, Piece

#: Bytes between two pieces that cost less than another request, and the most of one request.
_NEAR, _MOST = 2**16, 8 * 2**20


def grouped(pieces: Sequence[Piece], most: int = _MOST) -> list[tuple[Piece, list[int]]]:
    """Requests for these pieces, and which of them each answers; ``most`` bytes where some are joined.

    >>> grouped([Piece("a", 0, 5), Piece("b"), Piece("a", 5, 9), Piece("a", 10**6, 10**6 + 1)])
    ... # doctest: +NORMALIZE_WHITESPACE
    [(Piece(key='a', start=0, stop=9), [0, 2]),
     (Piece(key='a', start=1000000, stop=1000001), [3]),
     (Piece(key='b', start=0, stop=None), [1])]
    """
    groups: list[tuple[Piece, list[int]]] = []
    for index in sorted(range(len(pieces)), key=lambda index: _order(pieces[index])):
        piece = pieces[index]
        if groups:
            last, members = groups[-1]
            if piece == last:
                members.append(index)
                continue
            joined = _joined(last, piece, min(most, _MOST))
            if joined is not None:
                groups[-1] = joined, [*members, index]
                continue
        groups.append((piece, [index]))
    return groups


def span(pieces: Sequence[Piece]) -> int:
    """The bytes of one request for pieces of an object, with those between them; 0 where it has no end.

    >>> span([Piece("a", 0, 5), Piece("a", 7, 9)]), span([Piece("a")])
    (9, 0)
    """
    stops = [piece.stop for piece in pieces if piece.stop is not None]
    return max(stops) - min(piece.start for piece in pieces) if len(stops) == len(pieces) else 0


def cut(found: Found, group: Piece, piece: Piece) -> Found:
    """What of the answer to a request is that to one of its pieces."""
    if piece == group or piece.stop is None:
        return found
    first = piece.start - group.start
    return found._replace(data=found.data[first : first + piece.stop - piece.start])


def _order(piece: Piece) -> tuple[str, int, int]:
    return piece.key, piece.start, -1 if piece.stop is None else piece.stop


def _joined(last: Piece, piece: Piece, most: int) -> Piece | None:
    """Both as one piece, where they are near and not too much."""
    if last.key != piece.key or last.stop is None or piece.stop is None:
        return None
    stop = max(last.stop, piece.stop)
    is_near = piece.start - last.stop <= _NEAR and stop - last.start <= most
    return last._replace(stop=stop) if is_near else None
