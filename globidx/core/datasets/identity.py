"""Which samples an id means: what a dataset tells of its content, and what a record keeps of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from globidx.core.datasets.known import Plain, known
from globidx.core.index.chunking import Chunking


class IdentifiedDataset(Protocol):
    """What a map-style dataset may tell of itself, so that a record is never resumed over other samples.

    Only ``fingerprint`` is needed, and the others are looked for; a class that inherits from this one has them as
    they stand here. ``FileCacheDataset`` tells all of it. Of torch's ``Subset``, ``random_split`` and
    ``ConcatDataset`` it is worked out from the datasets in them; ``datasets.Dataset`` of Hugging Face has a
    fingerprint of its own, which is taken. Of anything else only the length is known, and the first save or restore
    of a ``CheckpointManager`` logs a warning that says so. A wrapper that keeps ids as they are passes on what it
    wraps has:

    >>> class Augmented(IdentifiedDataset):
    ...     def __init__(self, inner, augment):
    ...         self.inner, self.augment = inner, augment
    ...     def __len__(self):
    ...         return len(self.inner)
    ...     def __getitem__(self, id):
    ...         return self.augment(self.inner[id])
    ...     @property
    ...     def fingerprint(self):
    ...         return DatasetIdentity.of(self.inner).fingerprint
    ...     @property
    ...     def chunking(self):
    ...         return self.inner.chunking                  # for orders.ChunkShuffle
    """

    def __len__(self) -> int:
        """How many samples there are; ids are ``[0, len)``."""

    @property
    def fingerprint(self) -> str | None:
        """Content identity, 1 to 256 characters: another one wherever an id means another sample."""

    @property
    def num_files(self) -> int | None:
        """How many files (or other parts) the samples lie in, in the sequence of their ids."""
        return None

    def fingerprint_of(self, num_files: int) -> str | None:
        """What ``fingerprint`` was when there were only the first ``num_files``: tells growth from other data."""
        return self.fingerprint if num_files == self.num_files else None

    @property
    def chunking(self) -> Chunking | None:
        """How the samples lie in chunks, ``orders.Chunking.of(lengths, chunk_lengths)``, for ``ChunkShuffle``."""
        return None


@dataclass(frozen=True)
class DatasetIdentity:
    """What must not change under a record: how many samples, and, where the dataset can tell, which."""

    num_samples: int
    num_files: int | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, dataset: Any) -> DatasetIdentity:
        """Identity of anything with ``len()``, as ``IdentifiedDataset`` says where it has one.

        Raises
        ------
        TypeError
            ``dataset`` has no length, as an IterableDataset has none.
        ValueError
            Its fingerprint is empty or too long for a record.
        """
        found = known(dataset)
        return cls(num_samples=found.num_samples, num_files=found.num_files, fingerprint=found.fingerprint)

    def begins(self, dataset: Any) -> bool:
        """Whether ``dataset`` is the one identified here, or that one with samples appended."""
        if self == DatasetIdentity.of(dataset):
            return True
        found = known(dataset)
        if self.fingerprint is None or self.num_samples > found.num_samples:
            return False
        if isinstance(found, Plain):
            if self.num_files is None or found.num_files is None or self.num_files >= found.num_files:
                return False
            return found.of_files(self.num_files) == self.fingerprint
        return found.covering(self.num_samples) == (self.num_samples, self.fingerprint)


def advice(dataset: Any) -> str:
    """What to do where ``dataset`` is not the one that a record was written over."""
    return known(dataset).advice


def unidentified(dataset: Any) -> str | None:
    """A sentence where a record cannot tell this dataset's samples from others of the same number; None where it can.

    >>> unidentified(range(10)) is None
    True
    >>> print(unidentified([5, 6, 7]))
    of this list only its length (3) is known
    """
    parts = list(known(dataset).unidentified())
    if not parts:
        return None
    told = f"of this {type(dataset).__name__} only its length ({len(dataset)}) is known"
    if parts[0] is dataset:
        return told
    kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
    return f"of the {kinds} in this {type(dataset).__name__} only the length is known"
