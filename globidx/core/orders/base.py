"""Orders: which sample stands at which position of an epoch.

An ``Order`` is an algorithm and its parameters. ``bind`` makes it one epoch's ``Arrangement``: a bijection of
``[0, num_samples)`` that is computed, never stored, and depends on nothing but (algorithm, parameters, num_samples,
seed, epoch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.permutation import LIMIT, Permutation

Ids = NDArray[np.int64]

#: Ids computed at a time, at most: large enough that numpy's overhead is gone, small enough to stay in a core's own
#: cache.
BLOCK = 2**14


class Arrangement(ABC):
    """One epoch's order: sample ids, int64 in ``[0, num_samples)``, at positions, int64 in ``[0, length)``.

    A subclass defines ``forward`` and ``inverse``, whose argument may be trusted; ``take`` and ``position`` check theirs.
    """

    def __init__(self, num_samples: int, length: int | None = None) -> None:
        self.num_samples = num_samples
        self.length = num_samples if length is None else length

    def __len__(self) -> int:
        return self.length

    @abstractmethod
    def forward(self, positions: Ids) -> Ids:
        """Sample ids at ``positions``, an int64 array in ``[0, length)``, which is not written to."""

    @abstractmethod
    def inverse(self, sample_ids: Ids) -> Ids:
        """Positions of ``sample_ids``, an int64 array in ``[0, num_samples)``: the inverse of ``forward``."""

    def take(self, positions: Any) -> Ids:
        """Sample ids that stand at ``positions``, in their sequence."""
        return self.forward(validate.integers(positions, "position", self.length))

    def position(self, sample_id: int) -> int:
        """Where one sample stands: when it will be seen."""
        return int(self.inverse(np.array([validate.sample_id(sample_id, self.num_samples)], np.int64))[0])

    def occurrences(self, sample_ids: Ids) -> Ids:
        """All positions of these samples, each once; for a bijection as many as there are samples."""
        return self.inverse(sample_ids)

    def ids(self, start: int = 0, stop: int | None = None, step: int = 1, *, block: int = BLOCK) -> Iterator[Ids]:
        """Ids at positions ``start, start + step, ...`` below ``stop``, in arrays of at most ``block`` ids.

        >>> [a.tolist() for a in Sequential().bind(10, seed=0, epoch=0).ids(1, 10, 3, block=2)]
        [[1, 4], [7]]
        """
        end = self.length if stop is None else validate.integer(stop, "stop", high=self.length)
        stride = validate.integer(step, "step", low=1)
        rows = range(validate.integer(start, "start"), end, stride)
        for first in range(0, len(rows), validate.integer(block, "block", low=1)):
            some = rows[first : first + block]
            yield self.forward(np.arange(some.start, some.start + len(some) * stride, stride, dtype=np.int64))


class Order(ABC):
    """An algorithm with its parameters; a value, equal to another of the same ``describe()``."""

    #: Name of the algorithm in records. With ``version`` it stands for exact numbers: change them, and it is another
    #: version.
    algorithm: ClassVar[str]
    version: ClassVar[int] = 1

    def parameters(self) -> dict[str, Any]:
        """What ``describe`` says besides name and version: JSON values."""
        return {}

    def describe(self) -> dict[str, Any]:
        """The order as a record keeps it.

        >>> Shuffle().describe()
        {'algorithm': 'shuffle', 'version': 1}
        """
        return {"algorithm": self.algorithm, "version": self.version, **self.parameters()}

    def length(self, num_samples: int) -> int:
        """How many positions an epoch over ``num_samples`` samples has."""
        return num_samples

    def plan(self, dataset: Any, num_samples: int, lanes: Callable[[], Lanes]) -> Order:
        """The order of an epoch over ``dataset`` that begins now, read in ``lanes()``: where that matters, another."""
        return self

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Whether a record describes this order, however it was planned."""
        return dict(described) == self.describe()

    def recorded(self, described: Mapping[str, Any], dataset: Any, num_samples: int) -> Order:
        """This order as it was planned for a record's epoch, over its ``num_samples`` first samples of ``dataset``."""
        return self

    @abstractmethod
    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """The order of one epoch over ``num_samples`` samples."""

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Order) and self.describe() == other.describe())

    def __hash__(self) -> int:
        return hash(repr(self.describe()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.parameters().items())})"


class Sequential(Order):
    """Samples in the sequence of their ids.

    >>> Sequential().bind(4, seed=0, epoch=9).take([0, 3])
    array([0, 3])
    """

    algorithm = "sequential"

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Positions are ids; ``seed`` and ``epoch`` do not matter."""
        return _Identity(num_samples)


class _Identity(Arrangement):
    def forward(self, positions: Ids) -> Ids:
        return positions

    def inverse(self, ids: Ids) -> Ids:
        return ids


class Shuffle(Order):
    """Another pseudo-random order every epoch, computed in blocks: constant memory for up to 2**62 samples.

    >>> epoch = Shuffle().bind(10**12, seed=7, epoch=0)
    >>> epoch.position(int(epoch.take([123456789])[0]))
    123456789
    """

    algorithm = "shuffle"

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """A keyed permutation of ``[0, num_samples)``.

        See ``globidx.core.orders.permutation`` for the algorithm and its source.
        """
        n = validate.integer(num_samples, "num_samples", high=LIMIT)
        return _Shuffled(n, validate.integer(seed, "seed"), validate.integer(epoch, "epoch"))


class _Shuffled(Arrangement):
    def __init__(self, num_samples: int, seed: int, epoch: int) -> None:
        super().__init__(num_samples)
        self._permutation = Permutation(max(num_samples, 1), seed=seed, epoch=epoch)

    def forward(self, positions: Ids) -> Ids:
        return self._permutation.forward(positions)

    def inverse(self, ids: Ids) -> Ids:
        return self._permutation.inverse(ids)
