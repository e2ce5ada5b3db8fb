"""What users give a stream to do with samples: which ones there are, and what becomes of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch.utils.data import Subset

Transform = Callable[[Any], Any]


class Chain:
    """A function that passes a sample through several, one after another.

    >>> Chain([str, len])(1234)
    4
    """

    # a class, since workers that are spawned need what can be pickled
    def __init__(self, transforms: Sequence[Transform]) -> None:
        self._transforms = tuple(transforms)

    def __call__(self, sample: Any) -> Any:
        """The sample that the last one makes."""
        for transform in self._transforms:
            sample = transform(sample)
        return sample


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


def batch_of(dataset: Any, ids: Sequence[int]) -> list[Any]:
    """The samples of a batch: read as one if the dataset can, as torch's loader does.

    >>> batch_of("abc", [2, 0])
    ['c', 'a']
    """
    if getattr(dataset, "__getitems__", None):
        batch: list[Any] = dataset.__getitems__(ids)
        return batch
    return [dataset[id] for id in ids]
