"""Metrics of samples that are exact over ranks and across resumes.

A ``Metric`` is one value; a ``MetricTransform`` such as ``StandardMetricTransform`` puts some into
each sample, ``globidx.collate`` joins those of a batch, and a ``MetricsAggregator`` has what they
come to, over all ranks. ``AggregationType`` says how; an ``Aggregate`` of your own adds a way.
"""

from __future__ import annotations

from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.metric import AggregationType, Metric
from globidx.core.metrics.transform import MetricTransform, StandardMetricTransform
from globidx.torch.metrics.aggregator import MetricsAggregator

__all__ = [
    "Aggregate",
    "AggregationType",
    "Metric",
    "MetricTransform",
    "MetricsAggregator",
    "StandardMetricTransform",
]
