"""Checks of integers that users pass, and the messages of their errors."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

INT64_MAX = 2**63 - 1
_HINTS: dict[type, str] = {
    slice: "; several are a list of integers, such as range(start, stop)",
    list: "; a list of integers has no lists in it",
    str: "; convert it by int()",
}


def bound(number: int) -> str:
    """Return a bound as people write it: near a large power of two as that power.

    >>> bound(2**63 - 1), bound(2**31), bound(-(2**63)), bound(10**9)
    ('2**63 - 1', '2**31', '-2**63', '1000000000')
    """
    for rest, word in ((0, ""), (-1, " - 1")):
        size = abs(number - rest)
        if size >= 2**16 and size & (size - 1) == 0:
            return f"{'-' if number < 0 else ''}2**{size.bit_length() - 1}{word}"
    return str(number)


def integer(value: Any, name: str, *, low: int = 0, high: int = INT64_MAX) -> int:
    """Return ``value`` as an int in ``[low, high]``; floats and bools are refused.

    >>> integer(np.int32(7), "seed")
    7
    >>> integer(True, "seed")
    Traceback (most recent call last):
    ...
    TypeError: seed must be an integer, got True (bool)
    >>> integer(-1, "seed")
    Traceback (most recent call last):
    ...
    ValueError: seed must be in [0, 2**63 - 1], got -1
    """
    checked = _integer(value, name)
    if not low <= checked <= high:
        raise ValueError(f"{name} must be in [{bound(low)}, {bound(high)}], got {checked}")
    return checked


def _integer(value: Any, name: str) -> int:
    """Return ``value`` as an int of any size."""
    # bool is an int to Python, but True for a seed or an id is a mistake
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r} (bool)")
    try:
        return operator.index(value)
    except TypeError:
        hint = _HINTS.get(type(value), "")
        raise TypeError(
            f"{name} must be an integer, got {value!r:.80} ({type(value).__name__}){hint}"
        ) from None


def sample_id(value: Any, num_samples: int) -> int:
    """Return ``value`` as a sample id in ``[0, num_samples)``.

    IndexError for any other, as for any sequence.

    Negative ids do not count from the end, so that a wrong id reads no sample.

    >>> sample_id(3, 4)
    3
    >>> sample_id(-1, 4)
    Traceback (most recent call last):
    ...
    IndexError: sample id -1 is outside [0, 4)
    """
    # The usual case, without a call.
    if type(value) is int and 0 <= value < num_samples:
        return value
    checked = _integer(value, "sample id")
    if not 0 <= checked < num_samples:
        raise IndexError(f"sample id {checked} is outside [0, {num_samples})")
    return checked


def integers(values: Any, name: str, stop: int) -> NDArray[np.int64]:
    """Return ``values`` as a one-dimensional int64 array in ``[0, stop)``; never ``values`` itself.

    >>> integers([0, 2], "sample id", 3)
    array([0, 2])
    >>> integers([0.5], "sample id", 3)
    Traceback (most recent call last):
    ...
    TypeError: sample id must be an integer, got 0.5 (float)
    """
    array = int64s(values, name)
    if len(array) and (array.min() < 0 or array.max() >= stop):
        raise outside(array, name, stop)
    return array.copy() if array is values else array


def int64s(values: Any, name: str) -> NDArray[np.int64]:
    """Return ``values`` as a one-dimensional int64 array; one of that kind is not copied."""
    array = values if isinstance(values, np.ndarray) else _array(values, name)
    if array.dtype == np.int64 and array.ndim == 1:
        return array
    # numpy makes an empty list an array of floats
    if array.size == 0 and array.ndim <= 1:
        return np.empty(0, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name}s must be integers, got an array of {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name}s must be one-dimensional, got shape {array.shape}")
    # astype would wrap it to a negative id
    if array.dtype == np.uint64 and array.max() > INT64_MAX:
        raise IndexError(
            f"{name} {array.max()} is outside the int64 range, which ends at 2**63 - 1"
        )
    return array.astype(np.int64)


def outside(array: NDArray[np.int64], name: str, stop: int) -> IndexError:
    """Return the error for an ``array`` that is not wholly in ``[0, stop)``.

    It names the smallest or largest value.
    """
    low, high = int(array.min()), int(array.max())
    return IndexError(f"{name} {low if low < 0 else high} is outside [0, {stop})")


def _array(values: Any, name: str) -> NDArray[Any]:
    """Return a sequence as an array after a check of each item."""
    if isinstance(values, range) or hasattr(values, "__array__"):
        return np.asarray(values)
    if isinstance(values, (int, float)):
        raise TypeError(f"{name}s must be a sequence of integers, got {values!r}")
    # numpy takes True for 1, 0.5 as it is, and 2**63 for a float: each item is checked first
    items = [value if type(value) is int else _integer(value, name) for value in values]
    try:
        return np.array(items, np.int64)
    except OverflowError:
        raise IndexError(
            f"{name} {max(items, key=abs)} is outside the int64 range, [-2**63, 2**63 - 1]"
        ) from None
