"""Datasets in given shares: their samples, and the order that they are read in."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from globidx.core import validate
from globidx.core.metrics.transform import MetricTransform
from globidx.core.mixture.course import StopCriteria
from globidx.core.orders.base import Order
from globidx.core.orders.mixture import Mixture
from globidx.core.orders.plain import Shuffle
from globidx.torch.sources.map_dataset import MapDataset


class InterleavedDataset(MapDataset):
    """Datasets one after the other, and the order that reads them in exact shares.

    A ``ResumableDistributedSampler`` over it takes its ``order``, so that shares hold on any number
    of ranks, and after any resume.

    Parameters
    ----------
    datasets : mapping or sequence
        Map-style datasets, by name or not. One of them may be an ``InterleavedDataset``, whose
        samples keep their shares inside its own.
    weights : mapping or sequence of numbers
        The share of each dataset, by the same names. If they do not sum to 1 they are taken relative
        to their sum, with a warning.
    seed : int, default 0
        The seed of ``iter(dataset)``. A sampler has its own: pass it the same one.
    dataset_name : str, default "interleaved_dataset"
        The name of the mixture, for a mixture that it is part of.
    stop : StopCriteria or str
        When an epoch ends.
    orders : mapping or sequence of Order, optional
        The order of each dataset on its own passes; ``orders.Shuffle()`` by default.
    num_samples : int, optional
        The samples of an epoch that is to cycle forever.
    transform : MetricTransform, optional
        Such as ``globidx.metrics.StandardMetricTransform()``: a copy for each dataset, with its
        name, adds metrics to the samples. Inner mixtures have their own.

    Raises
    ------
    TypeError, ValueError
        If names occur twice, or are others for the weights than for the datasets; and for what
        ``orders.Mixture`` refuses.

    Notes
    -----
    Its ids are those of a ``ConcatDataset`` of the same datasets, and so is its identity in records.
    To go on with other weights, load a record with a mixture that has these: they hold from the
    first position on that was not dealt yet.

    Examples
    --------
    >>> mixed = InterleavedDataset({"web": range(60), "code": range(60, 90)}, {"web": 0.8, "code": 0.2})
    >>> first = list(mixed)[:20]
    >>> len(mixed), mixed.names, sum(sample >= 60 for sample in first[:10]), sum(sample >= 60 for sample in first)
    (90, ['web', 'code'], 2, 4)
    """

    def __init__(
        self,
        datasets: Mapping[str, Any] | Sequence[Any],
        weights: Mapping[str, float] | Sequence[float],
        seed: int = 0,
        *,
        dataset_name: str = "interleaved_dataset",
        stop: str = StopCriteria.CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED,
        orders: Mapping[str, Order] | Sequence[Order] | None = None,
        num_samples: int | None = None,
        transform: MetricTransform | None = None,
    ) -> None:
        #: The names of the datasets.
        self.names = _names(datasets)
        parts = _by_name(datasets, self.names, "datasets")
        if transform is not None and not isinstance(transform, MetricTransform):
            raise TypeError(
                f"transform must add metrics, as StandardMetricTransform() does, got {transform!r:.80}; transform "
                "samples in each dataset, where their names are known"
            )
        super().__init__(
            *(_measured(*one, transform) for one in zip(parts, self.names, strict=True))
        )
        self.seed = validate.integer(seed, "seed")
        self.dataset_name = dataset_name
        own = [part.order if isinstance(part, InterleavedDataset) else None for part in parts]
        given = [None] * len(parts) if orders is None else _by_name(orders, self.names, "orders")
        #: The order that a sampler reads them in.
        self.order: Mixture = Mixture(
            [len(part) for part in parts],
            _by_name(weights, self.names, "weights"),
            stop=stop,
            orders=[one or inner or Shuffle() for one, inner in zip(given, own, strict=True)],
            num_samples=num_samples,
        )

    def __iter__(self) -> Iterator[Any]:
        """The samples of the first epoch, on one rank."""
        for ids in self.order.bind(len(self), seed=self.seed, epoch=0).ids(block=64):
            yield from self.__getitems__(ids.tolist())

    def __repr__(self) -> str:
        return f"InterleavedDataset({len(self)} samples of {', '.join(self.names)})"


def _names(datasets: Mapping[str, Any] | Sequence[Any]) -> list[str]:
    """The names of datasets: as given, or their own, or their numbers."""
    if isinstance(datasets, Mapping):
        names = [str(name) for name in datasets]
    else:
        names = [
            str(getattr(one, "dataset_name", None) or number) for number, one in enumerate(datasets)
        ]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(
            f"two datasets are called {twice[0]!r}; metrics and weights are by name: give each its own, by a dict or "
            "dataset_name="
        )
    return names


def _by_name(values: Any, names: list[str], what: str) -> list[Any]:
    """The values of all names, in their sequence."""
    if isinstance(values, Mapping):
        if {str(name) for name in values} != set(names):
            raise ValueError(
                f"{what} are given for {', '.join(map(str, values))}, but the datasets are {', '.join(names)}"
            )
        by_name = {str(name): value for name, value in values.items()}
        return [by_name[name] for name in names]
    return list(values)


def _measured(dataset: Any, name: str, transform: MetricTransform | None) -> Any:
    """The dataset, whose samples have metrics in its name."""
    if transform is None or isinstance(dataset, InterleavedDataset):
        return dataset
    named = copy.deepcopy(transform)
    named.set_dataset_name(name)
    return MapDataset(dataset, transform=named)
