"""Which tokens of a pack are of one document, as models of packed sequences want to be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from globidx.core.packing.contents import Pack
from globidx.core.ragged import spread

#: What a pack has besides the fields of its documents.
NAMES = ("document_ids", "position_ids", "cu_seqlens", "max_seqlen", "documents")
#: In place of a document's id, where no document is.
NO_DOCUMENT = -1


def boundaries(pack: Pack, size: int | None = None, most: int = 0) -> dict[str, Any]:
    """Where the documents of a pack lie.

    With a ``size``, the pack is padded to so many tokens, and arrays of documents to ``most`` of
    them. The padding is a document of its own to attention, so that each token is in one; others
    that are not there end where it does.

    >>> told = boundaries(Pack(np.array([7, 4]), np.array([0, 2]), np.array([2, 5])), size=6, most=3)
    >>> told["cu_seqlens"].tolist(), told["document_ids"].tolist(), told["max_seqlen"]
    ([0, 2, 5, 6, 6], [0, 0, 1, 1, 1, -1], 3)
    """
    counts = (pack.stops - pack.starts).astype(np.int64)
    documents, numbers = pack.documents.astype(np.int64), np.arange(len(counts))
    if size is not None:
        counts = np.append(counts, size - counts.sum())
        numbers = np.append(numbers, NO_DOCUMENT)
    ends = np.cumsum(counts)
    if size is not None:
        ends = _filled(ends, most + 1, size)
        documents = _filled(documents, most, NO_DOCUMENT)
    return {
        "document_ids": torch.from_numpy(np.repeat(numbers, counts)),
        "position_ids": torch.from_numpy(spread(np.zeros_like(counts), counts)),
        "cu_seqlens": torch.from_numpy(np.append(0, ends).astype(np.int32)),
        "max_seqlen": int(counts.max()),
        "documents": torch.from_numpy(documents),
    }


def _filled(numbers: NDArray[np.int64], size: int, value: int) -> NDArray[np.int64]:
    return np.append(numbers, np.full(size - len(numbers), value))


def flatten(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Join the packs of a batch into one row of tokens: a collate function for varlen attention.

    Parameters
    ----------
    samples : sequence of dict
        Samples of a ``PackedDataset``, padded or not.

    Returns
    -------
    dict
        Fields and position ids one behind the other; ``cu_seqlens`` of all documents in that row,
        and the largest ``max_seqlen``; ``document_ids`` that count through all packs.

    Examples
    --------
    >>> from globidx.packing import PackedDataset, pack
    >>> documents = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6])]
    >>> dataset = PackedDataset(documents, pack([3, 1, 2], budget=4, shuffle=False))
    >>> batch = flatten([dataset[0], dataset[1]])
    >>> batch["tokens"].tolist(), batch["cu_seqlens"].tolist(), batch["max_seqlen"]
    ([1, 2, 3, 4, 5, 6], [0, 3, 4, 6], 3)
    """
    tokens = documents = 0
    joined: dict[str, list[Any]] = {name: [] for name in samples[0]}
    for sample in samples:
        counted = sample["document_ids"]
        changed = {
            "document_ids": torch.where(counted < 0, counted, counted + documents),
            # the first boundary of a pack is the last one of the pack before it
            "cu_seqlens": sample["cu_seqlens"][bool(tokens) :] + tokens,
        }
        for name, values in joined.items():
            values.append(changed.get(name, sample[name]))
        tokens += len(counted)
        documents += int((sample["documents"] >= 0).sum())
    return {
        name: max(values) if name == "max_seqlen" else torch.cat(values)
        for name, values in joined.items()
    }
