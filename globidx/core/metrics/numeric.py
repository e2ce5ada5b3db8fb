"""Numbers of metrics: what counts as one, what is counted apart, and how they stand in a state."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from globidx.core import validate
from globidx.core.json import schema, strict
from globidx.errors import RecordError

#: How values that are no finite numbers are called.
APART = ("nan", "inf", "neg_inf")
_COUNT = schema.Integer(0, validate.INT64_MAX)


def number_of(value: Any) -> int | float:
    """Return ``value`` as an int or a float; TypeError if it is no number.

    >>> number_of(np.float32(0.5)), number_of(True), number_of(np.array(7))
    (0.5, 1, 7)
    """
    kind = type(value)
    if kind is int:
        number: int | float = value
    elif kind is float:
        # -0.0 becomes 0.0, so that equal values are the same value
        number = value + 0.0
    elif isinstance(value, (int, np.integer, np.bool_)):
        number = int(value)
    elif isinstance(value, (float, np.floating)):
        number = float(value) + 0.0
    # a loss is often a tensor without axes
    elif getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        number = number_of(value.item())
    else:
        raise TypeError(
            f"got {value!r:.80} ({kind.__name__}), which is no number; pass an int, a float, or a "
            "tensor without axes"
        )
    return number


class Apart:
    """Counts NaN and infinities, which would spoil a sum, a mean or an extreme.

    >>> apart = Apart()
    >>> [apart.finite(value) for value in (1, math.nan, 2.5, -math.inf, None)]
    [1, None, 2.5, None, None]
    >>> apart.results()
    {'_count_nan': 1, '_count_neg_inf': 1}
    """

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def finite(self, value: Any) -> int | float | None:
        """Return ``value`` as a finite number; None if it is None, or was counted here."""
        if value is None:
            return None
        number = number_of(value)
        if type(number) is int or math.isfinite(number):
            return number
        self._counts["nan" if math.isnan(number) else "inf" if number > 0 else "neg_inf"] += 1
        return None

    def merge(self, other: Apart) -> None:
        """Add the counts of another one."""
        self._counts.update(other._counts)

    def results(self) -> dict[str, int]:
        """Return those counts that are not 0, by the ending of their name."""
        return {f"_count_{name}": self._counts[name] for name in APART if self._counts[name]}

    def state(self) -> dict[str, int]:
        """Return the counts as JSON."""
        return {name: self._counts[name] for name in APART if self._counts[name]}

    def load(self, state: Any, where: str) -> None:
        """Take the counts of a state; RecordError if it is none."""
        counts = schema.Json(_COUNT)(state, where)
        if unknown := counts.keys() - set(APART):
            raise RecordError(
                f"{where} has {sorted(unknown)}, but only {', '.join(APART)} are counted"
            )
        self._counts = Counter(counts)


def to_json(number: int | float) -> int | float | str:
    """Return a finite number as JSON; an integer of very many digits is text, in hexadecimal.

    >>> to_json(7), to_json(2**100), to_json(0.5)
    (7, '0x10000000000000000000000000', 0.5)
    """
    is_long = type(number) is int and abs(number) >= 10**strict.MAX_DIGITS
    return hex(number) if is_long else number  # type: ignore[arg-type]


def from_json(value: Any, where: str) -> int | float:
    """Return the number that ``to_json`` made JSON of; RecordError if it is none.

    >>> from_json("0x10000000000000000000000000", "sum") == 2**100
    True
    """
    if type(value) is int or (type(value) is float and math.isfinite(value)):
        return value
    try:
        return int(value, 16)
    # TypeError: no text
    except (TypeError, ValueError):
        raise RecordError(f"{where} must be a number, got {value!r:.80}") from None
