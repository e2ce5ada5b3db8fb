"""Orders: which sample stands at which position of an epoch.

An ``Order`` is an algorithm and its parameters. ``bind`` makes it one epoch's ``Arrangement``: a
bijection between positions and sample ids that is computed, never stored, and depends on nothing
but (algorithm, parameters, num_samples, seed, epoch).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from globidx.core import validate
from globidx.core.json import strict
from globidx.core.orders.lanes import Lanes

Ids = NDArray[np.int64]

#: The most ids that are computed at a time. Large enough that numpy's overhead per call does not
#: count, small enough that the arrays stay in the cache of one core.
BLOCK = 2**14


class Left(NamedTuple):
    """Where an epoch was left: what an order may depend on when a run goes on.

    Parameters
    ----------
    epoch : int
        The epoch.
    position : int
        From here on, no position was committed.
    holes : int
        How many positions before it remain.
    seed : int
        The sampler's seed.

    Examples
    --------
    Of four ranks one has had 3 samples, one 1, and two have had 2: position 9 was dealt, and one of
    those before it is left.

    >>> Left(epoch=0, position=9, holes=1)
    Left(epoch=0, position=9, holes=1, seed=0)
    """

    epoch: int
    position: int
    holes: int = 0
    seed: int = 0


class Arrangement(ABC):
    """The order of one epoch: a bijection between positions and sample ids.

    A subclass defines ``forward`` and ``inverse``, which trust their argument. ``take`` and
    ``position`` check theirs.

    Parameters
    ----------
    num_samples : int
        Sample ids are int64 in ``[0, num_samples)``.
    length : int, optional
        Positions are int64 in ``[0, length)``. By default there are as many as samples.

    See Also
    --------
    Order : makes arrangements, with an example of one's own.

    Examples
    --------
    >>> class Backwards(Arrangement):
    ...     def forward(self, positions):
    ...         return self.num_samples - 1 - positions
    ...     def inverse(self, sample_ids):
    ...         return self.num_samples - 1 - sample_ids
    >>> Backwards(10).take([0, 1, 9]), Backwards(10).position(9)
    (array([9, 8, 0]), 0)
    """

    def __init__(self, num_samples: int, length: int | None = None) -> None:
        self.num_samples = num_samples
        # an order that draws with replacement has as many positions as it draws
        self.length = num_samples if length is None else length

    def __len__(self) -> int:
        return self.length

    @abstractmethod
    def forward(self, positions: Ids) -> Ids:
        """Map positions to sample ids.

        Parameters
        ----------
        positions : numpy.ndarray
            One-dimensional int64 array in ``[0, length)``. It is not written to.

        Returns
        -------
        numpy.ndarray
            The sample ids, int64, of the same shape.
        """

    @abstractmethod
    def inverse(self, sample_ids: Ids) -> Ids:
        """Map sample ids to positions: the inverse of ``forward``.

        Parameters
        ----------
        sample_ids : numpy.ndarray
            One-dimensional int64 array in ``[0, num_samples)``. It is not written to.

        Returns
        -------
        numpy.ndarray
            The positions, int64, of the same shape. Where an epoch draws a sample more than once,
            the first one.
        """

    def take(self, positions: Any) -> Ids:
        """Map positions to sample ids, after a check: ``forward`` for any array-like.

        Parameters
        ----------
        positions : array_like of int
            Positions in ``[0, length)``, in any sequence. IndexError for any other.

        Returns
        -------
        numpy.ndarray
            The sample ids, int64.
        """
        return self.forward(validate.integers(positions, "position", self.length))

    def position(self, sample_id: int) -> int:
        """Return the position of one sample: when the epoch visits it.

        Parameters
        ----------
        sample_id : int
            A sample id in ``[0, num_samples)``. IndexError for any other.

        Returns
        -------
        int
            Its position in ``[0, length)``.
        """
        # one id goes the way of many: a scalar twin of each inverse could differ from it
        checked = validate.sample_id(sample_id, self.num_samples)
        return int(self.inverse(np.array([checked], np.int64))[0])

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return all positions of some samples, each position once, in any sequence.

        Override it in an arrangement that visits a sample more than once, or not at all.

        Parameters
        ----------
        sample_ids : numpy.ndarray
            Distinct sample ids, int64 in ``[0, num_samples)``.

        Returns
        -------
        numpy.ndarray
            The positions, int64. For a bijection, as many as there are samples.
        """
        return self.inverse(sample_ids)

    def ids(
        self, start: int = 0, stop: int | None = None, step: int = 1, *, block: int = BLOCK
    ) -> Iterator[Ids]:
        """Iterate over the sample ids at some positions, in blocks.

        Parameters
        ----------
        start, stop, step : int
            The positions, as for ``range``. ``stop`` is ``length`` by default.
        block : int
            The most ids in an array.

        Yields
        ------
        numpy.ndarray
            The next ids, int64.

        Examples
        --------
        >>> from globidx.core.orders.plain import Sequential
        >>> [ids.tolist() for ids in Sequential().bind(10, seed=0, epoch=0).ids(1, 10, 3, block=2)]
        [[1, 4], [7]]
        """
        end = self.length if stop is None else validate.integer(stop, "stop", high=self.length)
        stride = validate.integer(step, "step", low=1)
        positions = range(validate.integer(start, "start"), end, stride)
        # positions are a range: nothing of the length of the epoch is made
        for first in range(0, len(positions), validate.integer(block, "block", low=1)):
            some = positions[first : first + block]
            yield self.forward(
                np.arange(some.start, some.start + len(some) * stride, stride, dtype=np.int64)
            )


class Order(ABC):
    """An algorithm with its parameters. Two orders are equal if they describe themselves equally.

    A subclass names its ``algorithm`` and defines ``bind``; one with parameters defines
    ``parameters`` too. All that a sampler asks besides has defaults here.

    Attributes
    ----------
    algorithm : str
        The name of the algorithm in records.
    version : int
        Name and version together stand for exact ids. A change of the ids needs another version.

    Notes
    -----
    ``bind`` must depend on its arguments and on ``parameters()`` only. Then every rank computes
    the same epoch, and a record that was written in this order is refused by a sampler with
    another one.

    Examples
    --------
    >>> class BackwardsEpoch(Arrangement):
    ...     def forward(self, positions):
    ...         return self.num_samples - 1 - positions
    ...     def inverse(self, sample_ids):
    ...         return self.num_samples - 1 - sample_ids
    >>> class Backwards(Order):
    ...     algorithm = "example.backwards"
    ...     def bind(self, num_samples, *, seed, epoch):
    ...         return BackwardsEpoch(num_samples)
    >>> Backwards().bind(10, seed=0, epoch=0).take([0, 1, 9])
    array([9, 8, 0])
    """

    algorithm: ClassVar[str]
    version: ClassVar[int] = 1

    def parameters(self) -> dict[str, Any]:
        """Return what a record keeps of the order besides name and version.

        Returns
        -------
        dict
            JSON values by name. None by default.
        """
        return {}

    def describe(self) -> dict[str, Any]:
        """Return the order as a record keeps it.

        Returns
        -------
        dict
            ``algorithm``, ``version`` and ``parameters()``.

        Raises
        ------
        TypeError
            If the class has no ``algorithm``.

        Examples
        --------
        >>> from globidx.core.orders.plain import Shuffle
        >>> Shuffle().describe()
        {'algorithm': 'shuffle', 'version': 1}
        """
        if not isinstance(getattr(self, "algorithm", None), str):
            raise TypeError(
                f"{type(self).__name__} has no `algorithm`, the name of an order in records; give the class one, "
                "such as algorithm = 'mine.reversed'"
            )
        return {"algorithm": self.algorithm, "version": self.version, **self.parameters()}

    def length(self, num_samples: int) -> int:
        """Return how many positions an epoch has.

        Parameters
        ----------
        num_samples : int
            The number of samples of the dataset.

        Returns
        -------
        int
            ``num_samples``, unless the order draws more or fewer.
        """
        return num_samples

    def epoch_length(self, num_samples: int, epoch: int) -> int:
        """Return how many positions one epoch has.

        Override it, besides ``length``, in an order whose epochs differ.

        Parameters
        ----------
        num_samples : int
            The number of samples of the dataset.
        epoch : int
            The epoch.

        Returns
        -------
        int
            ``length(num_samples)``, unless epochs differ.
        """
        return self.length(num_samples)

    def without(self, ids: Sequence[tuple[int, int]]) -> Order:
        """Return the planned order of an epoch that begins now and has some samples left out.

        A sampler passes over these samples, whatever their positions. Override it in an order that
        would lose what it promises if positions between others were left out.

        Parameters
        ----------
        ids : sequence of (int, int)
            Their ids, as ranges ``[start, stop)`` that ascend and do not touch.

        Returns
        -------
        Order
            This order; or one that has no position for them.
        """
        return self

    def plan(self, dataset: Any, num_samples: int, lanes: Callable[[], Lanes]) -> Order:
        """Return the order of an epoch that begins now.

        A sampler calls this before ``bind``, so that an order can depend on the chunks of the
        data, or on who reads them. An order that does not returns itself, as here.

        Parameters
        ----------
        dataset : object
            The sampler's dataset.
        num_samples : int
            Its number of samples.
        lanes : callable
            Returns the ranks, the loader workers of a rank and the global batch size. Only an
            order that calls it depends on them.

        Returns
        -------
        Order
            What is bound, and described in records.
        """
        return self

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Return whether a record was written in this order, however planned for that epoch.

        Parameters
        ----------
        described : mapping
            ``describe()`` of a planned order, from a record.

        Returns
        -------
        bool
            If False, the record is refused.
        """
        return dict(described) == self.describe()

    def recorded(self, described: Mapping[str, Any], dataset: Any, num_samples: int) -> Order:
        """Return the order as it was planned for the epoch of a record.

        Parameters
        ----------
        described : mapping
            ``describe()`` of the planned order, from a record that ``matches``.
        dataset : object
            The sampler's dataset.
        num_samples : int
            How many of its first samples the epoch has.

        Returns
        -------
        Order
            What is bound to go on with that epoch.
        """
        return self

    def go_on(self, planned: Order, left: Left, lanes: Callable[[], Lanes]) -> Order:
        """Return the order of a running epoch whose rest is dealt anew, after a resume.

        An order whose parameters may change in mid-epoch, or that depends on who reads, overrides
        it. Positions before ``left.position`` must keep their samples.

        Parameters
        ----------
        planned : Order
            How the epoch was planned so far.
        left : Left
            How far it has come, the same on every rank.
        lanes : callable
            As for ``plan``.

        Returns
        -------
        Order
            ``planned``, unless this order has it otherwise.
        """
        return planned

    def after(self, planned: Order, left: Left, epoch: int) -> Order:
        """Return the order that plans the next epoch.

        An order that depends on what earlier epochs have read overrides it.

        Parameters
        ----------
        planned : Order
            How the epoch before was planned.
        left : Left
            Where that epoch was left: at its end, if it was finished.
        epoch : int
            The epoch that is planned next.

        Returns
        -------
        Order
            This order, unless it has a history.
        """
        return self

    @abstractmethod
    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the order of one epoch.

        Parameters
        ----------
        num_samples : int
            The number of samples.
        seed : int
            The sampler's seed, not negative.
        epoch : int
            The epoch, from 0 on.

        Returns
        -------
        Arrangement
            The same one for the same arguments, on every rank and in every process.
        """

    def __eq__(self, other: object) -> bool:
        # by what a record keeps: two orders that are equal must read the same ids
        return self is other or (isinstance(other, Order) and self.describe() == other.describe())

    def __hash__(self) -> int:
        # a description is a dict of JSON values, which has no hash
        return hash(repr(self.describe()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.parameters().items())})"


def as_text(order: Order) -> str:
    """Return what a record keeps of an order that is part of another one.

    As text: a framework that flattens a record into keys has the same keys for every order.
    """
    return strict.canonical(order.describe()).decode()


def matches_but(order: Order, described: Mapping[str, Any], *ignored: str) -> bool:
    """Return whether a record is of this order, whatever it says under the names ``ignored``."""
    either = dict.fromkeys(ignored)
    return {**described, **either} == {**order.describe(), **either}
