"""Metadata of a dataset: its own or, if it is made of others, what follows from theirs.

torch's ``Subset`` and ``ConcatDataset``, and classes built like them, offer none themselves. They
are recognised by their attributes, so that this needs no torch: a selection has ``dataset`` and as
many ``indices`` as samples, a concatenation has ``datasets`` and their ``cumulative_sizes``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.datasets.memo import Memo
from globidx.core.index.chunking import Chunking
from globidx.core.json import strict

#: The most characters of a fingerprint in a record.
_MOST_CHARACTERS = 256
#: How many indices are compared with what they were. To read all of them at every look would be
#: slow.
_SPOTS = 16
#: How many datasets inside one another are looked at.
DEEPEST = 8
_memo = Memo()


class Prefix(NamedTuple):
    """The first ``num_samples`` of a dataset, and their fingerprint if there is one."""

    num_samples: int
    fingerprint: str | None


class Known(ABC):
    """The metadata of a dataset."""

    #: What to do if its fingerprint is not that of a record.
    advice = "open the data that the record was written over"
    num_files: int | None = None

    def __init__(self, dataset: Any, num_samples: int) -> None:
        self.dataset, self.num_samples = dataset, num_samples

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the dataset, if there is one."""
        return self.covering(self.num_samples).fingerprint

    @abstractmethod
    def covering(self, stop: int) -> Prefix:
        """Return the shortest prefix that holds ids ``[0, stop)`` and survives growth.

        It does not change when samples are appended.
        """

    @abstractmethod
    def chunking(self, num_samples: int) -> Chunking:
        """Return how the first samples are stored in chunks.

        TypeError, with the reason, if that is not known.
        """

    @abstractmethod
    def unidentified(self) -> Iterator[Any]:
        """Iterate over the datasets in it of which only the length is known."""


def known(dataset: Any) -> Known:
    """Return the metadata of ``dataset``; TypeError if it has no length."""
    length = _length(dataset)
    # what a dataset says of itself goes before what its parts say
    if _own_fingerprint(dataset) is None:
        kept = _same_ids_as(dataset, length)
        if kept is not None:
            return kept
        parts = joined_in(dataset)
        if parts is not None:
            return Concatenation(dataset, length, parts)
        selected = selected_in(dataset)
        if selected is not None:
            selection = Selection(dataset, length, *selected)
            if selection.is_valid:
                return selection
    return Plain(dataset, length)


def joined_in(dataset: Any) -> Sequence[Any] | None:
    """Return the datasets that one has one after the other; None if it is no concatenation."""
    parts = getattr(dataset, "datasets", None)
    ends = getattr(dataset, "cumulative_sizes", None)
    if isinstance(parts, (list, tuple)) and isinstance(ends, list):
        # a mixture that interleaves its parts may have both attributes, but not these sums
        return parts if ends == list(accumulate(map(len, parts))) else None
    return None


def selected_in(dataset: Any) -> tuple[Any, Any] | None:
    """Return the indices that a dataset selects of another one, and that; None if it selects none."""
    indices: Any = getattr(dataset, "indices", None)
    source = getattr(dataset, "dataset", None)
    # a Subset by whatever name: the core knows no torch, and a registry of classes would
    if hasattr(source, "__len__") and _is_list(indices) and len(indices) == len(dataset):
        return indices, source
    return None


def datasets_inside(dataset: Any) -> list[Any]:
    """Return the datasets that a wrapper holds, by the names that torch's have for them; none of any other.

    >>> from types import SimpleNamespace as Wrapper
    >>> datasets_inside(Wrapper(dataset=range(3))), datasets_inside(Wrapper(datasets=(1, 2)))
    ([range(0, 3)], [1, 2])
    """
    parts = getattr(dataset, "datasets", None)
    names = ("dataset", "same_ids_as")
    inside = (
        parts
        if isinstance(parts, (list, tuple))
        else [getattr(dataset, name, None) for name in names]
    )
    return [one for one in inside if one is not None]


def nested_datasets(dataset: Any, depth: int = 0) -> Iterator[Any]:
    """Yield a dataset and all that lie in it, each before those that it holds.

    >>> from types import SimpleNamespace as Wrapper
    >>> [type(one).__name__ for one in nested_datasets(Wrapper(dataset=range(3)))]
    ['SimpleNamespace', 'range']
    """
    yield dataset
    # a wrapper may hold itself
    if depth < DEEPEST:
        for one in datasets_inside(dataset):
            yield from nested_datasets(one, depth + 1)


def chunking_of(dataset: Any, num_samples: int) -> Chunking:
    """Return how the first samples are stored in chunks.

    TypeError, with the reason, if that is not known.
    """
    chunking = getattr(dataset, "chunking", None)
    if isinstance(chunking, Chunking):
        return chunking.first(num_samples)
    return known(dataset).chunking(num_samples)


class Plain(Known):
    """A dataset that offers its own metadata, or of which only the length is known."""

    def __init__(self, dataset: Any, num_samples: int) -> None:
        super().__init__(dataset, num_samples)
        num_files = getattr(dataset, "num_files", None)
        self.num_files = num_files if type(num_files) is int else None
        self._fingerprint = _own_fingerprint(dataset)
        if getattr(dataset, "fingerprint", None) is None:
            self.advice = (
                "make the dataset by the same steps, each shuffle and split with a fixed seed"
            )
            # Hugging Face's, which also hashes paths, times of files, and functions
            if self._fingerprint is not None:
                self.advice += (
                    " (if you know that it holds the same samples, set the record's: dataset.fingerprint = "
                    "'...')"
                )

    @property
    def fingerprint(self) -> str | None:
        """The attribute of that name."""
        return self._fingerprint

    def of_files(self, count: int) -> str | None:
        """Return the fingerprint of the first ``count`` files, if it is known."""
        if count == self.num_files:
            return self._fingerprint
        return self._told("fingerprint_of", count)

    def of_samples(self, count: int) -> str | None:
        """Return the fingerprint of the first ``count`` samples, if the dataset tells that of any number."""
        return self._told("fingerprint_of_samples", count)

    def _told(self, method: str, count: int) -> str | None:
        """What a method of the dataset returns, which it need not have."""
        fingerprint_of = getattr(self.dataset, method, None)
        fingerprint = fingerprint_of(count) if callable(fingerprint_of) else None
        return fingerprint if isinstance(fingerprint, str) else None

    def covering(self, stop: int) -> Prefix:
        """Return as many samples if the dataset tells their fingerprint, else whole files, else all of it."""
        fingerprint = self.of_samples(stop) if stop <= self.num_samples else None
        if fingerprint is not None:
            return Prefix(stop, fingerprint)
        chunking = getattr(self.dataset, "chunking", None)
        has_files = isinstance(chunking, Chunking) and self.num_files == len(chunking.lengths)
        if self._fingerprint is not None and isinstance(chunking, Chunking) and has_files:
            # the fewest whole files that hold `stop` samples
            count = int(np.searchsorted(chunking.offsets, stop, side="left"))
            fingerprint = self.of_files(count)
            if fingerprint is not None:
                return Prefix(int(chunking.offsets[count]), fingerprint)
        return Prefix(self.num_samples, self._fingerprint)

    def chunking(self, num_samples: int) -> Chunking:
        """Return the attribute of that name, for the first samples."""
        chunking = getattr(self.dataset, "chunking", None)
        if not isinstance(chunking, Chunking):
            kept = _same_ids_as(self.dataset, self.num_samples)
            if kept is not None:
                return kept.chunking(num_samples)
            raise TypeError(f"{type(self.dataset).__name__} has no `chunking`: add that attribute")
        return chunking.first(num_samples)

    def unidentified(self) -> Iterator[Any]:
        """Yield the dataset if it has no fingerprint. A range needs none: its length says all."""
        if self._fingerprint is None and not isinstance(self.dataset, range):
            yield self.dataset


class Selection(Known):
    """Samples of another dataset by their ids, as ``Subset`` and ``random_split`` make it.

    The ids are read once. Whether the list is changed in place is seen by its length and a few of
    its ids.
    """

    advice = (
        "select the same samples in the same sequence, such as by "
        "random_split(..., generator=torch.Generator().manual_seed(0)), or keep the ids in a file"
    )

    def __init__(self, dataset: Any, num_samples: int, indices: Sequence[Any], source: Any) -> None:
        super().__init__(dataset, num_samples)
        self._indices, self._source = indices, known(source)
        spots = range(0, len(indices), 1 + len(indices) // _SPOTS)
        # all indices would be read at every step, to find out that nobody has changed them
        self._version = id(indices), len(indices), *(indices[spot] for spot in spots)
        own = self._source.num_samples, self._source.num_files, self._source.fingerprint
        self._whole = _memo.get(
            dataset, "prefix", (*self._version, *own), lambda: self._prefix(num_samples)
        )

    @property
    def is_valid(self) -> bool:
        """Whether all indices are ids of the other dataset."""
        return self._whole is not None

    def covering(self, stop: int) -> Prefix:
        """Return exactly the first ``stop`` samples.

        None of them is in a file that was appended later.
        """
        prefix = self._whole if stop == self.num_samples else self._prefix(stop)
        return prefix or Prefix(stop, None)

    def chunking(self, num_samples: int) -> Chunking:
        """Return the chunks of the selected samples.

        TypeError if those of a chunk are not next to each other.
        """
        version = (
            *self._version,
            num_samples,
            self._source.chunking(self._source.num_samples).digest,
        )
        chunking = _memo.get(self.dataset, "chunking", version, lambda: self._select(num_samples))
        if chunking is None:
            raise TypeError(
                f"this {type(self.dataset).__name__} does not keep the samples of a chunk next to each other; sort its "
                "indices, as in Subset(dataset, sorted(indices))"
            )
        return chunking

    def unidentified(self) -> Iterator[Any]:
        """Iterate over those of the other dataset."""
        return self._source.unidentified()

    def _select(self, count: int) -> Chunking | None:
        ids = self._ids(count)
        # Files that were appended later must not change the chunks of these samples.
        prefix = self._source.covering(_stop(ids))
        return self._source.chunking(prefix.num_samples).select(ids)

    def _prefix(self, count: int) -> Prefix | None:
        try:
            ids = self._ids(count)
        except (TypeError, ValueError, IndexError):
            return None
        digest = _digest("selection", [list(self._source.covering(_stop(ids)))])
        # little-endian, so that a record is the same on every platform
        digest.update(ids.astype("<i8").tobytes())
        return Prefix(count, digest.hexdigest())

    def _ids(self, count: int) -> NDArray[np.int64]:
        indices = self._indices if count == len(self._indices) else self._indices[:count]
        return validate.integers(indices, "sample id", self._source.num_samples)


class Concatenation(Known):
    """Datasets one after the other, as ``ConcatDataset`` makes it."""

    advice = "join the same datasets in the same sequence"

    def __init__(self, dataset: Any, num_samples: int, parts: Sequence[Any]) -> None:
        super().__init__(dataset, num_samples)
        self._parts = [known(part) for part in parts]

    def covering(self, stop: int) -> Prefix:
        """Return as many parts as are needed, and as much as is needed of the last one."""
        prefixes, covered = [], 0
        for part in self._parts:
            if covered < stop:
                prefixes.append(part.covering(min(part.num_samples, stop - covered)))
                covered += prefixes[-1].num_samples
        # a digest of nothing but lengths would look like an identity
        if all(prefix.fingerprint is None for prefix in prefixes):
            return Prefix(covered, None)
        return Prefix(covered, _digest("concatenation", list(map(list, prefixes))).hexdigest())

    def chunking(self, num_samples: int) -> Chunking:
        """Return those of the parts, one after the other."""
        parts = [part.chunking(part.num_samples) for part in self._parts if part.num_samples]
        version = tuple(part.digest for part in parts)
        joined = _memo.get(self.dataset, "chunking", version, lambda: Chunking.joined(parts))
        return joined.first(num_samples)

    def unidentified(self) -> Iterator[Any]:
        """Iterate over those of the parts."""
        for part in self._parts:
            yield from part.unidentified()


def _length(dataset: Any) -> int:
    try:
        length = validate.integer(len(dataset), "len(dataset)")
    except TypeError:
        # its own `__len__` has raised: that is the error to show
        if hasattr(type(dataset), "__len__"):
            raise
        # streams of Hugging Face's library, whose own word for it this is
        streams = type(dataset).__module__.partition(".")[0] == "datasets"
        raise TypeError(
            f"a sampler needs len(dataset), and {type(dataset).__name__} has no __len__; an IterableDataset chooses "
            "its samples itself, so that none of them can be recorded: make it a map-style dataset, with __len__ and "
            f"__getitem__{', such as load_dataset(..., streaming=False)' if streams else ''}"
        ) from None
    # the splits of a data set, and not samples
    if isinstance(dataset, Mapping) and length and 0 not in dataset:
        keys = list(dataset)
        raise TypeError(
            f"a sampler yields ids from 0, but this {type(dataset).__name__} has the keys "
            f"{', '.join(map(repr, keys[:3]))}{', ...' if length > 3 else ''}: choose one of its parts, such as "
            f"dataset[{keys[0]!r}]"
        )
    return length


def _same_ids_as(dataset: Any, length: int) -> Known | None:
    """The metadata of the dataset whose ids those of a wrapper are, if the wrapper names one."""
    kept = getattr(dataset, "same_ids_as", None)
    if kept is None:
        return None
    found = known(kept)
    if found.num_samples != length:
        raise ValueError(
            f"same_ids_as of {type(dataset).__name__}, which has {length} samples, is a {type(kept).__name__} of "
            f"{found.num_samples}; name a dataset whose ids mean the same samples, or none"
        )
    return found


def refuse_bad_fingerprint(fingerprint: Any, of: str) -> None:
    """TypeError or ValueError for a fingerprint that no record takes; ``of`` names whose it is."""
    if not isinstance(fingerprint, str):
        kind = "a method" if callable(fingerprint) else f"of type {type(fingerprint).__name__}"
        raise TypeError(
            f"the fingerprint of {of} is {kind}, but a record takes a str of 1 to {_MOST_CHARACTERS} characters, or "
            "None where it is not known; make it an attribute or a property of that type"
        )
    if not 0 < len(fingerprint) <= _MOST_CHARACTERS:
        raise ValueError(
            f"the fingerprint of {of} has {len(fingerprint)} characters, but a record takes 1 "
            f"to {_MOST_CHARACTERS}; return a digest of it, such as hashlib.sha256(text.encode()).hexdigest()"
        )


def _own_fingerprint(dataset: Any) -> str | None:
    """Return the fingerprint that a dataset offers.

    It offers one as ``IdentifiedDataset`` or as Hugging Face's ``datasets`` do.
    """
    fingerprint = getattr(dataset, "fingerprint", None)
    # Hugging Face's name for it; in any other class it may be anything
    private = getattr(dataset, "_fingerprint", None)
    if fingerprint is None and isinstance(private, str):
        fingerprint = private
    if fingerprint is not None:
        refuse_bad_fingerprint(fingerprint, type(dataset).__name__)
    return fingerprint


def _is_list(indices: Any) -> bool:
    return isinstance(indices, (list, tuple, range)) or (
        hasattr(indices, "__array__")
        and getattr(indices, "ndim", 1) == 1
        and hasattr(indices, "__len__")
    )


def _stop(ids: NDArray[np.int64]) -> int:
    return int(ids.max()) + 1 if len(ids) else 0


def _digest(kind: str, parts: list[Any]) -> hashlib.blake2b:
    digest = hashlib.blake2b(f"globidx.{kind}.1 ".encode(), digest_size=16)
    digest.update(strict.canonical(parts))
    return digest
