"""Transforms that put metrics into samples, where collate functions find them."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from typing import Any

from globidx.core.metrics.metric import AggregationType, Metric, refuse_unprintable

#: The entry of a sample, and of a batch, that has a list of metrics.
FIELD = "metrics"
_TOKENS = ("tokens", "input_ids")


class MetricTransform(ABC):
    """Adds metrics to a sample, as a list under the key ``"metrics"``.

    A subclass has ``_generate_metrics(sample)``, which returns them. They travel with the sample,
    so that what loader workers have read ahead does not count before the training loop has it.

    Examples
    --------
    >>> class Lengths(MetricTransform):
    ...     def _generate_metrics(self, sample):
    ...         return [Metric(self.dataset_name, "words", len(sample["text"].split()), "max")]
    >>> transform = Lengths()
    >>> transform.set_dataset_name("poems")
    >>> transform({"text": "so much depends"})["metrics"][0].value
    3
    """

    #: The dataset that metrics are of; None before ``set_dataset_name``.
    dataset_name: str | None = None

    def set_dataset_name(self, dataset_name: str) -> None:
        """Name the dataset that metrics are of.

        Parameters
        ----------
        dataset_name : str
            The first half of their keys.

        Raises
        ------
        TypeError, ValueError
            If it is no printable text.
        """
        refuse_unprintable(dataset_name, "dataset_name")
        self.dataset_name = dataset_name

    @abstractmethod
    def _generate_metrics(self, sample: Mapping[str, Any]) -> list[Metric]:
        """Return the metrics of a sample."""

    def __call__(self, sample: Any) -> Any:
        """Return the sample with its metrics, after those that it has; the given one stays as it is."""
        if self.dataset_name is None:
            raise RuntimeError(
                f"call set_dataset_name(name) before {type(self).__name__} is given samples: it is "
                "the first half of the key of its metrics"
            )
        if not isinstance(sample, MutableMapping):
            raise TypeError(
                f"{type(self).__name__} adds the key {FIELD!r} to samples that are dicts, got "
                f"{type(sample).__name__}; let a transform before it make dicts"
            )
        # a dataset may hold its samples, and give the same one again in the next epoch
        added = copy.copy(sample)
        added[FIELD] = [*sample.get(FIELD, ()), *self._generate_metrics(sample)]
        return added


class StandardMetricTransform(MetricTransform):
    """Adds what most trainings want to know: samples, tokens, and lengths of sequences.

    ============  ============  =====================================================
    metric        aggregated    value
    ============  ============  =====================================================
    samples_seen  SUM           1
    tokens_seen   SUM           the length of ``sample["tokens"]`` or, if there is no
                                such key, of ``sample["input_ids"]``
    seq_len       DISTRIBUTION  the same
    ============  ============  =====================================================

    Raises
    ------
    KeyError
        When called, if a sample has neither key: 0 tokens would be a wrong figure.

    Examples
    --------
    >>> transform = StandardMetricTransform()
    >>> transform.set_dataset_name("alpaca")
    >>> for metric in transform({"tokens": [1, 2, 3, 4, 5]})["metrics"]:
    ...     print(metric.metric_name, metric.value, metric.agg_type)
    samples_seen 1 sum
    tokens_seen 5 sum
    seq_len 5 distribution
    """

    def _generate_metrics(self, sample: Mapping[str, Any]) -> list[Metric]:
        key = next((key for key in _TOKENS if key in sample), None)
        if key is None:
            raise KeyError(
                f"the sample has neither 'tokens' nor 'input_ids', but {sorted(map(str, sample))}; let "
                "a transform before this one make one of them"
            )
        name, length = str(self.dataset_name), len(sample[key])
        return [
            Metric(name, "samples_seen", 1, AggregationType.SUM),
            Metric(name, "tokens_seen", length, AggregationType.SUM),
            Metric(name, "seq_len", length, AggregationType.DISTRIBUTION),
        ]
