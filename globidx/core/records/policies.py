"""Which records to keep.

Policies are values that choose among the records of a folder, and delete nothing.

A policy is called with the entries of a folder, oldest first, and returns the numbers of those to
keep. ``a | b`` keeps what either keeps. Any function of that signature is a policy too. The newest
record is always kept.

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
    """One record of a folder, as a policy sees it.

    Parameters
    ----------
    number : int
        Orders the records of a folder.
    step : int
        The step that was saved.
    extras : mapping
        The ``extras`` that were saved with it.

    Examples
    --------
    >>> def even_steps(entries):
    ...     return frozenset(entry.number for entry in entries if entry.step % 2 == 0)
    >>> sorted(even_steps([Entry(0, 1, {}), Entry(1, 2, {}), Entry(2, 4, {})]))
    [1, 2]
    """

    number: int
    step: int
    extras: Mapping[str, Any]


Keep = Callable[[Sequence[Entry]], frozenset[int]]


@dataclass(frozen=True)
class Policy:
    """A function of entries that can be combined with others by ``|``.

    Parameters
    ----------
    choose : callable
        Takes the entries, oldest first, and returns the numbers of those to keep, as a frozenset.
    name : str
        Its ``repr``.

    Examples
    --------
    >>> last(3) | best("loss")
    last(3) | best('loss')
    """

    choose: Keep
    name: str = "Policy(...)"

    def __call__(self, entries: Sequence[Entry]) -> frozenset[int]:
        """Return the numbers of the entries to keep."""
        return self.choose(entries)

    def __or__(self, other: Keep) -> Policy:
        theirs = other if isinstance(other, Policy) else getattr(other, "__name__", other)
        joined = f"{self} | {theirs}"
        return Policy(lambda entries: self(entries) | other(entries), joined)

    def __repr__(self) -> str:
        return self.name


def last(count: int) -> Policy:
    """Keep the newest ``count`` records.

    Parameters
    ----------
    count : int
        How many, at least 1.

    Returns
    -------
    Policy
        The policy.

    Examples
    --------
    >>> sorted(last(2)([Entry(number, 10 * number, {}) for number in range(5)]))
    [3, 4]
    """
    most = validate.integer(count, "count", low=1)
    return Policy(lambda entries: _numbers(entries[-most:]), f"last({most})")


def every(steps: int) -> Policy:
    """Keep the first record at or after each multiple of ``steps``, for good.

    Saves need not fall on the multiples.

    Parameters
    ----------
    steps : int
        The distance of the multiples, at least 1.

    Returns
    -------
    Policy
        The policy.

    Examples
    --------
    >>> sorted(every(100)([Entry(number, step, {}) for number, step in enumerate((0, 50, 99, 130, 160, 210))]))
    [0, 3, 5]
    """
    size = validate.integer(steps, "steps", low=1)

    def choose(entries: Sequence[Entry]) -> frozenset[int]:
        first: dict[int, int] = {}
        for entry in entries:
            # entries come oldest first, so this is the first save at or after the multiple
            first.setdefault(entry.step // size, entry.number)
        return frozenset(first.values())

    return Policy(choose, f"every({size})")


def best(key: str, mode: Literal["min", "max"] = "min", count: int = 1) -> Policy:
    """Keep the ``count`` records with the smallest, or largest, ``extras[key]``.

    Of equal ones, the older is better.

    Parameters
    ----------
    key : str
        A key of ``extras``. Records that have no number under it do not count.
    mode : {"min", "max"}
        Whether small or large numbers are better.
    count : int
        How many, at least 1.

    Returns
    -------
    Policy
        The policy.

    Raises
    ------
    ValueError
        If ``mode`` is neither of the two.

    Examples
    --------
    >>> entries = [Entry(number, number, {"loss": loss}) for number, loss in enumerate((9, 5, 7))]
    >>> sorted(best("loss", count=2)(entries))
    [1, 2]
    """
    if mode not in ("min", "max"):
        raise ValueError(f"mode must be 'min' or 'max', got {mode!r}")
    most, sign = validate.integer(count, "count", low=1), 1 if mode == "min" else -1

    def choose(entries: Sequence[Entry]) -> frozenset[int]:
        # a bool is no loss, and a NaN cannot be in a record
        known = [entry for entry in entries if type(entry.extras.get(key)) in (int, float)]
        return _numbers(
            sorted(known, key=lambda entry: (sign * entry.extras[key], entry.number))[:most]
        )

    given = [
        repr(key),
        *([repr(mode)] if mode != "min" else []),
        *([f"count={most}"] if most != 1 else []),
    ]
    return Policy(choose, f"best({', '.join(given)})")


def _numbers(entries: Sequence[Entry]) -> frozenset[int]:
    return frozenset(entry.number for entry in entries)
