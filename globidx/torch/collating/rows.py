"""The bits of each sample of a batch, to compare samples that came in different batches."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

#: A digest of the value at each place of a sample; places are keys joined by ``/``.
Bits = dict[str, bytes]


def bits_of_rows(batch: Any, count: int) -> list[Bits]:
    """The bits of the ``count`` samples of a batch: the rows of its tensors, arrays and lists.

    >>> one, other, _ = bits_of_rows({"x": torch.tensor([[1], [1], [2]]), "name": ["a", "b", "a"]}, 3)
    >>> [place for place in one if one[place] == other[place]]
    ['x']
    """
    samples: list[Bits] = [{} for _ in range(count)]
    for place, column in _columns(batch, count, ""):
        for row, sample in enumerate(samples):
            sample[place] = bits_of(column[row])
    return samples


def bits_of(value: Any) -> bytes:
    """A digest of a value's type, dtype, shape and bits, so that -0.0 is not 0.0, and a NaN equals itself.

    >>> bits_of(torch.tensor(0.0)) == bits_of(torch.tensor(-0.0))
    False
    >>> bits_of({"x": torch.tensor([float("nan")])}) == bits_of({"x": torch.tensor([float("nan")])})
    True
    """
    digest = hashlib.blake2b(digest_size=16)
    for piece in _pieces(value):
        digest.update(piece)
    return digest.digest()


def _columns(batch: Any, count: int, place: str) -> Iterator[tuple[str, Any]]:
    """All that has a row for each sample, and its place; TypeError for anything else."""
    inside = _inside(batch, count)
    if inside is not None:
        for key, part in inside:
            yield from _columns(part, count, f"{place}/{key}" if place else str(key))
    elif _length(batch) == count:
        yield place, batch
    else:
        raise TypeError(
            f"{f'{place!r} of the batch' if place else 'the batch'}, a {type(batch).__name__}, has not "
            f"one row for each of its {count} samples, so values of samples cannot be compared; pass "
            "values=, a function that returns a list of one value a sample"
        )


def _inside(batch: Any, count: int) -> list[tuple[Any, Any]] | None:
    """The parts of a dict, list or tuple; None for a list of one plain object a sample."""
    if isinstance(batch, Mapping):
        return list(batch.items())
    if not isinstance(batch, (list, tuple)):
        return None
    # torch joins parts of samples, so a list with tensors in it is one of fields
    is_plain = not any(
        isinstance(part, (torch.Tensor, np.ndarray, Mapping, list, tuple)) for part in batch
    )
    return None if is_plain and len(batch) == count else list(enumerate(batch))


def _length(column: Any) -> int | None:
    if isinstance(column, (torch.Tensor, np.ndarray)):
        return len(column) if column.ndim else None
    return len(column) if isinstance(column, (list, tuple)) else None


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
        flat = dense.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        yield f"tensor {value.dtype} {tuple(dense.shape)}".encode()
        yield flat.view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"array {value.dtype.str} {value.shape}".encode()
        yield value.tobytes()
    elif isinstance(value, Mapping):
        for key in value:
            yield repr(key).encode()
            yield from _pieces(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"{type(value).__name__} {len(value)}".encode()
        for part in value:
            yield from _pieces(part)
    else:
        yield pickle.dumps(value, protocol=5)
