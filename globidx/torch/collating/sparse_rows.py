"""Rows of a sparse matrix, and the matrix that a batch of them is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from globidx.torch.collating.leaves import called


class SparseRow(NamedTuple):
    """A row of a sparse matrix: the columns that are stored, and their values.

    ``globidx.DataLoader``, ``collate.default`` and ``collate.sparse()`` make one
    ``torch.sparse_csr`` tensor of those of a batch.

    Parameters
    ----------
    indices : torch.Tensor
        Columns in ``[0, size)``, int64.
    values : torch.Tensor
        The value at each of them; a column that stands here twice has the sum.
    size : int
        How many columns the row has, stored or not.

    Examples
    --------
    >>> row = SparseRow(torch.tensor([0, 3]), torch.tensor([1.5, 2.0]), 4)
    >>> row.dense()
    tensor([1.5000, 0.0000, 0.0000, 2.0000])
    """

    indices: torch.Tensor
    values: torch.Tensor
    size: int

    def dense(self) -> torch.Tensor:
        """The row as a tensor of ``size`` values.

        Returns
        -------
        torch.Tensor
            With zeros where nothing is stored.

        Examples
        --------
        >>> SparseRow(torch.tensor([1]), torch.tensor([7]), 3).dense()
        tensor([0, 7, 0])
        """
        return self.values.new_zeros(self.size).index_add_(0, self.indices, self.values)


def matrix(rows: Sequence[Any], place: str) -> torch.Tensor:
    """The ``torch.sparse_csr`` tensor that has these rows.

    TypeError or ValueError if they are no rows of one matrix.
    """
    _check(rows, place)
    size = rows[0].size
    counts = torch.tensor([len(row.indices) for row in rows])
    columns = torch.cat([row.indices for row in rows])
    values = torch.cat([row.values for row in rows])
    # out of the matrix, they would be read and written outside of its memory
    if len(columns) and not 0 <= int(columns.min()) <= int(columns.max()) < size:
        outside = columns[(columns < 0) | (columns >= size)][0]
        raise ValueError(
            f"{called(place)} has a value in column {int(outside)}, outside [0, {size})"
        )
    lines = torch.repeat_interleave(torch.arange(len(rows)), counts)
    ends = torch.cumsum(counts, 0)
    if not _ascends(lines * size + columns):
        whole = torch.sparse_coo_tensor(
            torch.stack([lines, columns]), values, (len(rows), size), check_invariants=False
        )
        return whole.coalesce().to_sparse_csr()
    starts = torch.cat([ends.new_zeros(1), ends])
    return torch.sparse_csr_tensor(
        starts, columns, values, (len(rows), size), check_invariants=False
    )


def _ascends(places: torch.Tensor) -> bool:
    return bool((places[1:] > places[:-1]).all())


def _check(rows: Sequence[Any], place: str) -> None:
    first = rows[0]
    for index, row in enumerate(rows):
        if not isinstance(row, SparseRow):
            raise TypeError(
                f"{called(place)} is {row!r:.80} in sample {index} of the batch, which is no SparseRow: "
                "give all samples one, or name other fields in sparse()"
            )
        if row.size != first.size or row.values.dtype != first.values.dtype:
            raise ValueError(
                f"{called(place)} has {first.size} columns of {first.values.dtype} in sample 0 of the batch "
                f"and {row.size} of {row.values.dtype} in sample {index}: rows of one matrix have as many"
            )
        if (
            row.indices.dtype != torch.int64
            or row.indices.shape != row.values.shape
            or row.values.ndim != 1
        ):
            raise ValueError(
                f"{called(place)} in sample {index} of the batch has indices of shape {tuple(row.indices.shape)} "
                f"and {row.indices.dtype} for values of shape {tuple(row.values.shape)}: give one int64 for each value"
            )
