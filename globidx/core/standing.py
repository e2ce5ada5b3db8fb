"""Where a sampler stands: the state of its epoch, over the dataset as it is now and the ranks as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from globidx.core import checks, strictjson
from globidx.core.lanes import Lanes
from globidx.core.limits import bounded
from globidx.core.orders import Order
from globidx.core.partition import Tail
from globidx.core.progress import Progress
from globidx.core.ranges import Ranges
from globidx.core.state import DatasetIdentity, SamplerState
from globidx.core.view import EpochView
from globidx.errors import CommitError, RecordError, RecordMismatchError


class Ranks(Protocol):
    """Who tells rank and world size, each time they are needed."""

    def resolve(self) -> tuple[int, int]:
        """(rank, world size)"""

    def for_child(self) -> Ranks:
        """The same for a copy in another process, which may have nobody to ask."""


class Standing:
    """One run's place: ``state`` is its epoch and what is committed of it.

    ``dataset`` is anything with ``len()``. An epoch of which nothing was taken yet takes the dataset as it is, and has
    its order planned for the ranks and the loader as they are (``loading``: workers and batch size of one rank). One
    that runs keeps its own, and refuses a dataset that changed under it other than by growing at its end.
    """

    def __init__(self, dataset: Any, order: Order, seed: int, tail: Tail, ranks: Ranks) -> None:
        self.dataset, self.order, self.seed, self.tail, self.ranks = dataset, order, seed, tail, ranks
        self.loading = (0, 1)
        self.state = self._fresh(0, Ranges())
        self._seen = self.state.dataset  # the dataset as it was last compared with the epoch's
        self._view: EpochView | None = None

    def now(self) -> tuple[SamplerState, int]:
        """The state at the world size of now, and this rank; CommitError where ids were committed at another."""
        rank, world_size = self.ranks.resolve()
        if self.state.committed and self.state.world_size != world_size:
            raise self.other_world(self.state.world_size, world_size)
        return replace(self.state, world_size=world_size), rank

    def view(self) -> EpochView:
        """What remains of the epoch, in its order."""
        if self._view is None:
            self._view = self._viewed(self.state, self._planned)
        return self._view

    def _viewed(self, state: SamplerState, planned: Order) -> EpochView:
        arrangement = planned.bind(state.dataset.num_samples, seed=self.seed, epoch=state.epoch)
        return EpochView(arrangement, state.progress)

    def _plan(self, num_samples: int) -> Order:
        """The order of an epoch that begins now."""
        return self.order.plan(self.dataset, num_samples, self._lanes)

    def _lanes(self) -> Lanes:
        (_, world_size), (workers, batch_size) = self.ranks.resolve(), self.loading
        return Lanes(inner=world_size, outer=max(1, workers), batch=world_size * batch_size)

    def _recorded(self, state: SamplerState) -> Order:
        """The order of a record's epoch, which keeps its plan if anything of it was taken."""
        if state.closed().committed:
            return self.order.recorded(state.order, self.dataset, state.dataset.num_samples)
        return self.order.plan(self.dataset, state.dataset.num_samples, Lanes)

    def begin(self, epoch: int, *, ended: bool = False) -> None:
        """Start ``epoch`` afresh, over the dataset as it is now; ``ended``: the one before was read through."""
        left = replace(self.state, world_size=self.ranks.resolve()[1])
        if not left.committed and not left.progress.committed:  # the same on every rank, whoever looked at it
            # one that was read through was planned for its loader, also on a rank that was dealt nothing of it
            lanes = self._lanes if ended else Lanes
            planned = self.order.plan(self.dataset, DatasetIdentity.of(self.dataset).num_samples, lanes)
            left = replace(left, order=_described(planned))
        trail = left.left_behind()
        self._start_segment(replace(self._fresh(epoch, self.state.skip), trail=trail))

    def load(self, loaded: SamplerState) -> None:
        """Go on from ``loaded``, of any world size. A running epoch keeps its samples, whatever was appended since."""
        progress = loaded.closed()
        skip = loaded.skip | self.state.skip
        if progress.committed and progress.remaining:
            self._planned = self._recorded(loaded)
            running = replace(loaded, tail=self.tail, progress=progress, committed=0, finished_epoch=None, skip=skip)
            self._start_segment(running)
        else:
            fresh = self._fresh(loaded.epoch + bool(progress.committed), skip)
            self._start_segment(replace(fresh, trail=loaded.trail, quarantined=loaded.quarantined))

    def look(self, *, untouched: bool, skipping: bool = False) -> bool:
        """See what became of the dataset and, with ``skipping``, of the ids to leave out; whether the epoch began anew.

        ``untouched`` says that nothing was taken from the epoch. RecordMismatchError where ids of a running one moved.
        """
        state, found = self.state, DatasetIdentity.of(self.dataset)
        if untouched and not state.committed and not state.progress.committed:
            planned = self._plan(found.num_samples)
            if found != state.dataset or planned != self._planned or (skipping and self._to_skip(state).pairs):
                fresh = replace(self._fresh(state.epoch, state.skip), order=_described(planned))
                self._planned = planned
                self._start_segment(replace(fresh, finished_epoch=state.finished_epoch, trail=state.trail))
                return True
        elif found != self._seen:
            if not state.dataset.begins(self.dataset):
                raise RecordMismatchError(
                    f"the dataset changed in the middle of epoch {state.epoch}: {state.dataset} is now {found}, so ids "
                    "mean other samples; open the old files, or go on with the new ones after finish_epoch() or reset()"
                )
            self._seen = found
        return False

    def skip(self, ids: Ranges) -> None:
        """Leave ``ids`` out from the next segment on; IndexError outside the dataset."""
        if ids.pairs:
            checks.sample_id(ids.pairs[-1][1] - 1, DatasetIdentity.of(self.dataset).num_samples)
        self.state = replace(self.state, skip=bounded(self.state.skip | ids, "skip() would leave out"))

    def quarantine(self, ids: Ranges) -> None:
        """List ``ids``, which others stood in for; RecordError for more than a record may hold."""
        listed = bounded(self.state.quarantined | ids, "the quarantine would list")
        self.state = replace(self.state, quarantined=listed)

    def refuse_other_run(self, state: Mapping[str, Any]) -> SamplerState:
        """``state``, parsed; RecordMismatchError where it is another run's. Changes nothing."""
        loaded = SamplerState.from_dict(state)
        loaded.refuse_other_run(dataset=self.dataset, order=self.order, seed=self.seed)
        planned = self._recorded(loaded)
        length = self.order.length(loaded.dataset.num_samples) if loaded.progress.committed else loaded.progress.length
        if loaded.progress.length != length:
            raise RecordError(f"sampler state: length is {loaded.progress.length}, the order has {length} positions")
        if loaded.progress.left_out.pairs:  # compares what is left out with what the order says
            self._viewed(loaded, planned)
        return loaded

    def other_world(self, before: int | None, now: int) -> CommitError:
        """The error for ids of one world size that are counted at another."""
        return CommitError(
            f"ids of epoch {self.state.epoch} were dealt at world size {before}, and it is {now} now; "
            "build the sampler anew and load the record to go on with other ranks"
        )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_view": None}

    def _to_skip(self, state: SamplerState) -> Ranges:
        """The ids that its list says, and its epoch does not leave out yet."""
        return (state.skip - state.progress.left_out).below(state.dataset.num_samples)

    def _fresh(self, epoch: int, skip: Ranges) -> SamplerState:
        """An epoch's start, planned for one rank until somebody looks: ranks are asked as late as can be."""
        dataset = DatasetIdentity.of(self.dataset)
        self._planned = self.order.plan(self.dataset, dataset.num_samples, Lanes)
        return SamplerState(
            dataset=dataset,
            order=_described(self._planned),
            seed=self.seed,
            epoch=epoch,
            tail=self.tail,
            progress=Progress(self.order.length(dataset.num_samples)),
            skip=skip,
        )

    def _start_segment(self, state: SamplerState) -> None:
        """Go on from ``state``, leaving out what its list says and its epoch does not leave out yet.

        What was in quarantine before stays there: the list is of the whole run.
        """
        state = replace(state, quarantined=self.state.quarantined | state.quarantined)
        self.state, self._seen, self._view = state, state.dataset, None
        more = self._to_skip(state)
        if more.pairs:
            self.state = replace(state, progress=state.progress.skip(more, self.view().positions_left(more)))
            self._view = None


def _described(order: Order) -> dict[str, Any]:
    """The order as a record gives it back."""
    described: dict[str, Any] = strictjson.plain(order.describe(), "order")
    return described
