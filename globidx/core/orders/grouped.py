"""Batches of one group each, the same group on all ranks at the same step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, get_args

import numpy as np

from globidx.core import validate
from globidx.core.json import schema
from globidx.core.orders.base import Arrangement, Ids, Left, Order, as_text, matches_but
from globidx.core.orders.blocks import Cut, Leg, Rest
from globidx.core.orders.lanes import Lanes
from globidx.core.orders.membership import Groups
from globidx.core.orders.plain import Shuffle
from globidx.core.orders.weighted import derived_seed, refuse_undrawn
from globidx.errors import RecordError, RecordMismatchError

_MOST = 2**62
_MOST_CUTS = 2**10


class Grouped(Order):
    """Every global batch is of one group: a resolution, a channel montage, a bucket of lengths.

    All ranks have the same group at the same step, so no collective waits for a shape that another
    rank does not have. Batches of all groups are shuffled; so are the samples of each group.

    Parameters
    ----------
    groups : array_like or callable
        The group of each sample, an integer or a word; or a function of the sampler's dataset that
        returns them, such as ``by_sequence``.
    inner : Order, optional
        The order of the samples in each group; ``Shuffle()`` by default.
    tail : {"merge", "pad", "drop"}
        What becomes of samples that fill no batch of their group. ``"merge"``: they come at the end
        of the epoch, in batches of several groups. ``"pad"``: each group's last batch is filled up
        with samples of the group, which then come twice. ``"drop"``: they are left out.
    batch : int, optional
        The global batch size: samples of all ranks in a step. By default that of the
        ``globidx.DataLoader`` and the ranks that read; give it with another loader.

    Raises
    ------
    TypeError, ValueError
        If groups are not one for each sample.

    Notes
    -----
    When a run resumes in mid-epoch with another global batch size, the samples that are left are
    cut anew. If ranks had not kept step, their leftovers are one mixed batch first.

    Examples
    --------
    >>> from globidx.core.orders.plain import Sequential
    >>> grouped = Grouped("aaaabbbbbb", inner=Sequential(), batch=2)
    >>> grouped.bind(10, seed=0, epoch=0).take(range(10)).reshape(5, 2).tolist()
    [[8, 9], [0, 1], [2, 3], [6, 7], [4, 5]]
    """

    algorithm = "grouped"

    def __init__(
        self,
        groups: Any,
        inner: Order | None = None,
        *,
        tail: Rest = "merge",
        batch: int | None = None,
    ) -> None:
        if tail not in get_args(Rest):
            raise ValueError(f"tail must be one of {', '.join(get_args(Rest))}, got {tail!r}")
        self._given = groups
        self._groups = None if callable(groups) else _groups(groups)
        # the dataset whose groups they are, if a function returns them
        self._asked: Any = None
        self.inner = Shuffle() if inner is None else inner
        if not isinstance(self.inner, Order):
            raise TypeError(f"inner must be an order, such as Shuffle(), got {inner!r:.80}")
        self.tail = tail
        self._batch = batch if batch is None else validate.integer(batch, "batch", low=1)

    def parameters(self) -> dict[str, Any]:
        """Return the tail and the order in the groups; the plan has the batch size."""
        return {"inner": as_text(self.inner), "tail": self.tail}

    def matches(self, described: Mapping[str, Any]) -> bool:
        """Return whether a record was written in this order, whatever its batch size."""
        return matches_but(self, described, "plan")

    def length(self, num_samples: int) -> int:
        """Return the positions of an epoch that is read one by one."""
        return self.plan(None, num_samples, Lanes).length(num_samples)

    def plan(self, dataset: Any, num_samples: int, lanes: Callable[[], Lanes]) -> Order:
        """Return the order for the batch size of those who read it."""
        groups = self._of(dataset)
        groups.refuse_other(num_samples)
        return PlannedGrouped(self, groups, (Cut(0, self._batch or lanes().batch, 0, 0),))._ended()

    def recorded(self, described: Mapping[str, Any], dataset: Any, num_samples: int) -> Order:
        """Return the order as it was planned for the epoch of a record.

        Raises
        ------
        globidx.errors.RecordMismatchError
            If the groups were others.
        globidx.errors.RecordError
            If the plan was edited or damaged.
        """
        plan = _plan(described.get("plan"))
        # an epoch that was begun before files were appended has none of their samples
        groups = self._of(dataset).first(num_samples)
        if plan["groups"] != groups.digest:
            raise RecordMismatchError(
                f"the epoch of the record was ordered by groups with digest {plan['groups']!r}, but here they have "
                f"digest {groups.digest!r}, so that ids have other positions: pass the same groups, or start a new run",
                field="order",
            )
        cuts = tuple(Cut(*cut) for cut in plan["cuts"])
        ascending = all(one.start <= two.start for one, two in pairwise(cuts))
        if cuts[0].start or cuts[0].lead or not ascending or min(cut.batch for cut in cuts) < 1:
            raise RecordError(
                f"sampler state: order: plan: cuts must ascend from 0, got {plan['cuts']!r:.80}; it was edited or "
                "damaged"
            )
        return PlannedGrouped(self, groups, cuts, plan["without"])

    def go_on(self, planned: Order, left: Left, lanes: Callable[[], Lanes]) -> Order:
        """Return the running epoch, cut anew if batches have another size or begin elsewhere."""
        if not isinstance(planned, PlannedGrouped):
            return planned
        return planned._cut_at(left, self._batch or lanes().batch)

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the order of one epoch, planned for one rank that reads one by one."""
        return self.plan(None, num_samples, Lanes).bind(num_samples, seed=seed, epoch=epoch)

    def _of(self, dataset: Any) -> Groups:
        """Return the groups of all samples of a dataset."""
        # one order may be that of several datasets, and a dataset may grow
        if callable(self._given) and not (
            self._asked is dataset
            and self._groups is not None
            and self._groups.num_samples == len(dataset)
        ):
            self._asked, self._groups = dataset, _groups(self._given(dataset))
        assert self._groups is not None
        return self._groups


class PlannedGrouped(Order):
    """``Grouped`` as it is planned for one epoch: what ``Grouped.plan`` returns.

    Parameters
    ----------
    order : Grouped
        The order that was planned.
    groups : Groups
        The groups of all samples.
    cuts : tuple of Cut
        Where batches of which size begin.
    ids : sequence of (int, int)
        Ranges of samples that have no position.

    Examples
    --------
    >>> planned = Grouped([0, 0, 1, 1, 1]).plan(None, 5, lambda: Lanes(2, 1, 2))
    >>> [cut.batch for cut in planned.cuts], planned.length(5)
    ([2], 5)
    """

    algorithm = Grouped.algorithm

    def __init__(
        self,
        order: Grouped,
        groups: Groups,
        cuts: tuple[Cut, ...],
        ids: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._order, self._groups, self.cuts = order, groups, cuts
        self._ids = tuple((start, stop) for start, stop in ids)
        # samples that are left out fill no batch
        self._parted = groups.without(self._ids) if self._ids else groups
        self._sizes = self._parted.sizes[: len(groups.labels)]

    def parameters(self) -> dict[str, Any]:
        """Return those of the order, and the plan: where batches of which size begin."""
        plan = {"groups": self._groups.digest, "cuts": [list(cut) for cut in self.cuts]}
        if self._ids:
            plan["without"] = [list(pair) for pair in self._ids]
        return {**self._order.parameters(), "plan": plan}

    def without(self, ids: Sequence[tuple[int, int]]) -> Order:
        """Return the order of an epoch in which batches are cut of all samples but these."""
        return PlannedGrouped(self._order, self._groups, self.cuts[:1], ids)._ended()

    def _ended(self) -> PlannedGrouped:
        """Return the order of an epoch that begins, with its length."""
        (leg,) = self._legs(self.cuts, 0, 0)
        cuts = (self.cuts[0]._replace(end=leg.end),)
        return PlannedGrouped(self._order, self._groups, cuts, self._ids)

    def length(self, num_samples: int) -> int:
        """Return the positions of the epoch."""
        self._groups.refuse_other(num_samples)
        return self.cuts[-1].end

    def bind(self, num_samples: int, *, seed: int, epoch: int) -> Arrangement:
        """Return the order of one epoch.

        Raises
        ------
        globidx.errors.RecordError
            If its length is another than the record says.
        """
        self._groups.refuse_other(num_samples)
        keys = validate.integer(seed, "seed"), validate.integer(epoch, "epoch")
        legs = self._legs(self.cuts, *keys)
        if legs[-1].end != self.cuts[-1].end:
            raise RecordError(
                f"sampler state: order: plan: the epoch would end at {self.cuts[-1].end}, but its groups end at "
                f"{legs[-1].end}; it was edited or damaged"
            )
        return _GroupedEpoch(self._parted, legs, self._order.inner, *keys)

    def _cut_at(self, left: Left, batch: int) -> PlannedGrouped:
        """Return the epoch cut anew from where it was left, if that is needed."""
        leg = self._legs(self.cuts, left.seed, left.epoch)[-1]
        start = leg.begun(left.position)
        # positions that remain of batches that were begun
        over = left.holes + start - left.position
        if not leg.has_blocks_after(left.position) or (
            batch == self.cuts[-1].batch and over % batch == 0
        ):
            return self
        if len(self.cuts) == _MOST_CUTS:
            # batches that only begin elsewhere are mixed then, which fails nowhere
            if batch == self.cuts[-1].batch:
                return self
            raise ValueError(
                f"an epoch is cut into batches of other sizes at most {_MOST_CUTS} times"
            )
        cuts = (*self.cuts, Cut(start, batch, -over % batch, 0))
        end = self._legs(cuts, left.seed, left.epoch)[-1].end
        cuts = (*self.cuts, cuts[-1]._replace(end=end))
        return PlannedGrouped(self._order, self._groups, cuts, self._ids)

    def _legs(self, cuts: tuple[Cut, ...], seed: int, epoch: int) -> list[Leg]:
        legs: list[Leg] = []
        for number, cut in enumerate(cuts):
            if legs and not legs[-1].has_cut(cut.start):
                raise RecordError(
                    f"sampler state: order: plan: no batch begins at {cut.start}, where a cut is; it was edited or "
                    "damaged"
                )
            sizes = legs[-1].left(cut.start) if legs else self._sizes
            legs.append(Leg(cut, sizes, self._order.tail, seed=seed, epoch=epoch, number=number))
        return legs


class _GroupedEpoch(Arrangement):
    """The positions of one epoch, leg by leg."""

    def __init__(
        self, groups: Groups, legs: list[Leg], inner: Order, seed: int, epoch: int
    ) -> None:
        super().__init__(groups.num_samples, legs[-1].end)
        self._groups, self._legs = groups, legs
        self._inner, self._seed, self._epoch = inner, seed, epoch
        self._starts = np.array([leg.start for leg in legs], np.int64)
        self._remainders = [leg.remainder(after.start) for leg, after in pairwise(legs)]
        self._bound: dict[int, Arrangement] = {}

    def forward(self, positions: Ids) -> Ids:
        numbers = np.searchsorted(self._starts, positions, side="right") - 1
        ids = np.empty_like(positions)
        for number in np.unique(numbers).tolist():
            here = numbers == number
            groups, members = self._legs[number].forward(positions[here])
            for remainder in reversed(self._remainders[:number]):
                members = remainder.forward(groups, members)
            ids[here] = self._ids(groups, members)
        return ids

    def inverse(self, sample_ids: Ids) -> Ids:
        positions, _, _, _ = self._placed(sample_ids)
        return refuse_undrawn(sample_ids, positions)

    def occurrences(self, sample_ids: Ids) -> Ids:
        """Return the positions of samples, also those at which they fill up a batch."""
        positions, numbers, groups, members = self._placed(sample_ids)
        found = [positions[positions >= 0]]
        for one in np.flatnonzero(positions >= 0).tolist():
            leg = self._legs[int(numbers[one])]
            found.append(leg.repeats(int(groups[one]), int(members[one])))
        return np.concatenate(found)

    def _placed(self, sample_ids: Ids) -> tuple[Ids, Ids, Ids, Ids]:
        """Return the first position of samples, its leg, their group, and which member they are."""
        groups, members = self._groups.inverse(sample_ids)
        for group in np.unique(groups).tolist():
            own = groups == group
            members[own] = self._of(group).inverse(members[own])
        positions, numbers = np.full_like(groups, -1), np.zeros_like(groups)
        # samples that are left out are in a group that no leg has
        kept = groups < self._legs[0].groups
        positions[kept], numbers[kept], members[kept] = self._in_legs(groups[kept], members[kept])
        return positions, numbers, groups, members

    def _in_legs(self, groups: Ids, members: Ids) -> tuple[Ids, Ids, Ids]:
        """Return the first position of members of groups, its leg, and which member they are there."""
        positions = self._legs[0].inverse(groups, members)
        numbers = np.zeros_like(positions)
        for number, remainder in enumerate(self._remainders, 1):
            # what this leg has not come to is in the next one
            later = (numbers == number - 1) & (
                (positions >= self._starts[number]) | (positions < 0)
            )
            numbers[later] = number
            members[later] = remainder.inverse(groups[later], members[later])
            positions[later] = self._legs[number].inverse(groups[later], members[later])
        return positions, numbers, members

    def _ids(self, groups: Ids, members: Ids) -> Ids:
        placed = np.empty_like(members)
        for group in np.unique(groups).tolist():
            own = groups == group
            placed[own] = self._of(group).forward(members[own])
        return self._groups.forward(groups, placed)

    def _of(self, group: int) -> Arrangement:
        if group not in self._bound:
            seed = derived_seed(f"grouped.1 {self._seed} {group}")
            size = int(self._groups.sizes[group])
            self._bound[group] = self._inner.bind(size, seed=seed, epoch=self._epoch)
        return self._bound[group]


def _groups(labels: Any) -> Groups:
    # a word is a sequence of letters, which is what people try with
    return (
        labels
        if isinstance(labels, Groups)
        else Groups.of(list(labels) if isinstance(labels, str) else labels)
    )


def _plan(value: Any) -> dict[str, Any]:
    """The plan of a record, in which nothing may be left out."""
    given = {"without": [], **value} if isinstance(value, Mapping) else value
    plan = schema.fields(given, "sampler state: order: plan", _PLAN)
    ends = [end for pair in plan["without"] for end in pair]
    if any(one >= other for one, other in pairwise(ends)):
        raise RecordError(
            f"sampler state: order: plan: ranges of ids must ascend, got {plan['without']!r:.80}; it was edited or "
            "damaged"
        )
    return plan


_PLAN = {
    "without": schema.List(
        schema.List(schema.Integer(0, _MOST), at_least=2, at_most=2), at_most=2**16
    ),
    "groups": schema.Text(32),
    "cuts": schema.List(
        schema.List(schema.Integer(0, _MOST), at_least=4, at_most=4),
        at_least=1,
        at_most=_MOST_CUTS,
    ),
}
