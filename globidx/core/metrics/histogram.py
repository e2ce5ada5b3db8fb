"""A histogram over a whole run, which merges to the same answer in whatever sequence.

References
----------
C. Masson, J. E. Rim, H. K. Lee: DDSketch, PVLDB 12 (2019), for buckets of constant relative width;
G. Tene's HdrHistogram for ones that need no logarithm: each octave is cut into equal parts, so that
the bucket of a number is exact arithmetic and the same on every platform.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from globidx.core import validate
from globidx.core.json import schema
from globidx.errors import RecordError

#: An octave, from one power of two to the next, has so many buckets.
PARTS = 128
_BITS = PARTS.bit_length()
# the bucket of a number of 2**20 bits
_FARTHEST = PARTS * 2**20
_INTEGER = schema.Integer(-validate.INT64_MAX, validate.INT64_MAX)


class LogHistogram:
    """Counts of numbers by bucket; a bucket is at most 1/128 wider than its lower end.

    So a quantile is at most 1/128, 0.8 %, nearer to zero than the number that it stands for, and
    never farther. Integers up to 256 have a bucket each, and are exact.

    >>> histogram = LogHistogram()
    >>> for number in range(1, 1001):
    ...     histogram.add(number)
    >>> [histogram.quantile(percent) for percent in (5, 50, 95)]      # of 50, 500, 950
    [50, 500, 948]
    """

    def __init__(self) -> None:
        # of positive numbers, and of the magnitudes of negative ones
        self._above: Counter[int] = Counter()
        self._below: Counter[int] = Counter()
        self._zeros = 0

    def add(self, number: int | float) -> None:
        """Count a finite number."""
        if number > 0:
            self._above[_bucket(number)] += 1
        elif number < 0:
            self._below[_bucket(-number)] += 1
        else:
            self._zeros += 1

    def merge(self, other: LogHistogram) -> None:
        """Add the counts of another one."""
        self._above.update(other._above)
        self._below.update(other._below)
        self._zeros += other._zeros

    @property
    def count(self) -> int:
        """How many numbers were counted."""
        return self._zeros + self._above.total() + self._below.total()

    def quantile(self, percent: int) -> int | float | None:
        """Return the lower end of the bucket that has the ``percent``-th percentile; None of no numbers.

        The percentile is the least of the numbers that as many per cent do not exceed.
        """
        left = -(-self.count * percent // 100)
        if not self.count:
            return None
        for bucket in sorted(self._below, reverse=True):
            left -= self._below[bucket]
            if left <= 0:
                return -_lower_end(bucket)
        left -= self._zeros
        if left <= 0:
            return 0
        for bucket in sorted(self._above):
            left -= self._above[bucket]
            if left <= 0:
                break
        return _lower_end(bucket)

    def state(self) -> dict[str, Any]:
        """Return it as JSON: the same for the same numbers in any sequence."""
        return {
            "above": _columns(self._above),
            "zeros": self._zeros,
            "below": _columns(self._below),
        }

    def load(self, state: Any, where: str) -> None:
        """Take a state; RecordError if it is none."""
        fields = schema.fields(state, where, _FIELDS)
        self._above, self._below = fields["above"], fields["below"]
        self._zeros = fields["zeros"]


def _bucket(number: int | float) -> int:
    """Return the bucket of a positive number: the octave it is in, and the part of the octave.

    >>> [_bucket(number) - _bucket(1) for number in (1, 1 + 1 / 128, 2, 2**2000)]
    [0, 1, 128, 256000]
    """
    if isinstance(number, float):
        mantissa, exponent = math.frexp(number)
        first = int(mantissa * 2**_BITS)
    else:
        # not as a float, which rounds integers of more than 53 bits, up to the next octave even
        exponent = number.bit_length()
        first = (number << _BITS) >> exponent
    # the first bits, of which the very first one is always set
    return exponent * PARTS + first - PARTS


def _lower_end(bucket: int) -> int | float:
    exponent, part = divmod(bucket, PARTS)
    numerator, shift = PARTS + part, exponent - _BITS
    if shift >= 0:
        return numerator << shift
    # an int where it is one, as the numbers of most distributions are
    whole, rest = divmod(numerator, 1 << -shift)
    return math.ldexp(numerator, shift) if rest else whole


def _columns(counts: Counter[int]) -> list[list[int]]:
    """Return buckets and counts in two lists: each is one line of a record."""
    buckets = sorted(counts)
    return [buckets, [counts[bucket] for bucket in buckets]]


def _counts(value: Any, where: str) -> Counter[int]:
    buckets, counts = schema.List(schema.List(_INTEGER), at_least=2, at_most=2)(value, where)
    # a lower end of 2**(2**56) would fill the memory
    if (
        len(buckets) != len(counts)
        or min(counts, default=1) < 1
        or max(map(abs, buckets), default=0) > _FARTHEST
    ):
        raise RecordError(
            f"{where} must have buckets, and a positive count of each, got {value!r:.80}"
        )
    return Counter(dict(zip(buckets, counts, strict=True)))


_FIELDS = {
    "above": _counts,
    "zeros": schema.Integer(0, validate.INT64_MAX),
    "below": _counts,
}
