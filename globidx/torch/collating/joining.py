"""Rows of different lengths, one behind the other: with offsets, nested, or of a sparse matrix."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from globidx.torch.collating.collate import Collate, Offsets
from globidx.torch.collating.fields import Fields, collate_of
from globidx.torch.collating.ragged import has_axes, refuse_other_axes, tensors
from globidx.torch.collating.sparse_rows import SparseRow, matrix


def concat(fields: Fields = None, *, offsets: str = "offsets") -> Collate:
    """Put the rows of all samples one behind the other, with the offsets at which samples begin.

    ``batch["offsets"][field]`` is int64 and has B + 1 entries for B samples, nested as the fields
    are: rows ``[offsets[i], offsets[i + 1])`` are those of sample i, the first offset is 0 and the
    last the number of rows. It is what torch's ``nested_tensor_from_jagged`` and
    ``EmbeddingBag(include_last_offset=True)`` take, and ``ptr`` of PyTorch Geometric.

    Parameters
    ----------
    fields : str or iterable of str, optional
        Fields to join, as the dataset names them (``"obs/points"``); the others are collated by
        ``default``. By default every tensor that has an axis is joined. Other fields are collated in
        other ways by ``concat("a") | pad("b")``: like policies, so that each rule stands beside the
        fields that it is for.
    offsets : str, default "offsets"
        The name of the offsets.

    Returns
    -------
    Collate
        A function of samples for ``collate_fn=``. It can be pickled. Of samples that are bare
        tensors it makes a pair (rows, offsets).

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or value. When called, if a field is missing, is no
        tensor, or differs in dtype or along another axis than the first.

    Examples
    --------
    >>> samples = [{"x": torch.tensor([1, 2, 3]), "y": 0}, {"x": torch.tensor([4]), "y": 1}]
    >>> batch = concat("x")(samples)
    >>> batch["x"].tolist(), batch["offsets"]["x"].tolist(), batch["y"].tolist()
    ([1, 2, 3, 4], [0, 3, 4], [0, 1])
    """
    if not isinstance(offsets, str) or not offsets:
        raise TypeError(f"offsets must be a name, got {offsets!r:.80}")
    return collate_of("concat", fields, Joining(offsets), {"offsets": (offsets, "offsets")})


def nested(fields: Fields = None) -> Collate:
    """Make one nested tensor (``torch.nested``, jagged layout) of rows of different lengths.

    ``tensor.unbind()`` gives the samples, ``.offsets()`` and ``.values()`` what ``concat`` gives.
    Fields that have the same lengths in all samples of a batch share their offsets, so that torch
    takes them for tensors of one shape, which may be added.

    Parameters
    ----------
    fields : str or iterable of str, optional
        Fields to nest, as the dataset names them (``"obs/points"``); the others are collated by
        ``default``. By default every tensor that has an axis is nested. Other fields are collated in
        other ways by ``nested("a") | pad("b")``: like policies, so that each rule stands beside the
        fields that it is for.

    Returns
    -------
    Collate
        A function of samples for ``collate_fn=``. It can be pickled.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or value. When called, if a field is missing, is no
        tensor, or differs in dtype or along another axis than the first.

    Examples
    --------
    >>> samples = [{"x": torch.tensor([1, 2, 3]), "y": 0}, {"x": torch.tensor([4]), "y": 1}]
    >>> batch = nested("x")(samples)
    >>> [row.tolist() for row in batch["x"].unbind()], batch["y"].tolist()
    ([[1, 2, 3], [4]], [0, 1])
    """
    return collate_of("nested", fields, Nesting(), {})


def sparse(fields: Fields = None) -> Collate:
    """Make one ``torch.sparse_csr`` tensor of ``SparseRow``s.

    ``collate.default``, and so every other function here, does the same with them; this one refuses
    fields that hold anything else. torch calls CSR tensors beta, and says so once a process; as old
    as 2.4 it cannot pin them (``pin_memory=True``, ``device=``).

    Parameters
    ----------
    fields : str or iterable of str, optional
        Fields that hold ``SparseRow``s; the others are collated by ``default``. By default all that
        do.

    Returns
    -------
    Collate
        A function of samples for ``collate_fn=``. It can be pickled.

    Raises
    ------
    TypeError, ValueError
        If an argument is of another type or value. When called, if a field is missing, holds
        something else, or its rows differ in size or dtype, or have a column outside of it.

    Examples
    --------
    >>> import warnings
    >>> warnings.simplefilter("ignore")  # torch says that CSR tensors are in beta state
    >>> rows = [SparseRow(torch.tensor(at), torch.ones(len(at)), 3) for at in ([0, 2], [1])]
    >>> sparse()(rows).to_dense()
    tensor([[1., 0., 1.],
            [0., 1., 0.]])
    """
    return collate_of("sparse", fields, Stacking(), {})


@dataclass(frozen=True)
class Joining:
    """The rule of ``concat``."""

    beside: str

    def takes(self, value: Any) -> bool:
        """Whether it is a tensor that has rows."""
        return has_axes(value, 1)

    def collated(
        self, values: Sequence[Any], place: str, _seen: Offsets, /
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(rows, offsets)."""
        return _joined(values, place, by="concat()")


class Nesting:
    """The rule of ``nested``."""

    beside = ""

    def takes(self, value: Any) -> bool:
        """Whether it is a tensor that has rows."""
        return has_axes(value, 1)

    def collated(
        self, values: Sequence[Any], place: str, seen: Offsets, /
    ) -> tuple[torch.Tensor, None]:
        """(nested tensor, None)."""
        rows, offsets = _joined(values, place, by="nested()")
        # torch takes two nested tensors for ones of the same shape if their offsets are one object
        shared = seen.setdefault(tuple(offsets.tolist()), offsets)
        return torch.nested.nested_tensor_from_jagged(rows, shared), None


class Stacking:
    """The rule of ``sparse``."""

    beside = ""

    def takes(self, value: Any) -> bool:
        """Whether it is a row of a sparse matrix."""
        return isinstance(value, SparseRow)

    def collated(
        self, values: Sequence[Any], place: str, _seen: Offsets, /
    ) -> tuple[torch.Tensor, None]:
        """(matrix, None)."""
        return matrix(values, place), None


def _joined(values: Sequence[Any], place: str, *, by: str) -> tuple[torch.Tensor, torch.Tensor]:
    """(rows of all samples, offsets at which those of each begin)."""
    found = tensors(values, place, count=1, by=by)
    refuse_other_axes(found, [0], place, by=by, instead="use pad(axis=...) for it")
    ends = torch.cumsum(torch.tensor([0, *map(len, found)]), 0)
    return torch.cat(found), ends
