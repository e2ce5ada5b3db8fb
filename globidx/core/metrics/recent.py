"""The last values of a run, over all its ranks, in the sequence in which one process would have had them."""

from __future__ import annotations

from collections import deque
from typing import Any

from globidx.core import validate
from globidx.core.json import schema
from globidx.core.metrics.numeric import from_json, to_json
from globidx.errors import RecordError

#: When a value was added: (update, place, rank); of two, the greater one is the later. ``update`` is
#: how many calls of ``update`` the run had before, on this rank, ``place`` the index of the metric in
#: what was given to that call. Ranks are dealt positions like cards, so within a step the first
#: sample of each rank comes before the second one of any: that is why the place comes before the rank.
Moment = tuple[int, int, int]
_COLUMNS = ("update", "place", "rank")


class Recent:
    """The latest ``size`` values.

    >>> ranks = [Recent(3), Recent(3)]
    >>> for update in range(2):
    ...     for rank, recent in enumerate(ranks):
    ...         recent.add(10 * update + rank, (update, 0, rank))
    >>> ranks[0].merge(ranks[1])
    >>> ranks[0].values
    [1, 10, 11]
    """

    def __init__(self, size: int) -> None:
        self._entries: deque[tuple[Moment, int | float]] = deque(maxlen=size)

    def add(self, number: int | float, moment: Moment) -> None:
        """Add the value that is now the latest."""
        self._entries.append((moment, number))

    def merge(self, other: Recent) -> None:
        """Keep the latest of the values of both."""
        self._keep(sorted([*self._entries, *other._entries]))

    @property
    def values(self) -> list[int | float]:
        """The values, the latest last."""
        return [number for _, number in self._entries]

    def state(self) -> dict[str, Any]:
        """Return it as JSON; moments are in columns, each of which is one line of a record."""
        columns: dict[str, Any] = {
            name: [moment[index] for moment, _ in self._entries]
            for index, name in enumerate(_COLUMNS)
        }
        return columns | {"value": [to_json(number) for number in self.values]}

    def load(self, state: Any, where: str) -> None:
        """Take the latest values of a state; RecordError if it is none."""
        fields = schema.fields(state, where, _FIELDS)
        if len({len(column) for column in fields.values()}) > 1:
            raise RecordError(f"{where} must have a moment for each value, got {state!r:.80}")
        numbers = fields.pop("value")
        moments = zip(*(fields[name] for name in _COLUMNS), strict=True)
        self._keep(sorted(zip(moments, numbers, strict=True)))

    def _keep(self, entries: list[tuple[Moment, int | float]]) -> None:
        self._entries.clear()
        # a full deque drops its first entries, which are the oldest
        self._entries.extend(entries)


_COLUMN = schema.List(schema.Integer(0, validate.INT64_MAX))
_FIELDS = dict.fromkeys(_COLUMNS, _COLUMN) | {"value": schema.List(from_json)}
