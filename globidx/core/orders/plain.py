"""Orders that depend on the number of samples alone: ``Sequential`` and ``Shuffle``."""

from __future__ import annotations

from globidx.core import validate
from globidx.core.orders.base import Arrangement, Ids, Order
from globidx.core.orders.permutation import LIMIT, Permutation


class Sequential(Order):
    """Samples in the sequence of their ids.

    Examples
    --------
    >>> Sequential().bind(4, seed=0, epoch=9).take([0, 3])
    array([0, 3])
    """

    algorithm = "sequential"

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the identity: ``seed`` and ``epoch`` do not matter."""
        return _Identity(num_samples)


class _Identity(Arrangement):
    def forward(self, positions: Ids) -> Ids:
        return positions

    def inverse(self, sample_ids: Ids) -> Ids:
        return sample_ids


class Shuffle(Order):
    """Another pseudo-random order every epoch, computed in blocks.

    Memory is constant, and a look-up takes the same time, for up to 2**62 samples.

    See Also
    --------
    ChunkShuffle : reads each chunk of the files about once.

    Notes
    -----
    A keyed permutation by a generalised Feistel network with cycle walking [1]_.

    References
    ----------
    .. [1] J. Black and P. Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002.

    Examples
    --------
    >>> epoch = Shuffle().bind(10**12, seed=7, epoch=0)
    >>> epoch.position(int(epoch.take([123456789])[0]))
    123456789
    """

    algorithm = "shuffle"

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the permutation of ``[0, num_samples)`` that ``seed`` and ``epoch`` key."""
        n = validate.integer(num_samples, "num_samples", high=LIMIT)
        return _Shuffled(n, validate.integer(seed, "seed"), validate.integer(epoch, "epoch"))


class _Shuffled(Arrangement):
    def __init__(self, num_samples: int, seed: int, epoch: int) -> None:
        super().__init__(num_samples)
        # an empty epoch has no permutation, and is never asked for one of its ids
        self._permutation = Permutation(max(num_samples, 1), seed=seed, epoch=epoch)

    def forward(self, positions: Ids) -> Ids:
        return self._permutation.forward(positions)

    def inverse(self, sample_ids: Ids) -> Ids:
        return self._permutation.inverse(sample_ids)
