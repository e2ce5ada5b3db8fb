"""Sums without rounding, which are therefore the same in whatever sequence they are added up."""

from __future__ import annotations

import math
from typing import Any

from globidx.core import validate
from globidx.core.json import schema
from globidx.core.metrics.numeric import from_json, to_json
from globidx.errors import RecordError


class ExactSum:
    """The sum of finite numbers as an integer over a power of two, which every float is.

    Nothing is rounded before the sum is asked for, and then once. A sum of floats has at most 2,100
    bits and a few for their count, most have less than 150.

    >>> total = ExactSum()
    >>> for number in (1e16, 1.0, -1e16):
    ...     total.add(number)
    >>> total.value, 1e16 + 1.0 - 1e16
    (1.0, 0.0)
    """

    __slots__ = ("_count", "_is_integer", "_numerator", "_shift")

    def __init__(self) -> None:
        self._count = self._numerator = self._shift = 0
        # whether nothing but ints was added: then the sum is one
        self._is_integer = True

    def add(self, number: int | float) -> None:
        """Add a finite number."""
        self._count += 1
        if type(number) is int:
            self._numerator += number << self._shift
        else:
            self._is_integer = False
            numerator, denominator = number.as_integer_ratio()
            self._add_ratio(numerator, denominator.bit_length() - 1)

    def merge(self, other: ExactSum) -> None:
        """Add what another one has added."""
        self._count += other._count
        self._is_integer &= other._is_integer
        self._add_ratio(other._numerator, other._shift)

    @property
    def count(self) -> int:
        """How many numbers were added."""
        return self._count

    @property
    def value(self) -> int | float | None:
        """The sum: an int if all numbers were, else the float next to it; None of no numbers."""
        if not self._count:
            return None
        return self._numerator if self._is_integer else quotient(self._numerator, 1 << self._shift)

    @property
    def mean(self) -> float | None:
        """The float next to the mean; None of no numbers."""
        return quotient(self._numerator, self._count << self._shift) if self._count else None

    def state(self) -> dict[str, Any]:
        """Return it as JSON: the same for the same numbers in any sequence."""
        return {
            "count": self._count,
            "sum": to_json(self._numerator),
            "shift": self._shift,
            "is_integer": self._is_integer,
        }

    def load(self, state: Any, where: str) -> None:
        """Take a state; RecordError if it is none."""
        fields = schema.fields(state, where, _FIELDS)
        if type(fields["sum"]) is not int or (fields["is_integer"] and fields["shift"]):
            raise RecordError(f"{where}: sum must be an integer over 2**shift, got {state!r:.80}")
        self._count, self._shift = fields["count"], fields["shift"]
        self._numerator, self._is_integer = fields["sum"], fields["is_integer"]

    def _add_ratio(self, numerator: int, shift: int) -> None:
        if shift > self._shift:
            self._numerator <<= shift - self._shift
            self._shift = shift
        self._numerator += numerator << (self._shift - shift)


def quotient(numerator: int, denominator: int) -> float:
    """Return the float next to a fraction, which is infinite if the fraction is beyond all floats."""
    try:
        # of two ints, it is rounded once
        return numerator / denominator
    except OverflowError:
        return math.copysign(math.inf, -1 if numerator < 0 else 1)


def _boolean(value: Any, where: str) -> bool:
    if type(value) is not bool:
        raise RecordError(f"{where} must be true or false, got {value!r:.80}")
    return value


# 1074 is the shift of the smallest float
_FIELDS = {
    "count": schema.Integer(0, validate.INT64_MAX),
    "sum": from_json,
    "shift": schema.Integer(0, 1074),
    "is_integer": _boolean,
}
