"""Collate functions: what a loader makes of samples of different sizes, of text and of objects.

``pad`` fills tensors up to one size, with a mask; ``concat`` puts rows one behind the other, with
offsets; ``nested`` makes nested tensors of them, and ``sparse`` a sparse matrix of ``SparseRow``s.
Pass one as ``DataLoader(..., collate_fn=collate.pad("positions"))``, or several by ``|``. Fields
that none of them is for are collated by ``default``.
"""

from __future__ import annotations

from globidx.torch.collating.collate import Collate, default
from globidx.torch.collating.joining import concat, nested, sparse
from globidx.torch.collating.padding import pad
from globidx.torch.collating.sparse_rows import SparseRow

__all__ = ["Collate", "SparseRow", "concat", "default", "nested", "pad", "sparse"]
