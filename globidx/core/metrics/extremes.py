"""The greatest and the least value."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from globidx.core.json import schema
from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.numeric import Apart, from_json, to_json
from globidx.core.metrics.recent import Moment


class Maximum(Aggregate):
    """The greatest finite value."""

    # 1 for the greatest, -1 for the least
    _sign: ClassVar[int] = 1

    def __init__(self) -> None:
        self._best: int | float | None = None
        self._apart = Apart()

    def add(self, value: Any, _moment: Moment, /) -> None:
        """Add a number; NaN and infinities are counted apart."""
        number, best = self._apart.finite(value), self._best
        if number is None:
            return
        # of 3 and 3.0 the int stays, whichever came first
        if (
            best is None
            or number * self._sign > best * self._sign
            or (number == best and type(number) is int)
        ):
            self._best = number

    def merge(self, other: Self) -> None:
        """Take the better of both."""
        self._apart.merge(other._apart)
        if other._best is not None:
            self.add(other._best, (0, 0, 0))

    def results(self) -> dict[str, Any]:
        """It, or None of no values."""
        return {"": self._best} | self._apart.results()

    def state(self) -> dict[str, Any]:
        """The value and the counts."""
        best = None if self._best is None else to_json(self._best)
        return {"best": best, "apart": self._apart.state()}

    def load(self, state: dict[str, Any]) -> None:
        """Take them."""
        fields = schema.fields(state, "extreme", _EXTREME)
        self._best = fields["best"]
        self._apart.load(fields["apart"], "apart")


class Minimum(Maximum):
    """The least finite value."""

    _sign = -1


_EXTREME = {"best": schema.Optional(from_json), "apart": schema.Json()}
