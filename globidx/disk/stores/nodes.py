"""Nodes of files: zarr groups and arrays and those of HDF5, which look alike."""

from __future__ import annotations

from typing import Any

import numpy as np


def get(node: Any, path: str) -> Any:
    """What lies at ``path`` below a group; None where there is nothing."""
    try:
        return node[path]
    except (KeyError, ValueError):
        return None


def text(value: Any) -> str | None:
    """An attribute as text; HDF5 has it as str, bytes, or an array of one. None for what is no text."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) and value else None


def is_array(node: Any) -> bool:
    """Whether a node of a file is an array, and no group, type or nothing at all."""
    # by class: h5py raises where a type has no dtype
    return hasattr(node, "shape") and hasattr(type(node), "dtype")
