"""Categories are counted by their text."""

import json

import numpy as np
import pytest

from globidx.core.metrics.categories import CategoricalCount
from globidx.errors import RecordError


def test_a_category_stays_one_after_a_resume():
    """1 becomes "1" in JSON, and must not be counted beside itself from there on."""
    counts = CategoricalCount()
    for value in (1, np.int64(1), "1", "a"):
        counts.add(value, (0, 0, 0))
    resumed = CategoricalCount()
    resumed.load(json.loads(json.dumps(counts.state())))
    resumed.add(1, (1, 0, 0))
    assert resumed.results() == {"_count_1": 4, "_count_a": 1}


@pytest.mark.parametrize("value", [0.5, [1], b"a", np.float32(1)])
def test_what_is_no_category_is_refused(value):
    """A float has too many of them."""
    with pytest.raises(TypeError, match="which is no category; pass text or an integer"):
        CategoricalCount().add(value, (0, 0, 0))


def test_a_category_that_no_log_can_print_is_refused():
    """It becomes a part of a name."""
    with pytest.raises(ValueError, match="a category must be 1 to 200 printable characters"):
        CategoricalCount().add("a\nb", (0, 0, 0))


@pytest.mark.parametrize("state", [{}, {"counts": {"a": 0}}, {"counts": []}])
def test_what_are_no_counts_is_refused(state):
    """It is from a record that somebody edited."""
    with pytest.raises(RecordError):
        CategoricalCount().load(state)
