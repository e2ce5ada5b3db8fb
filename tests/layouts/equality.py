"""Equality of samples to the bit, over every id of a dataset, read as training reads: in shuffled batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def assert_same(ours: Any, theirs: Any, where: str) -> None:
    """Values have the same names, types, shapes and bytes; ``where`` says in an error which they are."""
    if isinstance(theirs, Mapping):
        assert isinstance(ours, Mapping), f"{where}: not a dict but {type(ours)}"
        assert sorted(ours) == sorted(theirs), where
        for name, value in theirs.items():
            assert_same(ours[name], value, f"{where}, {name}")
    elif isinstance(theirs, str):
        assert isinstance(ours, str) and ours == theirs, where
    else:
        left, right = np.asarray(ours), np.asarray(theirs)
        assert (left.dtype, left.shape) == (right.dtype, right.shape), where
        assert left.tobytes() == right.tobytes(), f"{where}: {left} is not {right}"


def read_all(dataset: Any, batch_size: int = 7) -> list[Any]:
    """All samples, in the order of their ids, read in batches of shuffled ids."""
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    samples: dict[int, Any] = {}
    for first in range(0, len(order), batch_size):
        ids = order[first : first + batch_size]
        samples.update(zip(ids, dataset.__getitems__(ids), strict=True))
    return [samples[sample_id] for sample_id in range(len(dataset))]


def assert_all_same(dataset: Any, expected: Sequence[Any]) -> None:
    """Every sample is the expected one, read in batches; and some read alone."""
    assert len(dataset) == len(expected) > 0
    for sample_id, (ours, theirs) in enumerate(zip(read_all(dataset), expected, strict=True)):
        assert_same(ours, theirs, f"sample {sample_id}")
    for sample_id in {0, len(expected) // 2, len(expected) - 1}:
        assert_same(dataset[sample_id], expected[sample_id], f"sample {sample_id}, read alone")
