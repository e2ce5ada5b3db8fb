"""What a sample gets of an array: a tensor, or Python objects where torch has no dtype for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from globidx.core.values.dtypes import Dtype, owned, parse, plain
from globidx.torch.collating.sparse_rows import SparseRow

#: Makes the value of a sample out of an array that no other sample has.
Giver = Callable[[NDArray[Any]], Any]


def giver(dtype: Dtype, name: str = "") -> Giver:
    """How elements of ``dtype``, of the field ``name``, are given; TypeError where they cannot be.

    Numbers are a tensor of the same memory, times an int64 tensor in the units of their dtype, text
    and bytes are str and bytes, and an array of its own shape is a tensor. Several of what is no
    number are a list.
    """
    if dtype.kind == "number":
        try:
            # asked of torch itself: which dtypes it has differs by version
            torch.from_numpy(np.empty(0, dtype.memory))
        except TypeError:
            raise TypeError(f"dtype {dtype.name}, which torch does not have") from None
        return torch.from_numpy
    if dtype.kind == "time":
        return _time
    if dtype.kind == "small":
        found = getattr(torch, dtype.name, None)
        if found is None:
            raise TypeError(f"dtype {dtype.name}, which torch {torch.__version__} does not have")
        return partial(_viewed, as_dtype=found)
    if dtype.kind in ("text", "bytes"):
        return partial(plain, dtype=dtype)
    if dtype.kind == "compound":
        return partial(
            _members, givers={name: giver(one.dtype) for name, one in dtype.members.items()}
        )
    if dtype.kind == "any":
        return partial(_held, name=name)
    if dtype.element is not None:
        return partial(_ragged, give=giver(dtype.element), dtype=dtype)
    raise TypeError(f"dtype {dtype.name}, which means nothing outside its file")


def gives_rows(give: Giver) -> bool:
    """Whether what is given of an array of all samples has as its rows what is given of each.

    >>> gives_rows(giver(parse("datetime64[ns]"))), gives_rows(giver(parse("text")))
    (True, False)
    """
    return give in (torch.from_numpy, _time) or getattr(give, "func", None) is _viewed


def constant(value: Any) -> Any:
    """A constant of a sequence or file: numbers as a tensor that samples share, text as it is."""
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def decoded(values: NDArray[Any], field: str = "") -> Any:
    """What a function of the user's made of rows of ``field``: of several, one tensor where they are arrays.

    Where a row is padding, zeros. A number of numpy's is an array without an axis.

    >>> decoded(np.array(None, object)) is None
    True
    """
    if not values.ndim:
        return _as_tensor(values[()], field)
    parts = [_as_tensor(one, field) for one in values.reshape(-1)]
    like = next((one for one in parts if isinstance(one, torch.Tensor)), None)
    if like is None:
        return parts
    tensors = [torch.zeros_like(like) if one is None else one for one in parts]
    shapes = {tuple(one.shape) for one in tensors}
    if len(shapes) > 1:
        raise ValueError(
            f"decode of field {field!r} gave rows of one sample the shapes "
            f"{', '.join(map(str, sorted(shapes)))}; give all the same"
        )
    return torch.stack(tensors).reshape(*values.shape, *like.shape)


def sparse_row(values: NDArray[Any]) -> SparseRow:
    """A row of a sparse matrix: its indices and values."""
    row: Any = values[()]
    return SparseRow(torch.from_numpy(row.columns), torch.from_numpy(row.values), row.size)


def _time(values: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(values.view(np.int64))


def _viewed(values: NDArray[Any], as_dtype: torch.dtype) -> torch.Tensor:
    # unsigned integers of two bytes are no dtype of older versions
    signed = values.view(f"i{values.dtype.itemsize}")
    return torch.from_numpy(signed).view(as_dtype)


def _members(values: NDArray[Any], givers: dict[str, Giver]) -> dict[str, Any]:
    return {name: give(np.ascontiguousarray(values[name])) for name, give in givers.items()}


def _ragged(values: NDArray[Any], give: Giver, dtype: Dtype) -> Any:
    if values.ndim:
        return [_ragged(values[place, ...], give, dtype) for place in range(len(values))]
    assert dtype.element is not None, "only arrays of arrays are given so"
    # a copy: what was read may be kept for the next batches
    return give(owned(values[()], dtype.element))


def _held(values: NDArray[Any], name: str) -> Any:
    held: Any = values[()]
    try:
        give = _giver_named(held.dtype.name)
    except TypeError as error:
        # of each file or group it may be another one
        raise TypeError(
            f"array {name!r} has {error}; choose others by key= or fields=, or make a value of it by "
            f"decode={{{name!r}: function}}"
        ) from None
    return give(held.values)


@lru_cache(256)
def _giver_named(name: str) -> Giver:
    return giver(parse(name))


def _as_tensor(value: Any, field: str) -> Any:
    if isinstance(value, np.generic) and value.dtype.kind in "biufc":
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        return value
    try:
        return torch.from_numpy(np.require(value, value.dtype.newbyteorder("="), ["C", "W"]))
    except TypeError:
        raise TypeError(
            f"decode of field {field!r} gave an array of dtype {value.dtype}, which torch does not have; give "
            "numbers that it has, or a list"
        ) from None
