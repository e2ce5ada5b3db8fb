"""Sum and mean, exact whatever was added first."""

from __future__ import annotations

from typing import Any, Self

from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.exact import ExactSum
from globidx.core.metrics.numeric import Apart
from globidx.core.metrics.recent import Moment


class Sum(Aggregate):
    """The sum: an exact int of ints, and else the float that is next to it."""

    def __init__(self) -> None:
        self._sum = ExactSum()
        self._apart = Apart()

    def add(self, value: Any, _moment: Moment, /) -> None:
        """Add a number; NaN and infinities are counted apart."""
        number = self._apart.finite(value)
        if number is not None:
            self._sum.add(number)

    def merge(self, other: Self) -> None:
        """Add the sum of another one."""
        self._sum.merge(other._sum)
        self._apart.merge(other._apart)

    def results(self) -> dict[str, Any]:
        """The sum."""
        return {"": self._sum.value} | self._apart.results()

    def state(self) -> dict[str, Any]:
        """The sum and the counts."""
        return self._sum.state() | {"apart": self._apart.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take them."""
        own = dict(state)
        self._apart.load(own.pop("apart", None), "apart")
        self._sum.load(own, "sum")


class Mean(Sum):
    """The mean, in which every value counts once, wherever it came."""

    def results(self) -> dict[str, Any]:
        """The mean."""
        return {"": self._sum.mean} | self._apart.results()
