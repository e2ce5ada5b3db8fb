"""Weights as a ratio of small whole numbers, so that shares are exact and the same everywhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

#: The most turns of a period, after which the pattern of a mixture repeats.
LONGEST = 2**16
# simple ratios such as 0.6 : 0.3 : 0.1 or 1/3 : 2/3 are recognised up to this denominator
_SIMPLE = 1000
_CLOSE = Fraction(1, 10**9)


def ratio(weights: Sequence[Any]) -> tuple[int, ...]:
    """Return the turns of each weight in a period of at most ``LONGEST`` turns.

    Simple ratios are kept as they are; others are rounded to 1 in ``LONGEST``.

    Parameters
    ----------
    weights : sequence of numbers
        Finite and not negative, at least one of them above zero. They need not sum to 1.

    Returns
    -------
    tuple of int
        Whole numbers without a common divisor, 0 for a weight of 0.

    Raises
    ------
    TypeError, ValueError
        For a weight that is no such number, or is above zero but less than one turn of the longest
        period.

    Examples
    --------
    >>> ratio([0.6, 0.3, 0.1]), ratio([2, 2, 4, 0])
    ((6, 3, 1), (1, 1, 2, 0))
    """
    parts = [_fraction(weight, number) for number, weight in enumerate(weights)]
    total = sum(parts)
    if not total:
        raise ValueError(f"no weight is above zero in {list(weights)!r:.80}")
    shares = [part / total for part in parts]
    turns = _simple(shares) or _rounded(shares)
    for number, (share, turn) in enumerate(zip(shares, turns, strict=True)):
        if share and not turn:
            raise ValueError(
                f"weight {weights[number]!r} of dataset {number} is less than 1 in {LONGEST} of all "
                "weights, which is too rare to be held exactly; give it more, or 0"
            )
    common = math.gcd(*turns)
    return tuple(turn // common for turn in turns)


def _fraction(weight: Any, number: int) -> Fraction:
    if isinstance(weight, bool):
        raise TypeError(f"weight of dataset {number} must be a number, got {weight!r}")
    try:
        part = Fraction(weight) if isinstance(weight, (int, Fraction)) else Fraction(float(weight))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"weight of dataset {number} must be a finite number, got {weight!r:.40}"
        ) from None
    if part < 0:
        raise ValueError(f"weight of dataset {number} must not be negative, got {weight!r:.40}")
    return part


def _simple(shares: list[Fraction]) -> list[int] | None:
    """The turns of shares that are simple ratios, or None."""
    simple = [share.limit_denominator(_SIMPLE) for share in shares]
    if any(abs(near - share) > _CLOSE for near, share in zip(simple, shares, strict=True)):
        return None
    period = math.lcm(*(near.denominator for near in simple))
    if sum(simple) != 1 or period > LONGEST:
        return None
    return [int(near * period) for near in simple]


def _rounded(shares: list[Fraction]) -> list[int]:
    """The turns of any shares, by largest remainder: together they are a whole period."""
    exact = [share * LONGEST for share in shares]
    turns = [int(share) for share in exact]
    by_remainder = sorted(range(len(turns)), key=lambda one: (turns[one] - exact[one], one))
    for one in by_remainder[: LONGEST - sum(turns)]:
        turns[one] += 1
    return turns
