"""Values that are no dict, list or tuple: which of them torch makes a tensor of, and which stay.

Places are written as keys joined by ``/``; the place of a sample that is a bare value is ``""``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import default_collate
from torch.utils.data._utils.collate import default_collate_fn_map

from globidx.core.metrics.metric import Metric
from globidx.core.metrics.transform import FIELD

# kinds of numpy dtypes that torch has
_NUMERIC = "biufc"


def called(place: str) -> str:
    """How an error calls a place.

    >>> called("obs/image"), called("")
    ("field 'obs/image'", 'the sample')
    """
    return f"field {place!r}" if place else "the sample"


def becomes_tensor(value: Any) -> bool:
    """Whether torch's ``default_collate`` makes a tensor of such values.

    Types that were registered in torch's ``default_collate_fn_map`` count, too.

    >>> [becomes_tensor(value) for value in (torch.zeros(2), 3, np.zeros(2), np.array(["a"]), "a", None)]
    [True, True, True, False, False, False]
    """
    if isinstance(value, torch.Tensor):
        return True
    if isinstance(value, np.ndarray):
        return value.dtype.kind in _NUMERIC
    # read at each call, since users register types at any time
    return isinstance(value, tuple(default_collate_fn_map)) and not isinstance(value, (str, bytes))


def is_list_of_objects(value: Any) -> bool:
    """Whether a list holds nothing that becomes a tensor, such as the texts of a window.

    >>> [is_list_of_objects(value) for value in (["a", "b"], [["a"], []], ["a", 1], ("a", "b"))]
    [True, True, False, False]
    """
    return isinstance(value, list) and all(map(_is_object, value))


def _is_object(value: Any) -> bool:
    if isinstance(value, list):
        return is_list_of_objects(value)
    return not (becomes_tensor(value) or isinstance(value, (Mapping, tuple)))


def are_metrics(values: Sequence[Any], keys: tuple[str, ...]) -> bool:
    """Whether a field of the samples is that of metrics, and has nothing but lists of them.

    >>> are_metrics([[], [Metric("a", "words", 2, "sum")]], ("metrics",)), are_metrics([[], []], ("x",))
    (True, False)
    """
    # by its name too, since an empty list does not say what it is a list of
    return keys[-1:] == (FIELD,) and all(
        isinstance(value, list) and all(isinstance(item, Metric) for item in value)
        for value in values
    )


def together(values: Sequence[Any], place: str) -> Any:
    """One tensor of values that torch stacks; a list of those that it does not.

    >>> together([1, 2], "label"), together(["a", None], "text")
    (tensor([1, 2]), ['a', None])
    """
    tensors = [becomes_tensor(value) for value in values]
    if not any(tensors):
        # texts in a tuple are a tuple to torch
        return values if isinstance(values[0], (str, bytes)) else list(values)
    if not all(tensors):
        odd = tensors.index(not tensors[0])
        raise TypeError(
            f"{called(place)} is a {type(values[0]).__name__} in sample 0 of the batch and "
            f"{values[odd]!r:.80} in sample {odd}, which are no one tensor: let transform= or the "
            "dataset give all samples the same type"
        )
    try:
        return default_collate(values)  # type: ignore[arg-type]
    except RuntimeError:
        shapes = [np.shape(value) for value in values]
        if len(set(shapes)) == 1:
            raise
        raise ValueError(
            f"{called(place)} {differing(shapes)}, and only equal shapes can be stacked: pass "
            "collate_fn=globidx.collate.pad(), .concat() or .nested(), with the field's name"
        ) from None


def differing(shapes: Sequence[tuple[int, ...]]) -> str:
    """Two shapes that differ, in words.

    >>> differing([(2, 3), (2, 3), (4, 3)])
    'has shape (2, 3) in sample 0 of the batch and (4, 3) in sample 2'
    """
    odd = next(index for index, shape in enumerate(shapes) if shape != shapes[0])
    return f"has shape {tuple(shapes[0])} in sample 0 of the batch and {tuple(shapes[odd])} in sample {odd}"
