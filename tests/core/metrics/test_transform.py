"""Transforms put metrics into samples."""

from types import MappingProxyType

import numpy as np
import pytest

from globidx.core.metrics.metric import AggregationType, Metric
from globidx.core.metrics.transform import MetricTransform, StandardMetricTransform


class Lengths(MetricTransform):
    """One metric more."""

    def _generate_metrics(self, sample):
        return [Metric(self.dataset_name, "fields", len(sample), "max")]


def named(transform, name="alpaca"):
    """A transform that may be called."""
    transform.set_dataset_name(name)
    return transform


@pytest.mark.parametrize("key", ["tokens", "input_ids"])
def test_the_standard_metrics_are_those_of_the_original(key):
    """As torchtune documents them; ``tokens`` are preferred where there are both."""
    metrics = named(StandardMetricTransform())({key: np.arange(5), "labels": [1]})["metrics"]
    assert metrics == [
        Metric("alpaca", "samples_seen", 1, AggregationType.SUM),
        Metric("alpaca", "tokens_seen", 5, AggregationType.SUM),
        Metric("alpaca", "seq_len", 5, AggregationType.DISTRIBUTION),
    ]
    both = named(StandardMetricTransform())({"input_ids": [1], "tokens": [1, 2]})
    assert both["metrics"][1].value == 2


def test_a_sample_that_a_dataset_holds_stays_as_it_is():
    """In its second epoch it must not have the metrics of both."""
    held = {"tokens": [1, 2], "metrics": [Metric("x", "y", 1, "sum")]}
    transform = named(StandardMetricTransform())
    assert [len(transform(held)["metrics"]) for _ in range(2)] == [4, 4]
    assert held == {"tokens": [1, 2], "metrics": [Metric("x", "y", 1, "sum")]}


def test_transforms_one_after_another_add_theirs():
    """Behind those that are there, and the mapping keeps its type."""

    class Sample(dict):
        pass

    given = Sample(tokens=[1])
    sample = named(Lengths())(named(StandardMetricTransform())(given))
    assert type(sample) is Sample
    assert [metric.metric_name for metric in sample["metrics"]] == [
        "samples_seen",
        "tokens_seen",
        "seq_len",
        "fields",
    ]


def test_a_transform_without_a_name_is_refused():
    """What to call is said."""
    with pytest.raises(RuntimeError, match=r"call set_dataset_name\(name\) before Lengths"):
        Lengths()({})


@pytest.mark.parametrize(("name", "error"), [("", ValueError), (3, TypeError), ("a\n", ValueError)])
def test_a_name_that_no_log_can_print_is_refused(name, error):
    """At once, and not at the first sample in a worker."""
    with pytest.raises(error, match="dataset_name must be"):
        Lengths().set_dataset_name(name)


@pytest.mark.parametrize("sample", [[1], (1,), None, MappingProxyType({})])
def test_a_sample_that_takes_no_key_is_refused(sample):
    """Its type is named."""
    with pytest.raises(TypeError, match="adds the key 'metrics' to samples that are dicts, got"):
        named(Lengths())(sample)


def test_a_sample_without_tokens_is_refused():
    """It is not one of 0 tokens."""
    with pytest.raises(KeyError, match="neither 'tokens' nor 'input_ids', but \\['text'\\]"):
        named(StandardMetricTransform())({"text": "a"})
