"""The aggregates of all metrics that a rank, or a whole run, has had."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from globidx.core import validate
from globidx.core.json import schema
from globidx.core.metrics.base import Aggregate, Handler
from globidx.core.metrics.categories import CategoricalCount
from globidx.core.metrics.distribution import Distribution
from globidx.core.metrics.extremes import Maximum, Minimum
from globidx.core.metrics.metric import (
    MOST_CHARACTERS,
    AggregationType,
    Metric,
    refuse_unprintable,
)
from globidx.core.metrics.totals import Mean, Sum
from globidx.errors import RecordMismatchError

FORMAT, VERSION = "globidx.metrics", 1
Key = tuple[str, str]


class Entry(NamedTuple):
    """One metric: how it is aggregated, and what its values came to."""

    agg_type: str
    aggregate: Aggregate


class Tally:
    """What metrics came to, by (dataset name, metric name).

    ``window`` is how many of the last values a distribution keeps.

    >>> tally = Tally(window=1000)
    >>> tally.update([Metric("a", "tokens", count, "sum") for count in (3, 4)], rank=0)
    >>> tally.results()
    {'a/tokens': 7}
    """

    def __init__(self, window: int) -> None:
        self.window = window
        self._handlers: dict[str, Handler] = {
            AggregationType.SUM: Sum,
            AggregationType.MEAN: Mean,
            AggregationType.MAX: Maximum,
            AggregationType.MIN: Minimum,
            AggregationType.DISTRIBUTION: partial(Distribution, window),
            AggregationType.CATEGORICAL_COUNT: CategoricalCount,
        }
        self._entries: dict[Key, Entry] = {}
        self._updates = 0

    def register(self, agg_type: str, handler: Handler) -> None:
        """Let ``handler`` make the aggregates of a type; ValueError if there are some already."""
        for (dataset, name), entry in self._entries.items():
            if entry.agg_type == agg_type:
                raise ValueError(
                    f"metric {name!r} of dataset {dataset!r} is aggregated by {agg_type!r} already; "
                    "register the handler before the first update and load_state_dict"
                )
        self._handlers[agg_type] = handler

    def empty(self) -> Tally:
        """Return one with the same handlers that had no metrics."""
        fresh = Tally(self.window)
        fresh._handlers = self._handlers
        return fresh

    def update(self, metrics: Iterable[Metric], rank: int) -> None:
        """Add values, in the sequence in which this rank had them."""
        entries, update = self._entries, self._updates
        self._updates += 1
        for place, metric in enumerate(metrics):
            if not isinstance(metric, Metric):
                raise TypeError(
                    f"update() takes a list of Metric, got a list of {type(metric).__name__}: "
                    f"{metric!r:.80}; globidx.collate.default joins the lists of samples"
                )
            entry = entries.get((metric.dataset_name, metric.metric_name))
            if entry is None:
                entry = self._begun(metric)
            elif entry.agg_type != metric.agg_type:
                raise ValueError(
                    f"{_called(metric)} is aggregated by {entry.agg_type!s}, and now by "
                    f"{metric.agg_type!s}; give each aggregation a metric name of its own"
                )
            try:
                entry.aggregate.add(metric.value, (update, place, rank))
            except TypeError as error:
                raise TypeError(f"{_called(metric)} ({metric.agg_type!s}): {error}") from None

    def merge(self, other: Tally) -> None:
        """Add what another one had, whose aggregation types are the same."""
        for key, (agg_type, aggregate) in other._entries.items():
            if key not in self._entries:
                self._entries[key] = Entry(agg_type, self._handlers[agg_type]())
            self._entries[key].aggregate.merge(aggregate)
        self._updates = max(self._updates, other._updates)

    def results(self) -> dict[str, Any]:
        """Return what all metrics came to, by ``dataset/metric``, in the order of the keys.

        ValueError if two have the same name.
        """
        results: dict[str, Any] = {}
        for dataset, name in sorted(self._entries):
            aggregate = self._entries[dataset, name].aggregate
            for ending, value in aggregate.results().items():
                full = f"{dataset}/{name}{ending}"
                if full in results:
                    raise ValueError(
                        f"two results are called {full!r}, one of them of metric {name!r} of dataset "
                        f"{dataset!r}; give one of the metrics another name"
                    )
                results[full] = value
        return results

    def state(self, rank: int) -> dict[str, Any]:
        """Return it as JSON, as that of a rank."""
        metrics: dict[str, dict[str, Any]] = {}
        for dataset, name in sorted(self._entries):
            agg_type, aggregate = self._entries[dataset, name]
            metrics.setdefault(dataset, {})[name] = {
                "agg_type": str(agg_type),
                "state": aggregate.state(),
            }
        return {
            "format": FORMAT,
            "version": VERSION,
            "rank": rank,
            "dist_window_size": self.window,
            "updates": self._updates,
            "metrics": metrics,
        }

    def load(self, state: Mapping[str, Any], where: str) -> None:
        """Become what a state says; RecordError, with everything as it was, if it is none."""
        schema.header(state, where, FORMAT, VERSION)
        fields = schema.fields(state, where, _FIELDS)
        entries = {
            (dataset, name): self._entry(given, f"{where}: {_named(dataset, name)}")
            for dataset, named in fields["metrics"].items()
            for name, given in named.items()
        }
        self._entries, self._updates = entries, fields["updates"]

    def forget(self) -> None:
        """Have no metrics any more; time goes on."""
        self._entries = {}

    def _begun(self, metric: Metric) -> Entry:
        """Begin to aggregate a metric that is new."""
        refuse_unprintable(metric.dataset_name, "the dataset_name of a metric")
        refuse_unprintable(metric.metric_name, "the metric_name of a metric")
        handler = self._handlers.get(metric.agg_type)
        if handler is None:
            raise ValueError(
                f"{_called(metric)} is aggregated by {metric.agg_type!s:.80}, which has no handler; "
                f"there are {', '.join(self._handlers)}, and register() adds more"
            )
        entry = Entry(metric.agg_type, handler())
        self._entries[metric.dataset_name, metric.metric_name] = entry
        return entry

    def _entry(self, state: Mapping[str, Any], where: str) -> Entry:
        """Make the entry of a metric's state."""
        handler = self._handlers.get(state["agg_type"])
        if handler is None:
            raise RecordMismatchError(
                f"{where} is aggregated by {state['agg_type']!r}, which has no handler here; "
                "register() it before the state is loaded"
            )
        entry = Entry(state["agg_type"], handler())
        entry.aggregate.load(state["state"])
        return entry


def merged(states: Sequence[Mapping[str, Any]], empty: Tally) -> Tally:
    """Return one tally of the states of all ranks, which are in rank order.

    ValueError, naming two ranks, if theirs do not fit each other.

    >>> ranks = [Tally(10), Tally(10), Tally(10)]
    >>> for rank in (0, 2):
    ...     ranks[rank].update([Metric("a", "tokens", 5, "sum")], rank)
    >>> merged([tally.state(rank) for rank, tally in enumerate(ranks)], Tally(10)).results()
    {'a/tokens': 10}
    """
    total, met = empty.empty(), dict[Key, tuple[int, str]]()
    for rank, state in enumerate(states):
        part = empty.empty()
        part.load(state, f"the metrics of rank {rank}")
        if (window := state["dist_window_size"]) != (first := states[0]["dist_window_size"]):
            raise ValueError(
                f"rank {rank} has dist_window_size={window}, but rank 0 has {first}; give all ranks "
                "the same"
            )
        for key, entry in part._entries.items():
            earlier, agg_type = met.setdefault(key, (rank, entry.agg_type))
            if agg_type != entry.agg_type:
                raise ValueError(
                    f"{_named(*key)} is aggregated by {agg_type!s} on rank {earlier}, and by "
                    f"{entry.agg_type!s} on rank {rank}; aggregate it in one way on all ranks"
                )
        total.merge(part)
    return total


def _named(dataset: str, name: str) -> str:
    return f"metric {name!r} of dataset {dataset!r}"


def _called(metric: Metric) -> str:
    return _named(metric.dataset_name, metric.metric_name)


_METRIC = schema.Fields(agg_type=schema.Text(MOST_CHARACTERS), state=schema.Json())
_INTEGER = schema.Integer(0, validate.INT64_MAX)
_FIELDS = {
    "rank": _INTEGER,
    "dist_window_size": _INTEGER,
    "updates": _INTEGER,
    "metrics": schema.Json(schema.Json(_METRIC)),
}
