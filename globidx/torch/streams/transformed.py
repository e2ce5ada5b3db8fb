"""A map-style dataset whose samples pass through functions, and a choice of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Dataset, Subset

from globidx.torch.loops.quarantine import SubstitutedSamples

Transform = Callable[[Any], Any]


class Transformed(Dataset[Any]):
    """The samples of ``dataset``, each passed through ``transforms``, one after another.

    All else is as the dataset has it: its fingerprint, how it reads batches, what it replaces.

    >>> Transformed(range(5), [str, lambda text: text + "!"]).__getitems__([3, 1])
    ['3!', '1!']
    """

    def __init__(self, dataset: Any, transforms: Sequence[Transform]) -> None:
        self.dataset, self._transforms = dataset, tuple(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, id: Any) -> Any:
        return self._transform(self.dataset[id])

    def __getitems__(self, ids: Sequence[int]) -> list[Any]:
        """The samples of a batch."""
        samples = samples_of(self.dataset, ids)
        transformed = [self._transform(sample) for sample in samples]
        if isinstance(samples, SubstitutedSamples):
            return SubstitutedSamples(transformed, samples.replaced)
        return transformed

    def __getattr__(self, name: str) -> Any:
        # a copy that is being made has no dataset yet, and must not ask for it
        if name.startswith("_") or name == "dataset":
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.dataset, name)

    def _transform(self, sample: Any) -> Any:
        for transform in self._transforms:
            sample = transform(sample)
        return sample


def samples_of(dataset: Any, ids: Sequence[int]) -> list[Any]:
    """The samples of a batch: read as one if the dataset can, as torch's loader does.

    >>> samples_of("abc", [2, 0])
    ['c', 'a']
    """
    if getattr(dataset, "__getitems__", None):
        batch: list[Any] = dataset.__getitems__(ids)
        return batch
    return [dataset[id] for id in ids]


def chosen(dataset: Any, keeps: Callable[[Any], bool]) -> Any:
    """The samples of a dataset that a function keeps, as a dataset.

    One that filters by itself, as Hugging Face's do, does so; of any other each sample is read once.

    >>> list(chosen(range(10), lambda number: number % 3 == 0))
    [0, 3, 6, 9]
    """
    own = getattr(dataset, "filter", None)
    if callable(own):
        return own(keeps)
    return Subset(dataset, [id for id in range(len(dataset)) if keeps(dataset[id])])
