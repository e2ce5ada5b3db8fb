"""Bytes as tensors of a size that all ranks know, which is what collectives carry."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def to_tensor(payload: bytes, size: int) -> torch.Tensor:
    """``payload`` as uint8, padded with zeros to that length."""
    tensor = torch.zeros(size, dtype=torch.uint8)
    if payload:
        # frombuffer of bytes is read-only, which torch warns about
        tensor[: len(payload)] = torch.from_numpy(np.frombuffer(payload, np.uint8).copy())
    return tensor


def room(sizes: Sequence[int]) -> list[torch.Tensor]:
    """A tensor for each rank's payload, all as long as the longest."""
    # gloo gathers tensors of one size only
    return [torch.zeros(max(sizes), dtype=torch.uint8) for _ in sizes]


def to_bytes(tensors: Sequence[torch.Tensor], sizes: Sequence[int]) -> list[bytes]:
    """The payloads in ``tensors``.

    >>> to_bytes([to_tensor(b"abc", 5)], [3])
    [b'abc']
    """
    return [tensor[:size].numpy().tobytes() for tensor, size in zip(tensors, sizes, strict=True)]
