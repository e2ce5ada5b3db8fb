"""What can be told of a dataset: its own word, or, for datasets made of others, what follows from theirs.

torch's ``Subset`` and ``ConcatDataset`` (and what is built as they are) have no word of their own. They are recognised
by their attributes, so that this needs no torch: a selection has ``dataset`` and as many ``indices`` as samples, a
concatenation has ``datasets`` and their ``cumulative_sizes``.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.datasets.memo import Memo
from globidx.core.index.chunking import Chunking
from globidx.core.json import strict

_MOST_CHARACTERS = 256  # of a fingerprint in a record
_SPOTS = 16  # places at which indices are compared with what they were, lest all be read at every look
_memo = Memo()


class Prefix(NamedTuple):
    """The first ``num_samples`` of a dataset, and their fingerprint where they have one."""

    num_samples: int
    fingerprint: str | None


class Known(ABC):
    """What can be told of a dataset."""

    #: What to do where its fingerprint is another than a record's.
    advice = "open the data that the record was written over"
    num_files: int | None = None

    def __init__(self, dataset: Any, num_samples: int) -> None:
        self.dataset, self.num_samples = dataset, num_samples

    @property
    def fingerprint(self) -> str | None:
        """Its content identity, if there is one."""
        return self.covering(self.num_samples).fingerprint

    @abstractmethod
    def covering(self, stop: int) -> Prefix:
        """The shortest prefix that holds ids ``[0, stop)`` and stays what it is when the dataset grows."""

    @abstractmethod
    def chunking(self, num_samples: int) -> Chunking:
        """How the first samples lie in chunks; TypeError, saying why, where nobody tells."""

    @abstractmethod
    def unidentified(self) -> Iterator[Any]:
        """The datasets in it of which only the length is known."""


def known(dataset: Any) -> Known:
    """What can be told of ``dataset``; TypeError where it has no length."""
    length = _length(dataset)
    if _word(dataset) is None:
        parts = getattr(dataset, "datasets", None)
        ends = getattr(dataset, "cumulative_sizes", None)
        if isinstance(parts, (list, tuple)) and isinstance(ends, list) and ends == list(accumulate(map(len, parts))):
            return Joined(dataset, length, parts)
        indices: Any = getattr(dataset, "indices", None)
        inner = getattr(dataset, "dataset", None)
        if hasattr(inner, "__len__") and _is_list(indices) and len(indices) == length:
            selected = Selected(dataset, length, indices, inner)
            if selected.is_one:
                return selected
    return Plain(dataset, length)


def chunking_of(dataset: Any, num_samples: int) -> Chunking:
    """How the first ``num_samples`` lie in chunks; TypeError, saying why, where nobody tells."""
    found = getattr(dataset, "chunking", None)
    return found.first(num_samples) if isinstance(found, Chunking) else known(dataset).chunking(num_samples)


class Plain(Known):
    """A dataset that speaks for itself, or of which only the length is known."""

    def __init__(self, dataset: Any, num_samples: int) -> None:
        super().__init__(dataset, num_samples)
        number = getattr(dataset, "num_files", None)
        self.num_files = number if type(number) is int else None
        self._word = _word(dataset)
        if not hasattr(dataset, "fingerprint"):
            self.advice = "make the dataset by the same steps, each shuffle and split with a fixed seed"

    @property
    def fingerprint(self) -> str | None:
        """Its own word."""
        return self._word

    def of_files(self, count: int) -> str | None:
        """The fingerprint of the first ``count`` files, if it tells."""
        if count == self.num_files:
            return self._word
        fingerprint_of = getattr(self.dataset, "fingerprint_of", None)
        found = fingerprint_of(count) if callable(fingerprint_of) else None
        return found if isinstance(found, str) else None

    def covering(self, stop: int) -> Prefix:
        """Whole files, where it tells where they end."""
        chunking = getattr(self.dataset, "chunking", None)
        if self._word is not None and isinstance(chunking, Chunking) and self.num_files == len(chunking.lengths):
            count = int(np.searchsorted(chunking.offsets, stop, side="left"))
            fingerprint = self.of_files(count)
            if fingerprint is not None:
                return Prefix(int(chunking.offsets[count]), fingerprint)
        return Prefix(self.num_samples, self._word)

    def chunking(self, num_samples: int) -> Chunking:
        """Its own word."""
        found = getattr(self.dataset, "chunking", None)
        if not isinstance(found, Chunking):
            raise TypeError(f"{type(self.dataset).__name__} has no `chunking` that tells them")
        return found.first(num_samples)

    def unidentified(self) -> Iterator[Any]:
        """Itself, if it has no fingerprint; a range is told by its length."""
        if self._word is None and not isinstance(self.dataset, range):
            yield self.dataset


class Selected(Known):
    """Samples of another dataset by their ids, as ``Subset`` and ``random_split`` make.

    The ids are read once; a list that is changed in place is noticed by its length and at a few places.
    """

    advice = (
        "select the same samples in the same sequence, such as by "
        "random_split(..., generator=torch.Generator().manual_seed(0)), or keep the ids in a file"
    )

    def __init__(self, dataset: Any, num_samples: int, indices: Sequence[Any], inner: Any) -> None:
        super().__init__(dataset, num_samples)
        self._indices, self._inner = indices, known(inner)
        step = 1 + len(indices) // _SPOTS
        self._source = id(indices), len(indices), *(indices[place] for place in range(0, len(indices), step))
        own = self._inner.num_samples, self._inner.num_files, self._inner.fingerprint
        self._whole = _memo.ask(dataset, "prefix", (*self._source, *own), lambda: self._prefix(num_samples))

    @property
    def is_one(self) -> bool:
        """Whether these are ids of the other dataset at all."""
        return self._whole is not None

    def covering(self, stop: int) -> Prefix:
        """Exactly the first ``stop``: files that were appended since are in none of them."""
        prefix = self._whole if stop == self.num_samples else self._prefix(stop)
        return prefix or Prefix(stop, None)

    def chunking(self, num_samples: int) -> Chunking:
        """The chunks that the samples lie in, if those of a chunk stand together; TypeError if not."""
        source = *self._source, num_samples, self._inner.chunking(self._inner.num_samples).digest
        found = _memo.ask(self.dataset, "chunking", source, lambda: self._select(num_samples))
        if found is None:
            raise TypeError(
                f"the samples that this {type(self.dataset).__name__} takes from a chunk do not stand together; sort "
                "its indices, as in Subset(dataset, sorted(indices))"
            )
        return found

    def unidentified(self) -> Iterator[Any]:
        """What it selects from, if that is not known."""
        return self._inner.unidentified()

    def _select(self, count: int) -> Chunking | None:
        ids = self._ids(count)
        # chunks of files that were appended since have no say
        return self._inner.chunking(self._inner.covering(_stop(ids)).num_samples).select(ids)

    def _prefix(self, count: int) -> Prefix | None:
        try:
            ids = self._ids(count)
        except (TypeError, ValueError, IndexError):
            return None
        digest = _digest("selection", [list(self._inner.covering(_stop(ids)))])
        digest.update(ids.astype("<i8").tobytes())
        return Prefix(count, digest.hexdigest())

    def _ids(self, count: int) -> NDArray[np.int64]:
        indices = self._indices if count == len(self._indices) else self._indices[:count]
        return validate.integers(indices, "sample id", self._inner.num_samples)


class Joined(Known):
    """Datasets one behind the other, as ``ConcatDataset`` makes."""

    advice = "join the same datasets in the same sequence"

    def __init__(self, dataset: Any, num_samples: int, parts: Sequence[Any]) -> None:
        super().__init__(dataset, num_samples)
        self._parts = [known(part) for part in parts]

    def covering(self, stop: int) -> Prefix:
        """As many parts as it takes, the last of them as far as it takes."""
        prefixes, covered = [], 0
        for part in self._parts:
            if covered < stop:
                prefixes.append(part.covering(min(part.num_samples, stop - covered)))
                covered += prefixes[-1].num_samples
        if all(prefix.fingerprint is None for prefix in prefixes):
            return Prefix(covered, None)
        return Prefix(covered, _digest("concatenation", list(map(list, prefixes))).hexdigest())

    def chunking(self, num_samples: int) -> Chunking:
        """That of the parts, one behind the other."""
        parts = [part.chunking(part.num_samples) for part in self._parts if part.num_samples]
        source = tuple(part.digest for part in parts)
        joined = _memo.ask(self.dataset, "chunking", source, lambda: Chunking.joined(parts))
        return joined.first(num_samples)

    def unidentified(self) -> Iterator[Any]:
        """Those of the parts that are not known."""
        for part in self._parts:
            yield from part.unidentified()


def _length(dataset: Any) -> int:
    try:
        return validate.integer(len(dataset), "len(dataset)")
    except TypeError:
        if hasattr(type(dataset), "__len__"):
            raise
        raise TypeError(
            f"a sampler deals out ids below len(dataset), and {type(dataset).__name__} has no len(); an "
            "IterableDataset chooses its samples by itself, so nobody can say which it has given: make it a map-style "
            "dataset, with __len__ and __getitem__"
        ) from None


def _word(dataset: Any) -> str | None:
    """The fingerprint that a dataset has: ours, or that of Hugging Face's ``datasets``."""
    for name in ("fingerprint", "_fingerprint"):
        found = getattr(dataset, name, None)
        if not isinstance(found, str):
            continue
        if not 0 < len(found) <= _MOST_CHARACTERS:
            raise ValueError(
                f"the fingerprint of {type(dataset).__name__} has {len(found)} characters, a record takes 1 to "
                f"{_MOST_CHARACTERS}; return a digest of it, such as hashlib.sha256(text.encode()).hexdigest()"
            )
        return found
    return None


def _is_list(indices: Any) -> bool:
    return isinstance(indices, (list, tuple, range)) or (
        hasattr(indices, "__array__") and getattr(indices, "ndim", 1) == 1 and hasattr(indices, "__len__")
    )


def _stop(ids: NDArray[np.int64]) -> int:
    return int(ids.max()) + 1 if len(ids) else 0


def _digest(kind: str, parts: list[Any]) -> hashlib.blake2b:
    digest = hashlib.blake2b(f"globidx.{kind}.1 ".encode(), digest_size=16)
    digest.update(strict.canonical(parts))
    return digest
