"""Weighted sampling as an order.

Each position is drawn independently, so any rank can compute any of them.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from globidx.core import validate
from globidx.core.cached import cached_property
from globidx.core.json import schema
from globidx.core.orders.base import BLOCK, Arrangement, Ids, Left, Order, matches_but
from globidx.core.orders.lanes import Lanes
from globidx.errors import RecordError, RecordMismatchError

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
    random numbers divided by their weights [1]_. Arrays of one float a sample are held. Other
    weights on a resume hold from the first position on that was not dealt yet: what was drawn
    stands, and the record has the digests of both. With weights for appended files, too, an epoch
    that runs keeps its samples and those weights that are theirs.

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
        # where other weights ended, and their digests
        self._earlier: tuple[tuple[int, str], ...] = ()
        self._num_draws = len(self._weights)
        self._draws_all = num_samples is None
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
        described = {
            "weights": self.digest,
            "num_samples": self._num_draws,
            "replacement": self._replacement,
        }
        if self._earlier:
            described["plan"] = {"earlier": [list(one) for one in self._earlier]}
        return described

    @cached_property
    def digest(self) -> str:
        """What tells these weights from others: 32 hexadecimal digits."""
        # little-endian doubles, the same on every platform
        scaled = _scaled(self._weights).astype("<f8")
        return hashlib.blake2b(scaled.tobytes(), digest_size=16).hexdigest()

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Return whether a record has draws that these go on with.

        Draws with replacement take other weights from where the run is resumed. By default there
        are as many as samples, of which a dataset may have more by now.
        """
        others = ["weights"] * self._replacement + ["num_samples"] * self._draws_all
        return matches_but(self, described, "plan", *others)

    def recorded(
        self,
        described: Mapping[str, Any],
        dataset: Any,
        num_samples: int,
    ) -> Order:
        """Return the order of the epoch of a record, whose weights may not be at hand.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If it has another number of draws, or samples without a weight.
        globidx.errors.RecordError
            If what it says of earlier weights was edited or damaged.
        """
        if num_samples < len(self._weights):
            return self._first(num_samples).recorded(described, dataset, num_samples)
        draws = described.get("num_samples")
        if draws != self._num_draws:
            raise RecordMismatchError(
                f"the epoch of the record has {draws!r:.40} draws, this order has {self._num_draws}: pass num_samples= "
                "as in the run that wrote it",
                field="order",
            )
        plan = schema.fields(
            described.get("plan", {"earlier": []}), "sampler state: order: plan", _PLAN
        )
        earlier = tuple(plan["earlier"])
        if any(one[0] > two[0] for one, two in pairwise(earlier)):
            raise RecordError(
                f"sampler state: order: plan: earlier weights must ascend, got {plan['earlier']!r:.80}; it was edited "
                "or damaged"
            )
        digest = schema.Text(32)(described["weights"], "sampler state: order: weights")
        if digest == self.digest:
            return self._after(earlier)
        return self._after((*earlier, (self._num_draws, digest)))

    def go_on(
        self,
        planned: Order,
        left: Left,
        lanes: Callable[[], Lanes],  # noqa: ARG002
    ) -> Order:
        """Return the order of a running epoch, with the weights of this one from ``left`` on.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If positions that were dealt by other weights are left.
        """
        if not isinstance(planned, Weighted) or not planned._earlier:
            return planned
        position, digest = planned._earlier[-1]
        # of weights that hold to the end of the epoch, nothing but their digest is known
        if position < self._num_draws or left.position == self._num_draws:
            return planned
        if left.holes:
            raise RecordMismatchError(
                f"ranks had not kept step, and {left.holes} draws before position {left.position} are left, which were "
                f"dealt by weights with digest {digest!r}: resume with those weights, and change them at a save where "
                "all ranks have had equally many",
                field="order",
            )
        return self._after((*planned._earlier[:-1], (left.position, digest)))

    def _first(self, num_samples: int) -> Weighted:
        """Return the order of a dataset before files were appended to it."""
        try:
            return Weighted(
                self._weights[:num_samples],
                None if self._draws_all else self._num_draws,
                self._replacement,
            )
        except ValueError as error:
            raise RecordMismatchError(
                f"the epoch of the record has {num_samples} samples, to which others were appended since, and with "
                f"the weights of those it cannot go on: {error}",
                field="order",
            ) from None

    def _after(self, earlier: tuple[tuple[int, str], ...]) -> Weighted:
        if earlier == self._earlier:
            return self
        copied = copy.copy(self)
        copied._earlier = earlier
        return copied

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
        scaled = _scaled(self._weights)
        if not self._replacement:
            return _Ranked(scaled, length, key)
        return _Drawn(scaled, length, key, self._earlier[-1][0] if self._earlier else 0)


class _Drawn(Arrangement):
    """Draws with replacement, by inversion of the cumulated weights."""

    def __init__(self, weights: Weights, length: int, key: np.uint64, first: int) -> None:
        super().__init__(len(weights), length)
        self._cumulated = np.cumsum(weights)
        self._key = key
        # what comes before was drawn by weights that are not at hand
        self._first = first

    def forward(self, positions: Ids) -> Ids:
        if self._first and len(positions) and int(positions.min()) < self._first:
            raise ValueError(
                f"position {int(positions.min())} was drawn by other weights, which held up to position "
                f"{self._first}"
            )
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
        for start in reversed(range(self._first, self.length, BLOCK)):
            positions = np.arange(start, min(start + BLOCK, self.length))[::-1]
            first[self.forward(positions)] = positions
        return refuse_undrawn(sample_ids, first[sample_ids])

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return every position at which one of these samples is drawn.

        RecordMismatchError if it is known of no position who is drawn there.
        """
        if 0 < self._first == self.length:
            raise RecordMismatchError(
                "samples are left out of an epoch that was drawn by other weights: resume with those weights, and "
                "change them from the next epoch on",
                field="order",
            )
        drawn = [np.empty(0, np.int64)]
        for start in range(self._first, self.length, BLOCK):
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


def derived_seed(text: str) -> int:
    """Return the seed of an order inside another one, by what ``text`` says of it."""
    return int(counter_key(text) >> np.uint64(1))


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
    array.flags.writeable = False
    return array


def _scaled(weights: Weights) -> Weights:
    """Return weights of which the largest is 1: no sum of them overflows."""
    largest = weights.max()
    return weights / largest if largest > 0 else weights


def _checked_earlier(value: Any, where: str) -> list[tuple[int, str]]:
    """Check positions and digests of weights that held up to there."""
    pairs = schema.List(
        schema.List(lambda one, _: one, at_least=2, at_most=2), at_most=_MOST_CHANGES
    )
    position, digest = schema.Integer(0, 2**62), schema.Text(32)
    return [(position(one[0], where), digest(one[1], where)) for one in pairs(value, where)]


_MOST_CHANGES = 2**10
_PLAN = {"earlier": _checked_earlier}
