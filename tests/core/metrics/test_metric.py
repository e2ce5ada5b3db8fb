"""A metric is a value that travels, and its names are those that a log can print."""

import pickle

import pytest

from globidx.core.metrics.metric import AggregationType, Metric, refuse_unprintable


def test_types_have_the_names_and_values_of_the_original():
    """torchtune's, so that a configuration that names them reads on."""
    assert {kind.name: kind.value for kind in AggregationType} == {
        "SUM": "sum",
        "MEAN": "mean",
        "DISTRIBUTION": "distribution",
        "CATEGORICAL_COUNT": "categorical_count",
        "MAX": "max",
        "MIN": "min",
    }


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_metric_leaves_a_worker_as_it_was(protocol):
    """Equal, and its type is the same object."""
    metric = Metric("a", "tokens", 3, AggregationType.MEAN)
    copied = pickle.loads(pickle.dumps(metric, protocol))
    assert copied == metric and copied.agg_type is AggregationType.MEAN


def test_a_metric_does_not_change():
    """It may be held by a dataset, a batch and a log at once."""
    with pytest.raises(AttributeError):
        Metric("a", "tokens", 3, "sum").value = 4


@pytest.mark.parametrize("text", ["", "a\nb", "\x1b[31m", "a\0", "\udc80", "x" * 201])
def test_what_would_break_a_log_or_a_record_is_no_name(text):
    """Line breaks, escapes, half characters, and texts of any length."""
    with pytest.raises(ValueError, match="name must be 1 to 200 printable characters, got '"):
        refuse_unprintable(text, "name")


def test_a_name_is_text():
    """Numbers are not, and a name in any language is."""
    with pytest.raises(TypeError, match="name must be text, got 3"):
        refuse_unprintable(3, "name")
    refuse_unprintable("Wörter pro Satz/μ", "name")
