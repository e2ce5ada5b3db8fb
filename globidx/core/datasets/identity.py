"""The identity of a dataset: which samples its ids mean, as far as it can tell.

A record keeps it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from globidx.core.datasets.known import Plain, known
from globidx.core.index.chunking import Chunking


class IdentifiedDataset(Protocol):
    """What a map-style dataset may offer so that a record is never resumed over other samples.

    Only ``fingerprint`` is needed. The other members are optional: they are used where a dataset
    has them. A class that inherits from this one gets the defaults below.

    See Also
    --------
    FileCacheDataset : offers all of it.

    Notes
    -----
    torch's ``Subset``, ``random_split`` and ``ConcatDataset`` have none of these members; theirs
    follow from the datasets inside. A ``datasets.Dataset`` of Hugging Face has a fingerprint of
    its own, which is used. Of any other dataset only the length is known, and the first save or
    restore of a ``CheckpointManager`` logs a warning about it.

    A wrapper that changes how samples look, and not which they are, may name the dataset inside
    as its ``same_ids_as``: all members are then those of that one, but for those of its own.

    Examples
    --------
    A wrapper that keeps the ids may also pass these members on:

    >>> class Augmented(IdentifiedDataset):
    ...     def __init__(self, dataset, augment):
    ...         self.dataset, self.augment = dataset, augment
    ...     def __len__(self):
    ...         return len(self.dataset)
    ...     def __getitem__(self, id):
    ...         return self.augment(self.dataset[id])
    ...     @property
    ...     def fingerprint(self):
    ...         return self.dataset.fingerprint
    ...     @property
    ...     def chunking(self):
    ...         return self.dataset.chunking                # for orders.ChunkShuffle
    """

    def __len__(self) -> int:
        """Return the number of samples; ids are ``[0, len)``."""

    @property
    def fingerprint(self) -> str | None:
        """A digest of 1 to 256 characters that differs whenever an id means another sample."""

    @property
    def num_files(self) -> int | None:
        """The number of files, or other parts, which hold the samples in id order."""
        return None

    def fingerprint_of(self, num_files: int) -> str | None:
        """Return the fingerprint of the first files alone.

        It distinguishes appended files from other data.

        Parameters
        ----------
        num_files : int
            How many of the first files.

        Returns
        -------
        str or None
            What ``fingerprint`` was when there were no others; None if that is not known.
        """
        return self.fingerprint if num_files == self.num_files else None

    def fingerprint_of_samples(self, num_samples: int) -> str | None:
        """Return the fingerprint of the first samples alone, where they are not those of whole files.

        Parameters
        ----------
        num_samples : int
            How many of the first samples.

        Returns
        -------
        str or None
            What ``fingerprint`` was when there were no others; None if ``fingerprint_of`` tells.
        """
        return self.fingerprint if num_samples == len(self) else None

    @property
    def chunking(self) -> Chunking | None:
        """How samples are stored in chunks: ``orders.Chunking.of(lengths, chunk_lengths)``.

        ``ChunkShuffle`` asks for it.
        """
        return None


@dataclass(frozen=True)
class DatasetIdentity:
    """What must not change under a record: how many samples there are, and which.

    Which is known only if the dataset has a fingerprint.
    """

    num_samples: int
    num_files: int | None = None
    fingerprint: str | None = None

    @classmethod
    def of(cls, dataset: Any) -> DatasetIdentity:
        """Return the identity of anything with ``len()``.

        ``IdentifiedDataset`` says what it may offer.

        Raises
        ------
        TypeError
            If ``dataset`` has no length, as an IterableDataset.
        ValueError
            If its fingerprint is empty, or too long for a record.
        """
        found = known(dataset)
        return cls(
            num_samples=found.num_samples, num_files=found.num_files, fingerprint=found.fingerprint
        )

    def begins(self, dataset: Any) -> bool:
        """Return whether ``dataset`` is this one, or this one with samples appended."""
        if self == DatasetIdentity.of(dataset):
            return True
        found = known(dataset)
        # without a fingerprint a longer dataset is another one, for all that is known
        if self.fingerprint is None or self.num_samples > found.num_samples:
            return False
        if isinstance(found, Plain) and found.of_samples(self.num_samples) is None:
            if (
                self.num_files is None
                or found.num_files is None
                or self.num_files >= found.num_files
            ):
                return False
            # whole files only: where samples were added within a file, all later ids mean others
            return found.of_files(self.num_files) == self.fingerprint
        # what is made of others has no files of its own; its first samples have a fingerprint
        return found.covering(self.num_samples) == (self.num_samples, self.fingerprint)


def advice(dataset: Any) -> str:
    """Return what to do if ``dataset`` is not the one that a record was written over."""
    return known(dataset).advice


def unidentified(dataset: Any) -> str | None:
    """Return a warning if a record cannot tell this dataset from others of its length, else None.

    >>> unidentified(range(10)) is None
    True
    >>> print(unidentified([5, 6, 7]))
    of this list only its length (3) is known
    """
    parts = list(known(dataset).unidentified())
    if not parts:
        return None
    if parts[0] is dataset:
        return f"of this {type(dataset).__name__} only its length ({len(dataset)}) is known"
    kinds = ", ".join(sorted({type(part).__name__ for part in parts}))
    return f"of the {kinds} in this {type(dataset).__name__} only the length is known"
