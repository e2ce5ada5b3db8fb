"""The dataset over any objects that have samples: other libraries' datasets, one's own, and files beside them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch.utils.data

from globidx.core import validate
from globidx.core.datasets.known import known, refuse_bad_fingerprint
from globidx.core.generator import GLOBALS, START, Moment
from globidx.torch.loops.moments import DatedIds, SharedMoment, seeded
from globidx.torch.loops.quarantine import SubstitutedSamples
from globidx.torch.sources.concatenation import Concatenated
from globidx.torch.sources.transform import asks_for_rng, transformed


class MapDataset(torch.utils.data.Dataset[Any]):
    """A map-style dataset of any objects with ``len()`` and items, one after the other.

    It adds what ``FileCacheDataset`` has: a record knows its samples, ``transform`` is given the
    sample's own generator, and a batch is read from each source at once, where that has
    ``__getitems__``.

    Parameters
    ----------
    *sources : objects with ``__len__`` and ``__getitem__``
        Such as a ``datasets.Dataset`` of Hugging Face, torch's datasets, lists, and
        ``FileCacheDataset``. Ids count through them. torch's ``ConcatDataset`` is read by its
        parts.
    fingerprint : str, optional
        1 to 256 characters that differ whenever an id means another sample. By default it follows
        from the sources, as that of a ``ConcatDataset`` does.
    transform : callable, optional
        Called with each sample, or with the sample and its own ``numpy.random.Generator``, as for
        ``FileCacheDataset``.
    seed_transforms : bool, default False
        Whether the global generators of ``torch``, ``random`` and numpy are seeded by the sample
        while it is read and transformed, for datasets that draw from these in ``__getitem__``.
        Sources are then asked for one sample at a time.
    with_id : bool, default False
        Whether to return ``(sample, id)``, with the id that was asked for.

    Attributes
    ----------
    datasets : list
        The sources.

    Raises
    ------
    TypeError, ValueError
        If there is no source, one has no length or no items, or the fingerprint is none that a
        record takes.

    Notes
    -----
    The last source may grow between epochs. Make the dataset anew when another one has changed.

    Examples
    --------
    >>> def noisy(sample, rng):
    ...     return sample + rng.integers(10)
    >>> dataset = MapDataset([10, 20, 30], range(2), fingerprint="tens-1", transform=noisy)
    >>> len(dataset), dataset.__getitems__([4, 0]) == [dataset[4], dataset[0]]
    (5, True)
    """

    def __init__(
        self,
        *sources: Any,
        fingerprint: str | None = None,
        transform: Callable[..., Any] | None = None,
        seed_transforms: bool = False,
        with_id: bool = False,
    ) -> None:
        if not sources:
            raise TypeError("MapDataset has no source: pass one object with samples, or several")
        for source in sources:
            _refuse_no_items(source)
        if fingerprint is not None:
            refuse_bad_fingerprint(fingerprint, "this MapDataset")
        self.datasets = list(sources)
        #: The ``fingerprint`` that was given, or None: that of the sources counts.
        self.fingerprint = fingerprint
        self.seed_transforms, self.with_id = seed_transforms, with_id
        self.transform = transform
        self._takes_rng = asks_for_rng(transform)
        self._concatenated = Concatenated(sources)
        is_random = seed_transforms or self._takes_rng
        #: Seed and epoch as a sampler set them, where samples depend on these.
        self.moment = SharedMoment() if is_random else None

    @property
    def cumulative_sizes(self) -> list[int]:
        """The id behind the last one of each source, as ``ConcatDataset`` names it."""
        return self._concatenated.ends

    @property
    def same_ids_as(self) -> Any:
        """The only source, whose ids are those of this dataset; None if there are several."""
        return self.datasets[0] if len(self.datasets) == 1 else None

    @property
    def may_substitute(self) -> bool:
        """Whether a source may replace a sample by another."""
        return self._concatenated.may_substitute

    def __len__(self) -> int:
        return len(self._concatenated)

    def __getitem__(self, sample_id: int) -> Any:
        return self.__getitems__([validate.sample_id(sample_id, len(self))])[0]

    def __getitems__(self, sample_ids: Sequence[int]) -> list[Any]:
        """Samples of a batch of ids, in the same sequence; torch's loader calls it."""
        for id in sample_ids:
            validate.sample_id(id, len(self))
        moment = START if self.moment is None else self.moment.of(sample_ids)
        if not self.seed_transforms:
            return self._samples(sample_ids, moment)
        parts = []
        for id in sample_ids:
            with seeded(moment.rng(id, GLOBALS)):
                parts.append(self._samples([id], moment))
        replaced = [place for place, part in enumerate(parts) if _replaced(part)]
        return _with(replaced, [sample for part in parts for sample in part])

    def _samples(self, ids: Sequence[int], moment: Moment) -> list[Any]:
        # sources that draw, too, are read for the same epoch
        read = self._concatenated.__getitems__(
            ids if self.moment is None else DatedIds(ids, moment)
        )
        samples = []
        for sample, id in zip(read, ids, strict=True):
            made = transformed(sample, id, moment, self.transform, with_rng=self._takes_rng)
            samples.append((made, operator.index(id)) if self.with_id else made)
        return _with(_replaced(read), samples)

    def __repr__(self) -> str:
        kinds = ", ".join(type(source).__name__ for source in self.datasets)
        return f"MapDataset({len(self)} samples of {kinds})"


def _replaced(samples: list[Any]) -> Sequence[int]:
    return samples.replaced if isinstance(samples, SubstitutedSamples) else ()


def _with(replaced: Sequence[int], samples: list[Any]) -> list[Any]:
    return SubstitutedSamples(samples, tuple(replaced)) if replaced else samples


def _refuse_no_items(source: Any) -> None:
    """TypeError for what has no ids: a stream, the splits of a data set, a set."""
    known(source)
    if not hasattr(type(source), "__getitem__"):
        raise TypeError(
            f"a source has samples by id, and {type(source).__name__} has no __getitem__; pass an object with "
            "__len__ and __getitem__, such as a list"
        )
