"""Aggregates: what the values of a metric come to, as values that merge."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Self

from globidx.core.metrics.recent import Moment


class Aggregate(ABC):
    """What the values of one metric come to: a handler of an aggregation type makes empty ones.

    To aggregate in a way of your own, write a subclass and register it. Two of them that had some
    values each, merged, must be as one that had all of them, whichever is merged into which: then
    results are the same on any number of ranks.

    Examples
    --------
    The latest value of all ranks, such as a learning rate:

    >>> class Last(Aggregate):
    ...     latest = ((-1, 0, 0), None)
    ...
    ...     def add(self, value, moment):
    ...         self.latest = (tuple(moment), value)
    ...
    ...     def merge(self, other):
    ...         self.latest = max(self.latest, other.latest)
    ...
    ...     def results(self):
    ...         return {"": self.latest[1]}
    ...
    ...     def state(self):
    ...         return {"moment": list(self.latest[0]), "value": self.latest[1]}
    ...
    ...     def load(self, state):
    ...         self.latest = (tuple(state["moment"]), state["value"])
    >>> from globidx.metrics import Metric, MetricsAggregator
    >>> aggregator = MetricsAggregator()
    >>> aggregator.register("last", Last)
    >>> for rate in (0.1, 0.01):
    ...     aggregator.update([Metric("train", "lr", rate, "last")])
    >>> aggregator.get_metrics()
    {'train/lr': 0.01}
    """

    @abstractmethod
    def add(self, value: Any, moment: Moment, /) -> None:
        """Add a value.

        Parameters
        ----------
        value : Any
            A metric's value. None is no value, and adds nothing.
        moment : tuple of int
            (update, place, rank) of the value: the greater of two is the later, on any ranks.

        Raises
        ------
        TypeError
            If such a value cannot be aggregated in this way.
        """

    @abstractmethod
    def merge(self, other: Self) -> None:
        """Add the values that another aggregate of this class had.

        Parameters
        ----------
        other : Aggregate
            The other one, which stays as it is.
        """

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """Return what the values come to.

        Returns
        -------
        dict
            Results by what is appended to the metric's name: ``{"": total}``, or
            ``{"_min": low, "_max": high}``.
        """

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """Return all of it, for a record.

        Returns
        -------
        dict
            Fresh JSON values.
        """

    @abstractmethod
    def load(self, state: dict[str, Any]) -> None:
        """Become what ``state`` was made of.

        Parameters
        ----------
        state : dict
            What ``state()`` returned.
        """


#: What makes an empty aggregate.
Handler = Callable[[], Aggregate]
