"""A distribution: its last values exactly, and those of a whole run by their order of magnitude."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Self

from globidx.core.json import schema
from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.exact import ExactSum, quotient
from globidx.core.metrics.histogram import LogHistogram
from globidx.core.metrics.numeric import Apart
from globidx.core.metrics.recent import Moment, Recent

PERCENTILES = (5, 50, 95)


class Distribution(Aggregate):
    """The last values exactly, and all values of the run in a histogram."""

    def __init__(self, size: int) -> None:
        self._recent = Recent(size)
        self._run = LogHistogram()
        self._apart = Apart()

    def add(self, value: Any, moment: Moment, /) -> None:
        """Add a number; NaN and infinities are counted apart, and take no place in the window."""
        number = self._apart.finite(value)
        if number is not None:
            self._recent.add(number, moment)
            self._run.add(number)

    def merge(self, other: Self) -> None:
        """Keep the latest of both, and add the histograms."""
        self._recent.merge(other._recent)
        self._run.merge(other._run)
        self._apart.merge(other._apart)

    def results(self) -> dict[str, Any]:
        """Of the last values ``_stat_...``, exact; of the whole run ``_run_...``, from the histogram."""
        values, total = sorted(self._recent.values), ExactSum()
        for value in values:
            total.add(value)
        return {
            "_stat_mean": total.mean,
            "_stat_min": values[0] if values else None,
            "_stat_max": values[-1] if values else None,
            **{f"_stat_p{percent:02}": percentile(values, percent) for percent in PERCENTILES},
            "_stat_count": len(values),
            **{f"_run_p{percent:02}": self._run.quantile(percent) for percent in PERCENTILES},
            "_run_count": self._run.count,
            **self._apart.results(),
        }

    def state(self) -> dict[str, Any]:
        """The last values, the histogram and the counts."""
        return {
            "recent": self._recent.state(),
            "run": self._run.state(),
            "apart": self._apart.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take them; of the last values as many as there is room for."""
        fields = schema.fields(state, "distribution", _DISTRIBUTION)
        for name, part in (("recent", self._recent), ("run", self._run), ("apart", self._apart)):
            part.load(fields[name], name)


def percentile(ordered: Sequence[int | float], percent: int) -> float | None:
    """Return a percentile of sorted numbers; between two of them, linearly, as numpy and torch do.

    It is the float next to the exact one.

    >>> percentile([1, 2, 4, 8], 50), percentile([7], 5), percentile([], 5)
    (3.0, 7.0, None)
    """
    if not ordered:
        return None
    index, rest = divmod((len(ordered) - 1) * percent, 100)
    low = Fraction(ordered[index])
    high = Fraction(ordered[min(index + 1, len(ordered) - 1)])
    exact = low + (high - low) * rest / 100
    return quotient(exact.numerator, exact.denominator)


_DISTRIBUTION = {name: schema.Json() for name in ("recent", "run", "apart")}
