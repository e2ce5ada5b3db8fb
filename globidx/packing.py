"""Packing: documents of known lengths in packs of a token budget, each pack a sample.

``pack`` plans, by arithmetic over lengths alone, which documents share a pack; a ``PackedDataset``
gives the packs as samples, with what attention needs to keep documents apart. ``flatten`` joins the
packs of a batch, and ``document_lengths`` asks an index for lengths.
"""

from __future__ import annotations

from globidx.core.packing.contents import Pack, Packs, Plan, pack
from globidx.disk.reading.lengths import document_lengths
from globidx.torch.packing.attention import flatten
from globidx.torch.packing.dataset import PackedDataset

__all__ = ["Pack", "PackedDataset", "Packs", "Plan", "document_lengths", "flatten", "pack"]
