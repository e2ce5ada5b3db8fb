"""Counts of categories."""

from __future__ import annotations

from collections import Counter
from typing import Any, Self

import numpy as np

from globidx.core import validate
from globidx.core.json import schema
from globidx.core.metrics.base import Aggregate
from globidx.core.metrics.metric import refuse_unprintable
from globidx.core.metrics.recent import Moment


class CategoricalCount(Aggregate):
    """How often each category came; categories are told apart by their text."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, value: Any, _moment: Moment, /) -> None:
        """Count a category, which is text or an integer."""
        if value is None:
            return
        if not isinstance(value, (str, int, np.integer)):
            raise TypeError(
                f"got {value!r:.80} ({type(value).__name__}), which is no category; pass text or an integer"
            )
        # as text, since that is what JSON makes of a key: 1 must not become another one by a resume
        text = str(value)
        if text not in self._counts:
            refuse_unprintable(text, "a category")
        self._counts[text] += 1

    def merge(self, other: Self) -> None:
        """Add the counts of another one."""
        self._counts.update(other._counts)

    def results(self) -> dict[str, Any]:
        """The count of each category."""
        return {f"_count_{text}": self._counts[text] for text in sorted(self._counts)}

    def state(self) -> dict[str, Any]:
        """The counts."""
        return {"counts": {text: self._counts[text] for text in sorted(self._counts)}}

    def load(self, state: dict[str, Any]) -> None:
        """Take them."""
        self._counts = Counter(schema.fields(state, "categories", _CATEGORIES)["counts"])


_CATEGORIES = {"counts": schema.Json(schema.Integer(1, validate.INT64_MAX))}
