"""The seed and epoch that samples are drawn for, as datasets in workers know them."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from globidx.core.datasets.known import nested_datasets
from globidx.core.generator import BATCH, START, Moment


class SharedMoment:
    """A moment in memory that the workers of a dataset share, however they were started.

    A batch of ``DatedIds`` brings its own, so that two samplers of one dataset do not disturb each
    other.

    >>> moment = SharedMoment()
    >>> moment.set(Moment(7, 2))
    >>> moment.of([3, 5]), moment.of(DatedIds([3, 5], Moment(7, 3)))
    (Moment(seed=7, epoch=2), Moment(seed=7, epoch=3))
    """

    def __init__(self) -> None:
        self._share(torch.tensor(START, dtype=torch.int64))

    def __setstate__(self, state: dict[str, Any]) -> None:
        # a copy, or what was unpickled, has memory of its own; with a worker it is shared already
        self._share(state["_numbers"])

    def _share(self, numbers: torch.Tensor) -> None:
        self._numbers = numbers.share_memory_()  # type: ignore[no-untyped-call]

    def part(self) -> None:
        """From here on, this process has a moment of its own."""
        self._numbers = self._numbers.clone()

    def set(self, moment: Moment) -> None:
        """From here on, samples are those of this moment."""
        self._numbers.copy_(torch.tensor(moment, dtype=torch.int64))

    def of(self, ids: Sequence[int]) -> Moment:
        """The moment that a batch of ids is read for."""
        return ids.moment if isinstance(ids, DatedIds) else Moment(*self._numbers.tolist())


class DatedIds(list[int]):
    """The ids of a batch, and the moment that they were drawn for."""

    def __init__(self, ids: Sequence[int], moment: Moment) -> None:
        super().__init__(ids)
        self.moment = moment

    def __reduce__(self) -> tuple[Any, ...]:
        return DatedIds, (list(self), self.moment)


def batch_rng(sampler: Any) -> np.random.Generator:
    """Make the random generator of the batch that the training loop holds: the same on all ranks.

    For what a whole batch draws: the resolution, the length of a rollout, mixup. It is the same
    after any resume, and with any number of ranks while world size times batch size stays.

    Parameters
    ----------
    sampler : ResumableDistributedSampler
        The sampler whose batch it is.

    Returns
    -------
    numpy.random.Generator
        A new generator, keyed by the sampler's seed, its epoch, and how many samples of the epoch all
        ranks have had with this batch, if they keep step.

    Notes
    -----
    With ``tail="exact"`` a rank may have a batch less than others; in its last one the generator is
    another than theirs.

    Examples
    --------
    >>> from globidx import DataLoader, ResumableDistributedSampler
    >>> sampler = ResumableDistributedSampler(range(8), 1, 0)
    >>> drawn = [int(batch_rng(sampler).integers(10**6)) for _ in DataLoader(range(8), 4, sampler=sampler)]
    >>> len(set(drawn))
    2
    """
    epoch, progress = sampler._ledger.including_held().resumed()
    done = progress.length - progress.remaining
    return Moment(sampler.seed, epoch).rng(done, BATCH)


def moments_of(dataset: Any) -> list[SharedMoment]:
    """The moments of a dataset and of those inside it: a ``Subset`` or ``ConcatDataset`` has none of its own."""
    found = (getattr(one, "moment", None) for one in nested_datasets(dataset))
    return [one for one in found if isinstance(one, SharedMoment)]


def tell(dataset: Any, moment: Moment) -> None:
    """Let the samples of a dataset, and of those inside it, be those of ``moment`` from here on."""
    for one in moments_of(dataset):
        one.set(moment)


def takes_rng(transform: Callable[..., Any]) -> bool:
    """Whether a function is to be given a generator: it has two parameters without a default, or one called rng.

    >>> takes_rng(lambda sample: sample), takes_rng(lambda sample, rng: sample)
    (False, True)
    """
    try:
        parameters = inspect.signature(transform).parameters.values()
    except (TypeError, ValueError):
        # of a function in C that says nothing
        return False
    needed = [
        one
        for one in parameters
        if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD) and one.default is one.empty
    ]
    named = any(one.name == "rng" and one.kind == one.POSITIONAL_OR_KEYWORD for one in parameters)
    return len(needed) == 2 or named


@contextmanager
def seeded(rng: np.random.Generator) -> Iterator[None]:
    """The global generators of torch (on the CPU), of ``random`` and of numpy, seeded by ``rng`` meanwhile."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    words = rng.integers(2**32, size=6, dtype=np.uint32).tolist()
    try:
        torch.default_generator.manual_seed(words[0] << 31 | words[1] >> 1)
        random.seed(words[2] << 32 | words[3])
        np.random.seed(words[4:])
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])
