"""A metric: one value of one sample or step, and how such values are aggregated."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

#: The longest text of a name or a category.
MOST_CHARACTERS = 200


class AggregationType(StrEnum):
    """How the values of a metric are aggregated.

    Attributes
    ----------
    SUM
        The sum: exact if all values are integers, else the float next to the exact one.
    MEAN
        The mean, in which each value counts once.
    MAX, MIN
        The greatest and the least value.
    DISTRIBUTION
        Mean, minimum, maximum, 5th, 50th and 95th percentile and count of the last
        ``dist_window_size`` values, exact, and percentiles and count of the whole run, of which a
        percentile is at most 1/128 nearer to zero than the true one.
    CATEGORICAL_COUNT
        How often each category came.

    Notes
    -----
    Each is also a string, so that a handler of your own has a name beside these:
    ``MetricsAggregator.register("last", Last)``.

    Examples
    --------
    >>> AggregationType.SUM == "sum", AggregationType("mean")
    (True, <AggregationType.MEAN: 'mean'>)
    """

    SUM = "sum"
    MEAN = "mean"
    DISTRIBUTION = "distribution"
    CATEGORICAL_COUNT = "categorical_count"
    MAX = "max"
    MIN = "min"


@dataclass(frozen=True, slots=True)
class Metric:
    """One value of one sample or step.

    Parameters
    ----------
    dataset_name : str
        The dataset that the value is of, which is the first half of the metric's key.
    metric_name : str
        What is measured.
    value : int, float, str or None
        The value: a number (a numpy scalar and a tensor without axes are numbers), or a category,
        which is text or an integer. None is no value: it makes the key known, and counts nothing.
    agg_type : AggregationType or str
        How it is aggregated, the same for all values of a key.

    Examples
    --------
    >>> metric = Metric("alpaca", "tokens_seen", 100, AggregationType.SUM)
    >>> metric.dataset_name, metric.value
    ('alpaca', 100)
    """

    dataset_name: str
    metric_name: str
    value: Any
    agg_type: AggregationType | str

    # they come from loader workers by the thousand, and dataclass's own way takes longer
    def __reduce__(self) -> tuple[type[Metric], tuple[Any, ...]]:
        return Metric, (self.dataset_name, self.metric_name, self.value, self.agg_type)


def refuse_unprintable(text: Any, what: str) -> None:
    """Raise TypeError or ValueError unless ``text`` can be a part of a metric's name."""
    if not isinstance(text, str):
        raise TypeError(f"{what} must be text, got {text!r:.80}")
    # a line break, say, would break a log, and half a character a record
    if not text or len(text) > MOST_CHARACTERS or not text.isprintable():
        raise ValueError(
            f"{what} must be 1 to {MOST_CHARACTERS} printable characters, got {text!a:.80}"
        )
