"""Passes of a given size over epochs that run on under them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from globidx.core import validate
from globidx.core.json import schema, strict
from globidx.core.orders.base import Arrangement, Ids, Left, Order, as_text
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.weighted import refuse_undrawn
from globidx.errors import RecordError

# a pass over more epochs than this is a mistake in its size
_MOST_EPOCHS = 2**12
_MOST = 2**62


class Under(NamedTuple):
    """The epoch under a pass, where the pass begins in it, and how it was planned.

    ``planned`` is None before the first pass; where the epoch begins with the pass, it is how the
    one before was planned.
    """

    epoch: int = 0
    position: int = 0
    num_samples: int = 0
    planned: Order | None = None

    @property
    def end(self) -> int:
        """The number of positions of the epoch."""
        assert self.planned is not None
        return self.planned.epoch_length(self.num_samples, self.epoch)


class Passes(Order):
    """Passes of a size of their own: each goes on in the epoch where the last one ended.

    For trainers whose epochs are shorter, or longer, than the data. A sampler makes it of its
    order by ``epoch_size`` or ``epoch_steps``. Every sample comes once before any comes twice.

    Parameters
    ----------
    order : Order
        The order of the epochs under the passes.
    size : int, optional
        Samples of all ranks in a pass.
    steps : int, optional
        Global batches in a pass, in place of ``size``. A pass that is running when the batch size
        or the number of ranks changes keeps its samples; the next one has as many batches of the
        new size.

    Raises
    ------
    ValueError
        Unless one of ``size`` and ``steps`` is given.

    Examples
    --------
    >>> from globidx.core.orders.plain import Sequential
    >>> passes = Passes(Sequential(), size=4)
    >>> [passes.bind(6, seed=0, epoch=epoch).take(range(4)).tolist() for epoch in range(3)]
    [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]
    """

    algorithm = "passes"

    def __init__(self, order: Order, *, size: int | None = None, steps: int | None = None) -> None:
        if (size is None) == (steps is None):
            raise ValueError(
                "give the size of a pass as samples or as steps: one of them, and not both"
            )
        if isinstance(order, (Passes, PlannedPasses)):
            raise ValueError("the order has passes of its own; give their size once")
        self.order = order
        self._size = size if size is None else validate.integer(size, "epoch_size", low=1)
        self._steps = steps if steps is None else validate.integer(steps, "epoch_steps", low=1)
        self._under = Under()
        # the pass that is planned next, by the sampler's number of its epoch
        self._number = 0
        self._seed = 0

    def parameters(self) -> dict[str, Any]:
        """Return the order under the passes; their size may be another one after each resume."""
        return {"order": as_text(self.order)}

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Return whether a record has passes over the same order.

        Their size may be another one: the epoch under them runs on.
        """
        if described.get("algorithm") != self.algorithm:
            return False
        # as they were planned: an order may know its records by their plan
        plan = schema.fields(described.get("plan"), "sampler state: order: plan", _PLAN)
        return all(
            self.order.matches(_parsed(plan[name], f"order: plan: {name}"))
            for name in ("order", "then")
        )

    def plan(self, dataset: Any, num_samples: int, lanes: Callable[[], Lanes]) -> Order:
        """Return the next pass; the epoch under it keeps its plan and its samples."""
        under, order = self._under, self.order
        if under.planned is not None and under.position:
            # a pass may begin in the middle of a batch of the one before it, or have others
            left = Left(under.epoch, under.position, 0, self._seed)
            under = under._replace(planned=order.go_on(under.planned, left, lanes))
        if under.planned is not None:
            # the epoch that ends before the first one that is planned now
            last = under.epoch if under.position else under.epoch - 1
            order = order.after(under.planned, Left(last, under.end), last + 1)
        later = order.plan(dataset, num_samples, lanes)
        if not under.position:
            under = Under(under.epoch, 0, num_samples, later)
        size = self._size if self._steps is None else self._steps * lanes().batch
        assert size is not None
        return PlannedPasses(self, self._number, size, under, later, num_samples)

    def recorded(self, described: Mapping[str, Any], dataset: Any, num_samples: int) -> Order:
        """Return the pass of a record.

        Raises
        ------
        globidx.errors.RecordError
            If its plan was edited or damaged.
        """
        plan = schema.fields(described.get("plan"), "sampler state: order: plan", _PLAN)
        if plan["num_samples"] > num_samples:
            raise RecordError(
                f"sampler state: order: plan: num_samples is {plan['num_samples']} of {num_samples}; it was edited "
                "or damaged"
            )
        planned, later = (
            self.order.recorded(_parsed(plan[name], f"order: plan: {name}"), dataset, samples)
            for name, samples in (("order", plan["num_samples"]), ("then", num_samples))
        )
        under = Under(plan["epoch"], plan["position"], plan["num_samples"], planned)
        recorded = PlannedPasses(self, plan["pass"], plan["size"], under, later, num_samples)
        try:
            end = under.end
            recorded._stretches()
        except ValueError as error:
            raise RecordError(f"sampler state: order: plan: {error}") from None
        # all before it was read
        if (under.epoch + 1) * end > _MOST:
            raise RecordError(
                f"sampler state: order: plan: epoch is {under.epoch}, of {end} positions each; it was edited or damaged"
            )
        if under.position > end:
            raise RecordError(
                f"sampler state: order: plan: position is {under.position}, but the epoch under the pass has {end}; "
                "it was edited or damaged"
            )
        return recorded

    def after(self, planned: Order, left: Left, epoch: int) -> Order:
        """Return the passes that follow one which was left at ``left``."""
        following = Passes(self.order, size=self._size, steps=self._steps)
        following._number, following._seed = epoch, left.seed
        if isinstance(planned, PlannedPasses):
            # a record of the start of a pass has the plan of the pass before it, which was finished
            position = left.position if planned.number == left.epoch else planned.size
            following._under = planned._under_at(position)
        return following

    def length(self, num_samples: int) -> int:  # noqa: ARG002 - a pass has its own size
        """Return the size of a pass, planned for one rank without a loader."""
        return self._size if self._steps is None else self._steps  # type: ignore[return-value]

    def go_on(self, planned: Order, left: Left, lanes: Callable[[], Lanes]) -> Order:
        """Return the running pass, under which the epoch goes on as its own order says."""
        if not isinstance(planned, PlannedPasses):
            return planned
        return planned._gone_on(self.order, left, lanes)

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return one pass of many of the same size, planned for one rank without a loader."""
        planned = self.plan(range(num_samples), num_samples, Lanes)
        assert isinstance(planned, PlannedPasses)
        done = validate.integer(epoch, "epoch") * planned.length(num_samples)
        epochs, position = divmod(done, max(1, planned.later.epoch_length(num_samples, 0)))
        under = Under(epochs, position, num_samples, planned.later)
        return PlannedPasses(self, epoch, planned.size, under, planned.later, num_samples).bind(
            num_samples, seed=seed, epoch=epoch
        )


class PlannedPasses(Order):
    """One pass, as ``Passes.plan`` returns it.

    Parameters
    ----------
    passes : Passes
        The order that was planned.
    number : int
        The pass, by the sampler's number of its epoch.
    size : int
        Samples of all ranks in it.
    under : Under
        The epoch under its beginning.
    later : Order
        How the epochs after that one are planned.
    num_samples : int
        How many samples those have.

    Examples
    --------
    >>> from globidx.core.orders.plain import Sequential
    >>> Passes(Sequential(), steps=3).plan(range(9), 9, lambda: Lanes(2, 1, 4)).length(9)
    12
    """

    algorithm = Passes.algorithm

    def __init__(
        self, passes: Passes, number: int, size: int, under: Under, later: Order, num_samples: int
    ) -> None:
        self._passes, self.number, self.size, self._under = passes, number, size, under
        self.later, self._num_samples = later, num_samples

    def parameters(self) -> dict[str, Any]:
        """Return those of the passes, and the plan: where in which epoch this one begins."""
        under = self._under
        assert under.planned is not None
        return {
            **self._passes.parameters(),
            "plan": {
                "pass": self.number,
                "size": self.size,
                "epoch": under.epoch,
                "position": under.position,
                "num_samples": under.num_samples,
                "order": as_text(under.planned),
                "then": as_text(self.later),
            },
        }

    def length(self, num_samples: int) -> int:  # noqa: ARG002
        """Return the size of the pass."""
        return self.size

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:  # noqa: ARG002
        """Return the pass, whatever the trainer's number of it."""
        return _Pass(self, num_samples, validate.integer(seed, "seed"))

    def _stretches(self) -> list[tuple[int, Under]]:
        """Return the epochs under the pass, each with the position of its first sample in the pass.

        Raises
        ------
        ValueError
            If the size of the pass is thousands of epochs.
        """
        under = self._under
        start = -under.position
        found: list[tuple[int, Under]] = []
        while start < self.size:
            if len(found) == _MOST_EPOCHS:
                raise ValueError(
                    f"a pass of {self.size} samples is over {_MOST_EPOCHS} epochs of {self._num_samples}; give it "
                    "a smaller size"
                )
            found.append((start, under))
            start += under.end
            under = Under(under.epoch + 1, 0, self._num_samples, self.later)
            if not self._num_samples:
                break
        return found

    def _under_at(self, position: int) -> Under:
        """Return the epoch under a position of the pass, or after it."""
        start, under = [one for one in self._stretches() if one[0] <= position][-1]
        if position - start == under.end:
            return Under(under.epoch + 1, 0, under.num_samples, under.planned)
        return under._replace(position=position - start)

    def _gone_on(self, order: Order, left: Left, lanes: Callable[[], Lanes]) -> PlannedPasses:
        """Return the pass with ``order`` for the epoch under it, if it was left in the first."""
        under = self._under
        at = under.position + left.position
        if under.planned is None or at >= under.end:
            return self
        planned = order.go_on(under.planned, left._replace(epoch=under.epoch, position=at), lanes)
        if planned == under.planned:
            return self
        under = under._replace(planned=planned)
        later = order.after(planned, Left(under.epoch, under.end), under.epoch + 1)
        # without a history, the next epoch goes on from its start as it was planned
        begin = Left(under.epoch + 1, 0, 0, left.seed)
        later = order.go_on(self.later if later is order else later, begin, lanes)
        return PlannedPasses(self._passes, self.number, self.size, under, later, self._num_samples)


class _Pass(Arrangement):
    """The positions of one pass."""

    def __init__(self, planned: PlannedPasses, num_samples: int, seed: int) -> None:
        super().__init__(num_samples, planned.size if num_samples else 0)
        stretches = planned._stretches()
        self._starts = np.array([start for start, _ in stretches], np.int64)
        self._under, self._seed = [under for _, under in stretches], seed
        self._bound: dict[int, Arrangement] = {}

    def forward(self, positions: Ids) -> Ids:
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        ids = np.empty_like(positions)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            ids[here] = self._of(number).forward(positions[here] - self._starts[number])
        return ids

    def inverse(self, sample_ids: Ids) -> Ids:
        positions = np.full(len(sample_ids), -1, np.int64)
        for number in reversed(range(len(self._under))):
            known = np.flatnonzero(sample_ids < self._of(number).num_samples)
            for one in known.tolist():
                found = self._inside(number, sample_ids[one : one + 1])
                if len(found):
                    positions[one] = found.min()
        return refuse_undrawn(sample_ids, positions)

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return the positions of samples in each epoch under the pass."""
        found = [self._inside(number, sample_ids) for number in range(len(self._under))]
        return np.concatenate([np.empty(0, np.int64), *found])

    def _inside(self, number: int, sample_ids: Ids) -> Ids:
        bound = self._of(number)
        # an epoch that began before files were appended has fewer samples
        at = bound.occurrences(sample_ids[sample_ids < bound.num_samples]) + self._starts[number]
        inside: Ids = at[(at >= 0) & (at < self.length)]
        return inside

    def _of(self, number: int) -> Arrangement:
        if number not in self._bound:
            under = self._under[number]
            assert under.planned is not None
            self._bound[number] = under.planned.bind(
                under.num_samples, seed=self._seed, epoch=under.epoch
            )
        return self._bound[number]


def _parsed(text: Any, where: str) -> dict[str, Any]:
    try:
        described = strict.parse(schema.Text(2**20)(text, f"sampler state: {where}").encode())
    except ValueError:
        described = None
    if not isinstance(described, dict):
        raise RecordError(
            f"sampler state: {where} is no order, {text!r:.80}; it was edited or damaged"
        )
    return described


_PLAN = {
    "pass": schema.Integer(0, _MOST),
    "size": schema.Integer(1, _MOST),
    "epoch": schema.Integer(0, _MOST),
    "position": schema.Integer(0, _MOST),
    "num_samples": schema.Integer(0, _MOST),
    "order": schema.Text(2**20),
    "then": schema.Text(2**20),
}
