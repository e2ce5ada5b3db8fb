"""Distributions: percentiles of all ranks' values, not averages of the ranks' percentiles."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.metrics.distribution import Distribution, percentile
from globidx.errors import RecordError


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.sampled_from([0, 5, 50, 95, 100])
)
def test_percentiles_are_numpys(values, percent):
    """Up to the rounding in numpy's."""
    assert percentile(sorted(values), percent) == pytest.approx(
        np.percentile(values, percent), rel=1e-12, abs=1e-9
    )


def test_percentiles_of_ranks_are_not_averaged():
    """Of 90 ones and 10 hundreds, on two ranks: the median is 1, and the average of the ranks' medians 50.5."""
    ranks = [Distribution(1000), Distribution(1000)]
    for rank, (value, count) in enumerate([(1, 90), (100, 10)]):
        for update in range(count):
            ranks[rank].add(value, (update, 0, rank))
    ranks[0].merge(ranks[1])
    results = ranks[0].results()
    assert results["_stat_p50"] == 1.0 and results["_run_p50"] == 1
    assert results["_stat_p95"] == 100.0 and results["_stat_count"] == results["_run_count"] == 100


def test_what_is_not_finite_takes_no_place_in_the_window():
    """Else a burst of NaN would push the values out."""
    distribution = Distribution(2)
    for update, value in enumerate([1, 2, float("nan"), float("inf"), None]):
        distribution.add(value, (update, 0, 0))
    results = distribution.results()
    assert results["_stat_mean"] == 1.5 and results["_stat_count"] == 2
    assert (results["_count_nan"], results["_count_inf"]) == (1, 1)


def test_of_no_values_there_are_no_figures():
    """None, and counts of 0."""
    results = Distribution(3).results()
    counts = {name: value for name, value in results.items() if name.endswith("count")}
    assert counts == {"_stat_count": 0, "_run_count": 0}
    assert {value for name, value in results.items() if name not in counts} == {None}


@pytest.mark.parametrize("change", [{"recent": {}}, {"run": {}}, {"apart": []}, {"more": 1}])
def test_what_is_no_distribution_is_refused(change):
    """It is from a record that somebody edited."""
    with pytest.raises(RecordError):
        Distribution(3).load(Distribution(3).state() | change)
