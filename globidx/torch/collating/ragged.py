"""Tensors of different sizes: what those of a field must have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from globidx.torch.collating.leaves import becomes_tensor, called, differing
from globidx.torch.collating.sparse_rows import SparseRow


def has_axes(value: Any, count: int) -> bool:
    """Whether a value is a tensor or a numeric array of that many axes, or more."""
    is_array = isinstance(value, (torch.Tensor, np.ndarray)) and becomes_tensor(value)
    return is_array and value.ndim >= count


def tensors(values: Sequence[Any], place: str, *, count: int, by: str) -> list[torch.Tensor]:
    """The values as tensors.

    TypeError for any that is none, and ValueError if they have fewer than ``count`` axes, or
    different numbers of axes or dtypes. ``by`` is who asks.
    """
    for index, value in enumerate(values):
        if not has_axes(value, 0):
            hint = "sparse()" if isinstance(value, SparseRow) else "default()"
            raise TypeError(
                f"{called(place)} is {value!r:.80} in sample {index} of the batch, and {by} takes tensors: make it one "
                f"by transform=, or leave it to {hint}"
            )
    found = [torch.as_tensor(value) for value in values]
    if any(one.ndim != found[0].ndim for one in found):
        raise ValueError(
            f"{called(place)} {differing(shapes(found))}: {by} needs as many axes in all"
        )
    if found[0].ndim < count:
        raise ValueError(
            f"{called(place)} has shape {tuple(found[0].shape)}, and {by} needs {count} axes"
        )
    dtypes = [one.dtype for one in found]
    if len(set(dtypes)) > 1:
        odd = next(index for index, dtype in enumerate(dtypes) if dtype != dtypes[0])
        raise ValueError(
            f"{called(place)} is {dtypes[0]} in sample 0 of the batch and {dtypes[odd]} in sample {odd}: convert it to "
            "one dtype by transform="
        )
    return found


def shapes(tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """The shape of each."""
    return [tuple(one.shape) for one in tensors]


def refuse_other_axes(
    tensors: Sequence[torch.Tensor], axes: Sequence[int], place: str, *, by: str, instead: str
) -> None:
    """ValueError if the tensors differ along any axis that is not among ``axes``."""
    for axis in range(tensors[0].ndim):
        sizes = {one.shape[axis] for one in tensors}
        if axis not in axes and len(sizes) > 1:
            raise ValueError(
                f"{called(place)} {differing(shapes(tensors))}, along axis {axis}, and {by} takes other sizes along "
                f"{'axis' if len(axes) == 1 else 'axes'} {', '.join(map(str, sorted(axes)))} alone: {instead}"
            )
