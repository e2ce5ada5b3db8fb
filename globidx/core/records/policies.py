"""Which records to keep: policies as values, which choose among what is there and touch nothing.

A policy is called with the entries of a folder, oldest first, and returns the numbers of those to keep. ``a | b`` keeps
what either keeps. Any function of that shape is a policy too. The newest record is kept whatever a policy says.

>>> entries = [Entry(number, 100 * number, {"loss": loss}) for number, loss in enumerate((9, 5, 7, 6))]
>>> sorted(last(1)(entries)), sorted(every(200)(entries)), sorted(best("loss")(entries))
([3], [0, 2], [1])
>>> sorted((last(2) | best("loss"))(entries))
[1, 2, 3]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from globidx.core import validate


class Entry(NamedTuple):
    """What a policy may know of a record: ``number`` orders the records of a folder."""

    number: int
    step: int
    extras: Mapping[str, Any]


Keep = Callable[[Sequence[Entry]], frozenset[int]]


@dataclass(frozen=True)
class Policy:
    """A function of entries that can be joined to others by ``|``; it is shown as it was made (``name``).

    >>> last(3) | best("loss")
    last(3) | best('loss')
    """

    choose: Keep
    name: str = "Policy(...)"

    def __call__(self, entries: Sequence[Entry]) -> frozenset[int]:
        """The numbers of the entries to keep."""
        return self.choose(entries)

    def __or__(self, other: Keep) -> Policy:
        theirs = other if isinstance(other, Policy) else getattr(other, "__name__", other)
        joined = f"{self} | {theirs}"
        return Policy(lambda entries: self(entries) | other(entries), joined)

    def __repr__(self) -> str:
        return self.name


def last(count: int) -> Policy:
    """Keep the newest ``count``."""
    most = validate.integer(count, "count", low=1)
    return Policy(lambda entries: _numbers(entries[-most:]), f"last({most})")


def every(steps: int) -> Policy:
    """Keep the first record at or after each multiple of ``steps``, for good: saves need not fall on the multiples.

    >>> sorted(every(100)([Entry(number, step, {}) for number, step in enumerate((0, 50, 99, 130, 160, 210))]))
    [0, 3, 5]
    """
    size = validate.integer(steps, "steps", low=1)

    def choose(entries: Sequence[Entry]) -> frozenset[int]:
        first: dict[int, int] = {}
        for entry in entries:
            first.setdefault(entry.step // size, entry.number)
        return frozenset(first.values())

    return Policy(choose, f"every({size})")


def best(key: str, mode: Literal["min", "max"] = "min", count: int = 1) -> Policy:
    """Keep the ``count`` records whose ``extras[key]`` is least, or greatest; of equals the older.

    A record without that number takes no part.
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be min or max, got {mode!r}")
    most, sign = validate.integer(count, "count", low=1), 1 if mode == "min" else -1

    def choose(entries: Sequence[Entry]) -> frozenset[int]:
        known = [entry for entry in entries if type(entry.extras.get(key)) in (int, float)]
        return _numbers(sorted(known, key=lambda entry: (sign * entry.extras[key], entry.number))[:most])

    given = [repr(key), *([repr(mode)] if mode != "min" else []), *([f"count={most}"] if most != 1 else [])]
    return Policy(choose, f"best({', '.join(given)})")


def _numbers(entries: Sequence[Entry]) -> frozenset[int]:
    return frozenset(entry.number for entry in entries)
