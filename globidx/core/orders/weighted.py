"""Weighted sampling as an order.

Each position is drawn independently, so any rank can compute any of them.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from globidx.core import validate
from globidx.core.orders.base import BLOCK, Arrangement, Ids, Order

Weights = NDArray[np.float64]


class Weighted(Order):
    """Samples drawn with probability proportional to their weights.

    It does what torch's ``WeightedRandomSampler`` does, on any number of ranks, and can be resumed
    anywhere.

    Parameters
    ----------
    weights : array_like of float
        One weight for each sample, finite and not negative. They need not sum to 1.
    num_samples : int, optional
        The number of draws in an epoch, by default the number of weights.
    replacement : bool
        Whether a sample can be drawn again in the same epoch.

    Raises
    ------
    ValueError
        If no sample has a weight above zero, or without replacement fewer than ``num_samples``
        have one.

    Notes
    -----
    With replacement, position p takes the sample at which the cumulated weights pass a random
    number that is a function of (seed, epoch, p). Without, samples are sorted by exponential
    random numbers divided by their weights [1]_. Arrays of one float a sample are held.

    References
    ----------
    .. [1] P. Efraimidis and P. Spirakis, "Weighted random sampling with a reservoir", 2006.

    Examples
    --------
    >>> epoch = Weighted([0, 3, 1], num_samples=8).bind(3, seed=7, epoch=0)
    >>> epoch.take(range(8))
    array([1, 2, 2, 2, 2, 1, 1, 2])
    """

    algorithm = "weighted"

    def __init__(
        self, weights: ArrayLike, num_samples: int | None = None, replacement: bool = True
    ) -> None:
        # a copy: a caller who changes the array must not change the epoch
        self._weights = _weights(weights)
        self._replacement = bool(replacement)
        self._num_draws = len(self._weights)
        if num_samples is not None:
            self._num_draws = validate.integer(num_samples, "num_samples")
        drawable = int(np.count_nonzero(self._weights))
        if not drawable and self._num_draws:
            raise ValueError("all weights are zero; at least one sample must be drawable")
        if not replacement and self._num_draws > drawable:
            raise ValueError(
                f"num_samples is {self._num_draws}, but only {drawable} samples have a weight above zero; "
                "draw fewer, or with replacement=True"
            )

    def parameters(self) -> dict[str, Any]:
        """Return the number of draws, ``replacement``, and a digest of the weights."""
        # little-endian doubles, the same on every platform
        digest = hashlib.blake2b(self._weights.astype("<f8").tobytes(), digest_size=16).hexdigest()
        return {"weights": digest, "num_samples": self._num_draws, "replacement": self._replacement}

    def length(self, num_samples: int) -> int:
        """Return the number of draws.

        Raises
        ------
        ValueError
            If there is not one weight for each sample.
        """
        if num_samples != len(self._weights):
            raise ValueError(
                f"there are {len(self._weights)} weights for {num_samples} samples; give one for each"
            )
        return self._num_draws

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the draws of one epoch."""
        length = self.length(num_samples)
        key = counter_key(
            f"weighted.1 {validate.integer(seed, 'seed')} {validate.integer(epoch, 'epoch')}"
        )
        return (_Drawn if self._replacement else _Ranked)(self._weights, length, key)


class _Drawn(Arrangement):
    """Draws with replacement, by inversion of the cumulated weights."""

    def __init__(self, weights: Weights, length: int, key: np.uint64) -> None:
        super().__init__(len(weights), length)
        self._cumulated = np.cumsum(weights)
        self._key = key

    def forward(self, positions: Ids) -> Ids:
        # which sample covers a point of [0, total) is found by search; a sample of weight 0 covers
        # none
        total = self._cumulated[-1]
        drawn = np.searchsorted(
            self._cumulated, _uniform(self._key, positions) * total, side="right"
        )
        # Rounding may make a product the total itself.
        last = np.searchsorted(self._cumulated, total, side="left")
        ids: Ids = np.minimum(drawn, last).astype(np.int64)
        return ids

    def inverse(self, sample_ids: Ids) -> Ids:
        first = np.full(self.num_samples, -1, np.int64)
        # From the end of the epoch, so that the first draw of a sample is written last.
        for start in reversed(range(0, self.length, BLOCK)):
            positions = np.arange(start, min(start + BLOCK, self.length))[::-1]
            first[self.forward(positions)] = positions
        return refuse_undrawn(sample_ids, first[sample_ids])

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return every position at which one of these samples is drawn."""
        drawn = [np.empty(0, np.int64)]
        for start in range(0, self.length, BLOCK):
            positions = np.arange(start, min(start + BLOCK, self.length))
            drawn.append(positions[np.isin(self.forward(positions), sample_ids)])
        return np.concatenate(drawn)


class _Ranked(Arrangement):
    """Draws without replacement: the first ``length`` samples by Exp(1) / weight."""

    def __init__(self, weights: Weights, length: int, key: np.uint64) -> None:
        super().__init__(len(weights), length)
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            # log1p keeps the bits of numbers near 0, where the smallest ranks are
            ranks = -np.log1p(-_uniform(key, np.arange(len(weights)))) / weights
        # Samples of weight zero are sorted to the end.
        self._table = np.lexsort((ranks, weights == 0))[:length].astype(np.int64)

    def forward(self, positions: Ids) -> Ids:
        return self._table[positions]

    def inverse(self, sample_ids: Ids) -> Ids:
        inverse = np.full(self.num_samples, -1, np.int64)
        inverse[self._table] = np.arange(self.length)
        return refuse_undrawn(sample_ids, inverse[sample_ids])

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return the positions of those samples that are drawn."""
        return np.flatnonzero(np.isin(self._table, sample_ids)).astype(np.int64)


def refuse_undrawn(sample_ids: Ids, positions: Ids) -> Ids:
    """Return ``positions``; ValueError if one is negative, because its sample is not drawn."""
    if len(positions) and positions.min() < 0:
        sample = int(sample_ids[positions.argmin()])
        raise ValueError(f"sample {sample} is not drawn in this epoch, so it has no position")
    return positions


def counter_key(text: str) -> np.uint64:
    """Return 64 bits for ``split_mix``: little-endian BLAKE2b over the text ``globidx.TEXT``."""
    digest = hashlib.blake2b(f"globidx.{text}".encode(), digest_size=8).digest()
    return np.uint64(int.from_bytes(digest, "little"))


def _uniform(key: np.uint64, positions: Ids) -> NDArray[np.float64]:
    """Return a random number in [0, 1) for each position, with 53 bits."""
    # 53 bits are what a double holds; a rounded 64-bit number could become 1.0
    return (split_mix(key, positions) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def split_mix(key: np.uint64, counters: Ids) -> NDArray[np.uint64]:
    """Return 64 random bits for each of ``counters``.

    SplitMix64 (Steele, Lea and Flood, 2014) as a counter under ``key``.
    """
    mixed = (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15) + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _weights(weights: ArrayLike) -> Weights:
    try:
        array = np.array(weights, np.float64)
    except (TypeError, ValueError) as error:
        raise type(error)(
            f"weights must be numbers, one for each sample, got {weights!r:.80}: {error}"
        ) from None
    if array.ndim != 1 or not len(array):
        raise ValueError(
            f"weights must be one-dimensional, one for each sample, got shape {array.shape}"
        )
    wrong = np.flatnonzero(~(np.isfinite(array) & (array >= 0)))
    if len(wrong):
        raise ValueError(
            f"weights must be finite and not negative, got {array[wrong[0]]} for sample {wrong[0]}"
        )
    largest = array.max()
    if largest > 0:
        # No sum of weights up to 1 overflows.
        array = array / largest
    array.flags.writeable = False
    return array
