"""The dataset whose samples are packs of documents of another one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.utils.data

from globidx.core import validate
from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.json import strict
from globidx.core.packing.contents import Pack, Packs
from globidx.torch.collating.padding import is_held
from globidx.torch.loops.moments import DatedIds, SharedMoment
from globidx.torch.packing.attention import NAMES, boundaries
from globidx.torch.sources.concatenation import Concatenated

#: The field of documents that are bare tensors.
TOKENS = "tokens"
Fields = dict[str, torch.Tensor]


class PackedDataset(torch.utils.data.Dataset[Any]):
    """A map-style dataset whose samples are packs of documents, for samplers and loaders as any other.

    Sample ``i`` is a dict: the fields of the documents of ``packs[i]``, one document behind the
    other, and

    ``document_ids`` : int64, one a token
        Which document of the pack a token is of: 0, 1, ...; -1 is padding.
    ``position_ids`` : int64, one a token
        0, 1, ... from the first token of each document, or of each piece of one that was cut.
    ``cu_seqlens`` : int32
        Where documents begin in the pack, and where the last one ends.
    ``max_seqlen`` : int
        The tokens of the longest.
    ``documents`` : int64
        The ids of the documents.

    Parameters
    ----------
    dataset : map-style dataset
        The documents. A sample is an array or tensor with a token a row, which becomes the field
        ``"tokens"``, or a dict of such.
    packs : Packs
        Which documents are in which sample, made by ``pack`` of the lengths of these documents.
    fields : str or sequence of str, optional
        Which fields of a document are packed; the others are left out. By default all, which must
        have a row for each token.
    pad : number or dict of str to number, optional
        Pads every pack to the budget, with that value or the value of each field. All samples have
        the same shapes then: ``documents`` is padded with -1, and ``cu_seqlens`` with the budget,
        so that the padding is a document to attention.
    repack : bool, default False
        Whether each epoch has packs of its own, ``packs.for_epoch(epoch)``. The epoch is that of
        the sampler. Each process that reads makes the packs of an epoch once.

    Raises
    ------
    TypeError, ValueError
        If ``packs`` were made of another number of documents, an argument is of another type or
        value, documents may be replaced by others (``on_error=``), or ``packs`` cannot be made anew
        for each epoch.

    Notes
    -----
    ``__getitems__`` reads all documents of a batch of packs at once. Its fingerprint covers the
    documents' and the packs, and so a record refuses other packs.

    Examples
    --------
    >>> from globidx.packing import pack
    >>> documents = [torch.tensor([1, 2, 3]), torch.tensor([4]), torch.tensor([5, 6])]
    >>> dataset = PackedDataset(documents, pack([3, 1, 2], budget=4, shuffle=False), pad=0)
    >>> [dataset[id]["tokens"].tolist() for id in range(2)]
    [[1, 2, 3, 4], [5, 6, 0, 0]]
    >>> dataset[0]["position_ids"].tolist(), dataset[0]["cu_seqlens"].tolist()
    ([0, 1, 2, 0], [0, 3, 4, 4])
    """

    def __init__(
        self,
        dataset: Any,
        packs: Packs,
        *,
        fields: str | Sequence[str] | None = None,
        pad: float | Mapping[str, float] | None = None,
        repack: bool = False,
    ) -> None:
        _require(dataset, packs, repack=repack)
        if not (pad is None or isinstance(pad, (int, float, Mapping))):
            raise TypeError(f"pad must be a number, or one for each field, got {pad!r:.80}")
        self.dataset, self.repack, self.pad = dataset, repack, pad
        self.fields = (fields,) if isinstance(fields, str) else fields and tuple(fields)
        self._source, self._packs = Concatenated([dataset]), packs
        #: Seed and epoch as a sampler set them.
        self.moment = SharedMoment()

    @property
    def packs(self) -> Packs:
        """The packs: of the epoch that a sampler reads now, with ``repack``."""
        return self._of_epoch(self.moment.of(()).epoch)

    @property
    def fingerprint(self) -> str:
        """A digest of the documents and the packs, which a record keeps.

        Where documents have no fingerprint, their number and lengths stand for them.
        """
        inside = DatasetIdentity.of(self.dataset)
        own = self._packs.digest_of_epochs if self.repack else self._packs.digest
        parts = [inside.num_samples, inside.fingerprint, own, self.repack]
        digest = hashlib.blake2b(b"globidx.packed.1 ", digest_size=16)
        digest.update(strict.canonical(parts))
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, sample_id: int) -> dict[str, Any]:
        return self.__getitems__([validate.sample_id(sample_id, len(self))])[0]

    def __getitems__(self, sample_ids: Sequence[int]) -> list[dict[str, Any]]:
        """The packs of a batch of ids, in the same sequence; torch's loader calls it."""
        moment = self.moment.of(sample_ids)
        packs = self._of_epoch(moment.epoch)
        chosen = [packs[id] for id in sample_ids]
        # pieces of one document may lie in several packs of a batch
        wanted = sorted({id for pack in chosen for id in pack.documents.tolist()})
        # documents that draw random numbers draw those of the same epoch
        read = self._source.__getitems__(DatedIds(wanted, moment)) if wanted else []
        documents = {
            id: self._fields_of(document, id, int(packs.lengths[id]))
            for id, document in zip(wanted, read, strict=True)
        }
        return [self._sample(pack, documents, packs) for pack in chosen]

    def __repr__(self) -> str:
        return f"PackedDataset({self._packs!r} of {type(self.dataset).__name__})"

    def _of_epoch(self, epoch: int) -> Packs:
        packs = self._packs
        if self.repack and packs.epoch != epoch:
            packs = self._packs = packs.for_epoch(epoch)
        return packs

    def _fields_of(self, document: Any, id: int, length: int) -> Fields:
        """The fields of a document that are packed, each with as many rows as it has tokens."""
        given = document if isinstance(document, Mapping) else {TOKENS: document}
        names = self.fields or tuple(given)
        for name in names:
            if name not in given or name in NAMES:
                raise ValueError(_misnamed(name, given, id))
        found = {name: torch.as_tensor(given[name]) for name in names}
        for name, value in found.items():
            if value.ndim == 0 or len(value) != length:
                raise ValueError(
                    f"document {id} has {length} tokens where packs were made, and field {name!r} has shape "
                    f"{tuple(value.shape)}: make packs of the lengths of these documents, or name the fields that "
                    "have a row for each token in fields="
                )
        return found

    def _sample(self, pack: Pack, documents: Mapping[int, Fields], packs: Packs) -> dict[str, Any]:
        pieces: dict[str, list[torch.Tensor]] = {}
        for id, start, stop in zip(*(column.tolist() for column in pack), strict=True):
            for name, value in documents[id].items():
                pieces.setdefault(name, []).append(value[start:stop])
        joined = {name: torch.cat(values) for name, values in pieces.items()}
        if self.pad is None:
            return joined | boundaries(pack)
        padded = {name: self._padded(value, name, packs.budget) for name, value in joined.items()}
        return padded | boundaries(pack, packs.budget, packs.most_documents)

    def _padded(self, value: torch.Tensor, name: str, size: int) -> torch.Tensor:
        by = self.pad.get(name) if isinstance(self.pad, Mapping) else self.pad
        if by is None or not is_held(by, value.dtype):
            raise ValueError(
                f"pad={self.pad!r} has no value that field {name!r} can hold, which is {value.dtype}; pass a number, "
                "or a dict with one for each field"
            )
        padded = value.new_full((size, *value.shape[1:]), by)
        padded[: len(value)] = value
        return padded


def _require(dataset: Any, packs: Packs, *, repack: bool) -> None:
    """TypeError or ValueError where packs are not of this dataset, or cannot be made anew."""
    if not isinstance(packs, Packs):
        raise TypeError(f"packs must be made by globidx.packing.pack, got {type(packs).__name__}")
    count = DatasetIdentity.of(dataset).num_samples
    if count != len(packs.lengths):
        raise ValueError(
            f"packs were made of {len(packs.lengths)} documents, and the dataset has {count}: make them of the lengths "
            "of these documents, such as packing.document_lengths(dataset)"
        )
    if getattr(dataset, "may_substitute", False):
        raise ValueError(
            "a document that is replaced by another, by on_error= of its dataset, would have another length than "
            "packs were made for; pass on_error='raise'"
        )
    if repack and packs.plan.refusal is not None:
        raise ValueError(
            f"repack=True needs other packs in each epoch, and as many: {packs.plan.refusal}; leave out repack, or "
            "pack with shuffle=True and method='first_fit_decreasing' or 'concat_and_split'"
        )


def _misnamed(name: str, given: Mapping[str, Any], id: int) -> str:
    if name in NAMES:
        return f"field {name!r} of document {id} has the name of what each pack has besides; name the others in fields="
    return f"document {id} has no field {name!r}; it has {', '.join(map(repr, given))}"
