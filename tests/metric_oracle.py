"""What metrics come to by hand: one process that keeps every value in a list. It shares no code with the library."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import strategies as st

#: Numbers that metrics have: small and huge integers, floats of any size, and what is no finite number.
NUMBERS = st.one_of(
    st.integers(-3, 300),
    st.integers(-(2**80), 2**80),
    st.floats(width=64),
    st.booleans(),
    st.sampled_from([0.1, -0.0, 1e308, 5e-324, math.nan, math.inf, -math.inf, None]),
)
CATEGORIES = st.sampled_from(["a", "b", "ä", 1, "1", None])


def by_hand(metrics, window):
    """The results of (dataset, name, value, type), in the sequence in which one process has them."""
    values = {}
    for dataset, name, value, kind in metrics:
        values.setdefault((dataset, name, kind), []).append(value)
    found = {}
    for (dataset, name, kind), all_of_it in values.items():
        for ending, value in _results(kind, all_of_it, window).items():
            found[f"{dataset}/{name}{ending}"] = value
    return dict(sorted(found.items()))


def _results(kind, values, window):
    values = [value for value in values if value is not None]
    if kind == "categorical_count":
        texts = [str(value) for value in values]
        return {f"_count_{text}": texts.count(text) for text in texts}
    finite = [value for value in values if not isinstance(value, float) or math.isfinite(value)]
    apart = {
        "_count_nan": sum(isinstance(value, float) and math.isnan(value) for value in values),
        "_count_inf": values.count(math.inf),
        "_count_neg_inf": values.count(-math.inf),
    }
    return _of_finite(kind, finite, window) | {key: n for key, n in apart.items() if n}


def _of_finite(kind, values, window):
    if kind == "distribution":
        return {
            **{f"_stat_{key}": value for key, value in _statistics(values[-window:]).items()},
            **{f"_run_p{part:02}": _coarse(_nearest_rank(values, part)) for part in (5, 50, 95)},
            "_run_count": len(values),
        }
    if not values:
        return {"": None}
    if kind == "sum" and all(isinstance(value, int) for value in values):
        return {"": sum(values)}
    if kind == "max":
        return {"": max(values)}
    if kind == "min":
        return {"": min(values)}
    total = sum(map(Fraction, values))
    return {"": rounded(total if kind == "sum" else total / len(values))}


def _statistics(values):
    values, size = sorted(map(Fraction, values)), len(values)
    if not size:
        return dict.fromkeys(["mean", "min", "max", "p05", "p50", "p95"]) | {"count": 0}
    points = {}
    for part in (5, 50, 95):
        place = Fraction((size - 1) * part, 100)
        low = values[math.floor(place)]
        points[f"p{part:02}"] = rounded(
            low + (values[math.ceil(place)] - low) * (place - math.floor(place))
        )
    return {
        "mean": rounded(sum(values) / size),
        "min": values[0],
        "max": values[-1],
        "count": size,
        **points,
    }


def _nearest_rank(values, part):
    values = sorted(map(Fraction, values))
    enough = (index for index in range(len(values)) if 100 * (index + 1) >= part * len(values))
    return values[next(enough)] if values else None


def _coarse(value):
    """A number with nothing but its first eight bits."""
    if not value:
        return value
    unit = Fraction(1)
    while abs(value) >= 256 * unit:
        unit *= 2
    while abs(value) < 128 * unit:
        unit /= 2
    return (1 if value > 0 else -1) * (abs(value) // unit) * unit


def rounded(value):
    """The float next to a fraction."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
