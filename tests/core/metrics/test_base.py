"""The contract of every aggregate: parts merged are one, in any sequence, through JSON or not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metric_oracle import CATEGORIES, NUMBERS, by_hand

from globidx.core.json import strict
from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.categories import CategoricalCount
from globidx.core.metrics.distribution import Distribution
from globidx.core.metrics.extremes import Maximum, Minimum
from globidx.core.metrics.totals import Mean, Sum

WINDOW = 7
KINDS = {
    "sum": (Sum, NUMBERS),
    "mean": (Mean, NUMBERS),
    "max": (Maximum, NUMBERS),
    "min": (Minimum, NUMBERS),
    "distribution": (lambda: Distribution(WINDOW), NUMBERS),
    "categorical_count": (CategoricalCount, CATEGORIES),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def through_json(aggregate, make):
    """What comes out of a record."""
    loaded = make()
    loaded.load(strict.parse(json.dumps(strict.plain(aggregate.state(), "x")).encode()))
    return loaded


@each_kind
@given(data=st.data(), random=st.randoms(use_true_random=False))
def test_parts_merged_in_any_sequence_are_the_whole(kind, data, random):
    """The results by hand, and the state of one that had all values."""
    make, values_of_kind = KINDS[kind]
    values = data.draw(st.lists(values_of_kind, max_size=30))
    whole, parts = make(), [make() for _ in range(random.randint(1, 5))]
    for update, value in enumerate(values):
        whole.add(value, (update, 0, 0))
        random.choice(parts).add(value, (update, 0, 0))
    while len(parts) > 1:
        one, other = (parts.pop(random.randrange(len(parts))) for _ in range(2))
        one.merge(through_json(other, make) if random.random() < 0.5 else other)
        parts.append(one)
    expected = by_hand([("d", "m", value, kind) for value in values], WINDOW)
    if values:
        assert (
            dict(sorted({f"d/m{end}": it for end, it in whole.results().items()}.items()))
            == expected
        )
    assert parts[0].results() == whole.results()
    assert parts[0].state() == through_json(whole, make).state() == whole.state()


@each_kind
def test_what_was_merged_in_stays_as_it_was(kind):
    """And does not hear of what comes later."""
    make, _ = KINDS[kind]
    one, other = make(), make()
    other.add(3, (0, 0, 0))
    before = other.state()
    one.merge(other)
    one.add(4, (1, 0, 0))
    assert other.state() == before


def test_an_aggregate_without_a_method_cannot_be_made():
    """So that it is not missed at the first save."""
    with pytest.raises(TypeError, match="abstract"):
        type("Half", (Aggregate,), {"add": lambda *_: None})()
