"""Metrics of all ranks: each aggregates its own, and they are merged when somebody asks."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from globidx.core import validate
from globidx.core.json import strict
from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.metric import Metric, refuse_unprintable
from globidx.core.metrics.tally import Tally, merged
from globidx.torch.ranks.agreement import Agreement
from globidx.torch.ranks.world import World


class MetricsAggregator:
    """Aggregates metrics by (dataset name, metric name), over all ranks, and across resumes.

    Parameters
    ----------
    dist_window_size : int, default 1000
        Of how many last values a ``DISTRIBUTION`` gives exact figures, on all ranks together.
    group : ProcessGroup, optional
        The data-parallel ranks, by default all ranks of the job.
    timeout : float, default 60.0
        Seconds within which ``get_metrics`` returns or raises.

    Attributes
    ----------
    rank : int
        This rank.
    num_replicas : int
        How many ranks aggregate.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type, or out of range.

    Notes
    -----
    Results are those of one process that had all the samples: to the last bit for every sum, mean,
    extreme and count, since sums are not rounded before they are asked for. Call ``update`` once a
    step on each rank, with an empty list if there is nothing: so all ranks agree which of their
    values are the last ones.

    NaN and infinities are no part of a result: ``..._count_nan``, ``..._count_inf`` and
    ``..._count_neg_inf`` say how many there were, if any.

    ``CheckpointManager(folder, {"sampler": sampler, "metrics": aggregator})`` keeps what all ranks
    have aggregated in its records, merged; after a restore rank 0 goes on with all of it, and the
    others begin anew. So it may be another number of ranks.

    Examples
    --------
    >>> from globidx.metrics import AggregationType, Metric
    >>> aggregator = MetricsAggregator()
    >>> for tokens in (100, 300):
    ...     aggregator.update(
    ...         [
    ...             Metric("alpaca", "tokens_seen", tokens, AggregationType.SUM),
    ...             Metric("alpaca", "avg_tokens_seen", tokens, AggregationType.MEAN),
    ...         ]
    ...     )
    >>> aggregator.get_metrics(prefix="train")
    {'train_alpaca/avg_tokens_seen': 200.0, 'train_alpaca/tokens_seen': 400}
    """

    def __init__(
        self, dist_window_size: int = 1000, *, group: Any = None, timeout: float = 60.0
    ) -> None:
        self._world = World(group=group)
        self._ranks = Agreement(group, timeout, purpose="metrics")
        self._tally = Tally(validate.integer(dist_window_size, "dist_window_size", low=1))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(dist_window_size={self._tally.window})"

    @property
    def rank(self) -> int:
        """This rank."""
        return self._world.resolve()[0]

    @property
    def num_replicas(self) -> int:
        """How many ranks aggregate."""
        return self._world.resolve()[1]

    def register(self, agg_type: str, handler: Callable[[], Aggregate]) -> None:
        """Add a way to aggregate, or replace one.

        Do so on every rank, before the first ``update`` or ``load_state_dict`` that needs it.

        Parameters
        ----------
        agg_type : AggregationType or str
            The type that metrics name as their ``agg_type``.
        handler : callable
            Makes an empty ``Aggregate``; a subclass of it is such a callable.

        Raises
        ------
        TypeError
            If the handler makes something else.
        ValueError
            If metrics of that type were aggregated already.
        """
        refuse_unprintable(agg_type, "agg_type")
        if not isinstance(made := handler(), Aggregate):
            raise TypeError(
                f"the handler of {agg_type!s} must make a globidx.metrics.Aggregate when it is "
                f"called without arguments, but it makes a {type(made).__name__}"
            )
        self._tally.register(agg_type, handler)

    def update(self, metrics: Iterable[Metric]) -> None:
        """Aggregate some metrics, on this rank. No collective.

        Parameters
        ----------
        metrics : iterable of Metric
            Those of a batch, say: ``batch.pop("metrics")``.

        Raises
        ------
        TypeError
            If it is no Metric, or its value does not suit its aggregation.
        ValueError
            If its key is aggregated in another way already, or there is no handler for its type.
            Metrics before it in the list are counted.
        """
        self._tally.update(metrics, self.rank)

    def get_metrics(self, prefix: str | None = None) -> dict[str, Any]:
        """Return what the metrics of all ranks come to. Collective.

        Parameters
        ----------
        prefix : str, optional
            What the names begin with.

        Returns
        -------
        dict
            Results by name, the same on every rank, in the order of the keys: ``dataset/metric``, or
            ``prefix_dataset/metric``. None where there is no value yet. A distribution has several,
            ``dataset/metric_stat_p50`` for example, and so has a categorical count,
            ``dataset/metric_count_category``.

        Raises
        ------
        ValueError
            On every rank, if two ranks aggregate a key in different ways, or two results have the
            same name.
        globidx.errors.LostRankError
            If a rank is gone or did not come in time; ``ranks`` names it.
        RuntimeError
            If torchrun has started several ranks and there is no process group yet.
        """
        if self.num_replicas != self._ranks.world_size:
            raise RuntimeError(
                f"this is rank {self.rank} of {self.num_replicas}, as the environment says, but there "
                "is no process group: call init_process_group before get_metrics"
            )
        with self._ranks.turn("get_metrics"):
            # the same bytes on every rank, so that an error about them is raised by all
            parts = self._ranks.all_gather(lambda: strict.canonical(self.state_dict()))
        total = merged([json.loads(part) for part in parts], self._tally)
        start = f"{prefix}_" if prefix else ""
        return {f"{start}{name}": value for name, value in total.results().items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what this rank has aggregated. No collective.

        Returns
        -------
        dict
            JSON values.
        """
        return self._tally.state(self.rank)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state. No collective.

        One rank takes it over, the one that made it, or its number modulo the number of ranks; a
        merged state is rank 0's. All others begin anew. So each rank may load its own, or all may
        load one, and nothing is counted twice.

        Parameters
        ----------
        state : Mapping
            What ``state_dict`` or ``merge_states`` returned.

        Raises
        ------
        globidx.errors.RecordError
            If it is no such state, or a type of aggregation has no handler here. Nothing has
            changed then.
        """
        self._tally.load(state, "the state of the metrics")
        rank, num_replicas = self._world.resolve()
        if state["rank"] % num_replicas != rank:
            self._tally.forget()

    def merge_states(self, states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Merge the states of all ranks into one, which is rank 0's.

        ``CheckpointManager`` calls it at each save.

        Parameters
        ----------
        states : sequence of Mapping
            What ``state_dict`` returned on each rank, in rank order.

        Returns
        -------
        dict
            One state, which has everything once.

        Raises
        ------
        ValueError
            If two ranks aggregate a key in different ways.

        Examples
        --------
        >>> from globidx.metrics import Metric
        >>> ranks = [MetricsAggregator(), MetricsAggregator()]
        >>> for aggregator in ranks:
        ...     aggregator.update([Metric("alpaca", "tokens_seen", 100, "sum")])
        >>> resumed = MetricsAggregator()
        >>> resumed.load_state_dict(resumed.merge_states([one.state_dict() for one in ranks]))
        >>> resumed.get_metrics()
        {'alpaca/tokens_seen': 200}
        """
        return merged(states, self._tally).state(rank=0)
