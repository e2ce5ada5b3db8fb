"""Rows of a sparse matrix, and the matrix that a batch of them is."""

from __future__ import annotations

from typing import NamedTuple

import torch


class SparseRow(NamedTuple):
    """A row of a sparse matrix: the columns that are stored, and their values.

    ``globidx.DataLoader`` and ``collate.sparse()`` make one ``torch.sparse_csr`` tensor of those of
    a batch.

    Attributes
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
