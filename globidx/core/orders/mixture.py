"""Several datasets in given shares, as an order: nothing is drawn, every turn is computed."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np

from globidx.core import validate
from globidx.core.json import schema
from globidx.core.mixture.course import Change, Course, StopCriteria
from globidx.core.mixture.ratio import LONGEST, ratio
from globidx.core.orders.base import Arrangement, Ids, Left, Order, as_text, matches_but
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.plain import Shuffle
from globidx.core.orders.weighted import derived_seed, refuse_undrawn
from globidx.errors import RecordError

STOPS = tuple(StopCriteria)
# a change of weights takes a list in each record
_MOST_CHANGES = 2**12
# the turns of all periods together are laid out in some 6 seconds
_MOST_TURNS = 2**22
# positions and their sums are int64
_LAST = 2**61
_MOST_DATASETS = 2**14
_PASSES_KEPT = 2**8


class Weights(NamedTuple):
    """The shares of the datasets from a position of an epoch on, as turns of a period."""

    epoch: int
    position: int
    turns: tuple[int, ...]


class Mixture(Order):
    """Samples of several datasets in exact shares, each dataset shuffled anew on its own passes.

    The datasets stand one after another, as in ``torch.utils.data.ConcatDataset``. Among any first
    t positions, the number of samples of a dataset differs from its share by less than 1, so every
    batch is mixed, on any number of ranks.

    Parameters
    ----------
    sizes : sequence of int
        The number of samples of each dataset.
    weights : sequence of numbers
        The share of each dataset. They are taken relative to their sum, with a warning if that is
        not 1. Simple ratios (to denominators of 1,000) are exact, others are rounded to 1/65,536.
    stop : StopCriteria or str
        When an epoch ends: one of ``globidx.mixture.StopCriteria``, or its name.
    orders : sequence of Order, optional
        The order of each dataset on its own passes; ``Shuffle()`` by default. A ``Mixture`` in it
        is a mixture in the mixture.
    num_samples : int, optional
        The positions of an epoch that is to cycle forever, by default as many as there are samples.

    Raises
    ------
    TypeError, ValueError
        If sizes, weights and orders are not equally many, a weight is negative or too small, or
        the stop rule waits for a dataset that is empty or has no weight.

    See Also
    --------
    globidx.mixture.InterleavedDataset : datasets with names, which bring this order along.
    Weighted : draws single samples by weight.

    Notes
    -----
    The turns are Tijdeman's chairman assignment; see ``globidx.core.mixture``. Other weights on a
    resume hold from the first position on that was not dealt yet: what was drawn stands, and the
    record keeps both.

    Examples
    --------
    >>> from globidx.core.orders.plain import Sequential
    >>> mixed = Mixture([6, 3, 1], [0.6, 0.3, 0.1], orders=[Sequential()] * 3)
    >>> mixed.bind(10, seed=0, epoch=0).take(range(10)).tolist()
    [0, 6, 1, 2, 7, 3, 9, 4, 5, 8]
    """

    algorithm = "mixture"

    def __init__(
        self,
        sizes: Sequence[int],
        weights: Sequence[float],
        *,
        stop: str = StopCriteria.CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED,
        orders: Sequence[Order] | None = None,
        num_samples: int | None = None,
    ) -> None:
        if stop not in STOPS:
            raise ValueError(f"stop must be one of {', '.join(STOPS)}, got {stop!r}")
        if num_samples is not None and stop != "CYCLE_FOREVER":
            raise ValueError(
                f"num_samples is the length of an epoch with stop='CYCLE_FOREVER'; with {stop!r} the "
                "datasets say when it ends"
            )
        self._sizes = tuple(
            validate.integer(size, f"size of dataset {number}") for number, size in enumerate(sizes)
        )
        validate.integer(len(self._sizes), "number of datasets", low=1, high=_MOST_DATASETS)
        self._orders = tuple([Shuffle()] * len(self._sizes) if orders is None else orders)
        wrong = [order for order in self._orders if not isinstance(order, Order)]
        if wrong:
            raise TypeError(f"orders must be orders, such as Shuffle(), got {wrong[0]!r:.80}")
        self._stop = str(stop)
        self._num_samples = (
            sum(self._sizes)
            if num_samples is None
            else validate.integer(num_samples, "num_samples")
        )
        self._weights: tuple[Weights, ...] = (Weights(0, 0, self._turns(weights)),)

    # -- weights that change

    def reweighted(self, weights: Sequence[float], *, epoch: int, position: int = 0) -> Mixture:
        """Return the mixture with other weights from a position on.

        Parameters
        ----------
        weights : sequence of numbers
            As for the constructor.
        epoch, position : int
            From where on; later than all changes before it.

        Returns
        -------
        Mixture
            The same up to there.

        Raises
        ------
        ValueError
            If the position is not behind that of the last change, or the weights are none of these
            datasets.

        Examples
        --------
        >>> mixed = Mixture([40, 40], [0.25, 0.75])
        >>> mixed = mixed.reweighted([0.75, 0.25], epoch=0, position=40)
        >>> ids = mixed.bind(80, seed=0, epoch=0).take(range(60))
        >>> [int((some < 40).sum()) for some in (ids[:20], ids[20:40], ids[40:])]
        [5, 5, 15]
        """
        change = Weights(
            validate.integer(epoch, "epoch"),
            validate.integer(position, "position"),
            self._turns(weights),
        )
        if change[:2] <= self._weights[-1][:2]:
            raise ValueError(
                f"weights from position {position} of epoch {epoch} on would come before those from "
                f"position {self._weights[-1].position} of epoch {self._weights[-1].epoch} on; give changes in "
                "their sequence"
            )
        return self._with((*self._weights, change))

    def go_on(
        self,
        planned: Order,
        left: Left,
        lanes: Callable[[], Lanes],  # noqa: ARG002
    ) -> Order:
        """Return the order of a running epoch, with the weights of this one from ``left`` on."""
        return self._following(planned, left.epoch, left.position)

    def after(self, planned: Order, left: Left, epoch: int) -> Order:  # noqa: ARG002
        """Return the order of a later epoch: what was drawn in earlier ones stands."""
        return self._following(planned, epoch, 0)

    def _following(self, planned: Order, epoch: int, position: int) -> Mixture:
        if not isinstance(planned, Mixture) or planned._weights == self._weights:
            return self
        here = (epoch, position)
        before = [change for change in planned._weights if change[:2] < here]
        # without passes that run on, only the last weights of earlier epochs matter
        if self._stop != "CYCLE_FOREVER":
            past = [change for change in before if change.epoch < epoch]
            before = [*past[-1:], *(change for change in before if change.epoch == epoch)]
        now = [change for change in self._weights if change[:2] <= here][-1]
        kept = [*before]
        if not kept or kept[-1].turns != now.turns:
            kept.append(Weights(*here, now.turns))
        return self._with((*kept, *(change for change in self._weights if change[:2] > here)))

    # -- what an order answers

    def parameters(self) -> dict[str, Any]:
        """Return sizes, orders, the rule that ends an epoch, and all weights as turns of a period."""
        orders = [as_text(order) for order in self._orders]
        return {
            "sizes": list(self._sizes),
            "orders": orders[:1] if len(set(orders)) == 1 else orders,
            "stop": self._stop,
            "num_samples": self._num_samples,
            # ranks that have ended an epoch need not have the weights of those that have not
            "plan": {
                "weights": [[epoch, position, *turns] for epoch, position, turns in self._weights]
            },
        }

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Return whether a record is of the same mixture; its weights may be others."""
        return matches_but(self, described, "plan")

    def recorded(
        self,
        described: Mapping[str, Any],
        dataset: Any,  # noqa: ARG002
        num_samples: int,  # noqa: ARG002
    ) -> Order:
        """Return the mixture with the weights of a record.

        Raises
        ------
        globidx.errors.RecordError
            If they are no weights of these datasets.
        """
        plan = schema.fields(described.get("plan"), "sampler state: order: plan", _PLAN)
        changes = tuple(
            Weights(epoch, position, tuple(turns)) for epoch, position, *turns in plan["weights"]
        )
        ascending = all(one[:2] < two[:2] for one, two in pairwise(changes))
        turns = [change.turns for change in changes]
        if not ascending or any(
            len(one) != len(self._sizes) or not 0 < sum(one) <= LONGEST for one in turns
        ):
            raise RecordError(
                f"sampler state: order: plan: weights are no turns of {len(self._sizes)} datasets by ascending "
                f"position, {plan['weights']!r:.80}; they were edited or damaged"
            )
        try:
            for one in turns:
                self._refuse_waiting(one)
            for change in changes:
                self._refuse_far(change.epoch, change.position)
            return self._with(changes)
        except ValueError as error:
            raise RecordError(f"sampler state: order: plan: {error}") from None

    def length(self, num_samples: int) -> int:
        """Return the positions of an epoch at the first weights."""
        return self.epoch_length(num_samples, 0)

    def epoch_length(self, num_samples: int, epoch: int) -> int:
        """Return the positions of one epoch: other weights reach a dataset's end elsewhere.

        Raises
        ------
        ValueError
            If the datasets have another number of samples together.
        """
        if num_samples != sum(self._sizes):
            raise ValueError(
                f"the datasets of the mixture have {sum(self._sizes)} samples together, but there are {num_samples}"
            )
        if self._stop == "CYCLE_FOREVER":
            return self._num_samples
        return self.course(epoch).length

    def course(self, epoch: int) -> Course:
        """Return whose turn it is at each position of an epoch.

        Parameters
        ----------
        epoch : int
            The epoch. With ``"CYCLE_FOREVER"`` the course is that of all epochs, one after another.

        Returns
        -------
        Course
            Datasets and their draws by position.
        """
        passes = [order.length(size) for order, size in zip(self._orders, self._sizes, strict=True)]
        if self._stop == "CYCLE_FOREVER":
            at = {one.epoch * self._num_samples + one.position: one.turns for one in self._weights}
        else:
            past = [one.turns for one in self._weights if one[:2] <= (epoch, 0)]
            at = {0: past[-1]} if past else {}
            at |= {one.position: one.turns for one in self._weights if one.epoch == epoch}
        # the first weights hold before their position, too
        at = {0: self._weights[0].turns} | at
        return _course(tuple(passes), tuple(Change(*one) for one in sorted(at.items())), self._stop)

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the order of one epoch."""
        length = self.epoch_length(num_samples, validate.integer(epoch, "epoch"))
        self._refuse_far(epoch, length)
        endless = self._stop == "CYCLE_FOREVER"
        return _Mixed(
            num_samples,
            length,
            self.course(epoch),
            _Parts(
                self._orders,
                self._sizes,
                validate.integer(seed, "seed"),
                None if endless else epoch,
            ),
            first=epoch * length if endless else 0,
        )

    # -- inside

    def _turns(self, weights: Sequence[float]) -> tuple[int, ...]:
        if len(weights) != len(self._sizes) or len(self._orders) != len(self._sizes):
            raise ValueError(
                f"there are {len(self._sizes)} datasets, {len(weights)} weights and {len(self._orders)} orders; "
                "give one weight, and one order or none, for each dataset"
            )
        turns = ratio(weights)
        total = float(sum(weights))
        if abs(total - 1) > 1e-6:
            shares = ", ".join(f"{turn / sum(turns):.4g}" for turn in turns[:8])
            warnings.warn(
                f"the weights sum to {total:.6g}, and are taken as the shares {shares}"
                f"{', ...' if len(turns) > 8 else ''}",
                UserWarning,
                stacklevel=3,
            )
        self._refuse_waiting(turns)
        return turns

    def _refuse_waiting(self, turns: tuple[int, ...]) -> None:
        """ValueError if an epoch would wait for ever, or never begin."""
        for number, (turn, size) in enumerate(zip(turns, self._sizes, strict=True)):
            if turn and not size and self._stop != "ALL_DATASETS_EXHAUSTED":
                raise ValueError(
                    f"dataset {number} has weight but no samples; leave it out, or give it weight 0"
                )
            if (
                size
                and not turn
                and self._stop in ("ALL_DATASETS_EXHAUSTED", "CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED")
            ):
                raise ValueError(
                    f"dataset {number} has weight 0, so that with stop={self._stop!r} an epoch would wait for its end "
                    "for ever; leave it out, or let an epoch end by FIRST_DATASET_EXHAUSTED or CYCLE_FOREVER"
                )

    def _refuse_far(self, epoch: int, position: int) -> None:
        """ValueError for a position of an epoch that is further than positions are counted."""
        if epoch * self._num_samples + position > _LAST:
            raise ValueError(
                f"position {position} of epoch {epoch} is past {_LAST} samples of a mixture"
            )

    def _with(self, weights: tuple[Weights, ...]) -> Mixture:
        turns = sum(sum(change.turns) for change in weights)
        if turns > _MOST_TURNS and len(weights) > 1:
            raise ValueError(
                f"weights change {len(weights)} times, to periods of {turns} turns together, but at most "
                f"{_MOST_TURNS} are laid out; take weights of simpler ratios"
            )
        if len(weights) > _MOST_CHANGES:
            raise ValueError(
                f"weights change {len(weights)} times, but a record holds {_MOST_CHANGES} changes"
            )
        copied = copy.copy(self)
        copied._weights = weights
        return copied


@lru_cache(maxsize=16)
def _course(passes: tuple[int, ...], changes: tuple[Change, ...], stop: str) -> Course:
    # each end of one of many datasets takes a table, and a course is asked for several times
    return Course(passes, changes, stop)


class _Parts:
    """The datasets of a mixture, each in its own order on each of its passes."""

    def __init__(
        self, orders: tuple[Order, ...], sizes: tuple[int, ...], seed: int, epoch: int | None
    ) -> None:
        self._orders, self._sizes, self._seed, self._epoch = orders, sizes, seed, epoch
        self.starts = np.array(list(accumulate(sizes, initial=0)), np.int64)
        self.passes = [order.length(size) for order, size in zip(orders, sizes, strict=True)]
        self._bound: dict[tuple[int, int], Arrangement] = {}

    def forward(self, which: int, draws: Ids) -> Ids:
        """Return the sample ids of draws of one dataset."""
        passes, within = np.divmod(draws, self.passes[which])
        ids = np.empty_like(draws)
        for number in np.unique(passes).tolist():
            here = passes == number
            ids[here] = self.on_pass(which, number).forward(within[here])
        ids += self.starts[which]
        return ids

    def on_pass(self, which: int, number: int) -> Arrangement:
        """Return the arrangement of one pass of a dataset."""
        if (which, number) not in self._bound:
            # a few are in use at a time, since positions are read one after another
            if len(self._bound) >= _PASSES_KEPT + len(self._sizes):
                self._bound.clear()
            # passes are the epochs of an endless mixture's datasets; else each epoch has its own
            key, epoch = (
                (f"{which}", number) if self._epoch is None else (f"{which}.{number}", self._epoch)
            )
            seed = derived_seed(f"mixture.1 {self._seed} {key}")
            self._bound[which, number] = self._orders[which].bind(
                self._sizes[which], seed=seed, epoch=epoch
            )
        return self._bound[which, number]


class _Mixed(Arrangement):
    """The positions of one epoch; position 0 is number ``first`` of its course."""

    def __init__(
        self, num_samples: int, length: int, course: Course, parts: _Parts, *, first: int
    ) -> None:
        super().__init__(num_samples, length)
        self._course, self._parts, self._first = course, parts, first

    def forward(self, positions: Ids) -> Ids:
        which, draws = self._course.forward(positions + self._first)
        ids = np.empty_like(draws)
        for number in np.unique(which).tolist():
            here = which == number
            ids[here] = self._parts.forward(number, draws[here])
        return ids

    def inverse(self, sample_ids: Ids) -> Ids:
        drawn, of = self._drawn(sample_ids)
        first = np.full(len(sample_ids), -1, np.int64)
        # from the last position on, so that the first one of a sample is written last
        last = np.argsort(-drawn, kind="stable")
        first[of[last]] = drawn[last]
        return refuse_undrawn(sample_ids, first)

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return the positions of samples on all passes of their datasets in this epoch."""
        return self._drawn(sample_ids)[0]

    def _drawn(self, sample_ids: Ids) -> tuple[Ids, Ids]:
        """Return all positions of some samples, and the index of the sample of each."""
        begun, ended = (self._course.drawn(self._first + at) for at in (0, self.length))
        which = np.searchsorted(self._parts.starts, sample_ids, side="right") - 1
        positions, owners = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for number in np.unique(which).tolist():
            own = np.flatnonzero(which == number)
            ids = sample_ids[own] - self._parts.starts[number]
            length = self._parts.passes[number]
            if begun[number] == ended[number]:
                continue
            for on_pass in range(begun[number] // length, (ended[number] - 1) // length + 1):
                places, place_of = _places(self._parts.on_pass(number, on_pass), ids)
                draws = on_pass * length + places
                inside = (begun[number] <= draws) & (draws < ended[number])
                positions.append(self._course.inverse(number, draws[inside]) - self._first)
                owners.append(own[place_of[inside]])
        return np.concatenate(positions), np.concatenate(owners)


def _places(arrangement: Arrangement, ids: Ids) -> tuple[Ids, Ids]:
    """Return all positions of ids on one pass, and the index of the id of each."""
    places = arrangement.occurrences(ids)
    order = np.argsort(ids, kind="stable")
    return places, order[np.searchsorted(ids[order], arrangement.forward(places))]


# flat lists of numbers: [epoch, position, turns of dataset 0, ...]
_PLAN = {
    "weights": schema.List(
        schema.List(schema.Integer(0, 2**62), at_least=3), at_least=1, at_most=_MOST_CHANGES
    )
}
