"""Samples taken by hand: every anchor in a list, every row looked at by itself. It shares no formula with the library."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray


class Rows(NamedTuple):
    """A sequence as it was written: its rows by field, their numbers over all files, and its constants."""

    name: str
    path: str
    fields: dict[str, NDArray[Any]]
    numbers: list[int]
    constants: dict[str, Any]


class Taken(NamedTuple):
    """A sample, and which anchor of which sequence it is of."""

    sequence: int
    anchor: int
    value: dict[str, Any]


def take(
    sequences: list[Rows],
    offsets: Any,
    *,
    stride: int,
    pad: str | None,
    mask: bool,
    missing: set[int],
    before: int | None = None,
    after: int | None = None,
) -> list[Taken]:
    """All samples, sequence after sequence; ``offsets`` are of all fields, or by field.

    With padding every row is an anchor, unless ``before`` and ``after`` say how far windows reach.
    """
    by_field = {
        name: offsets[name] if isinstance(offsets, dict) else offsets
        for name in (sequences[0].fields if sequences else ())
    }
    every = [offset for given in by_field.values() for offset in _several(given)]
    if before is None:
        before = max(0, -min(every)) if pad else 0
    if after is None:
        after = max(0, max(every)) if pad else 0
    samples = []
    for number, rows in enumerate(sequences):
        length = len(rows.numbers)
        first, last = -before - min(every), length - 1 + after - max(every)
        anchors = [*range(first, last + 1)][::stride] if length else []
        for anchor in anchors:
            value, touched = _sample(rows, anchor, by_field, pad)
            masks = {name: value.pop(f"mask of {name}") for name in by_field}
            if mask:
                value["mask"] = masks if isinstance(offsets, dict) else next(iter(masks.values()))
            if not touched & missing:
                samples.append(Taken(number, anchor, {**value, **rows.constants}))
    return samples


def _sample(
    rows: Rows, anchor: int, by_field: dict[str, Any], pad: str | None
) -> tuple[dict[str, Any], set[int]]:
    value: dict[str, Any] = {}
    touched = set()
    for name, given in by_field.items():
        last = len(rows.numbers) - 1
        parts, inside = [], []
        for offset in _several(given):
            row = anchor + offset
            nearest = min(max(row, 0), last)
            is_read = row == nearest or pad == "edge"
            part = rows.fields[name][nearest]
            parts.append(part if is_read else np.zeros_like(part))
            inside.append(row == nearest)
            touched |= {rows.numbers[nearest]} if is_read else set()
        is_one = isinstance(given, int)
        value[name] = parts[0] if is_one else np.stack(parts)
        value[f"mask of {name}"] = np.array(inside[0] if is_one else inside)
    return value, touched


def _several(offsets: Any) -> list[int]:
    return [offsets] if isinstance(offsets, int) else [*offsets]
