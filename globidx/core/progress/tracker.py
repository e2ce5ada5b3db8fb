"""A sampler's tracker: the state of its epoch, over the dataset and the ranks as they are now.

Queries (``at``) compute what would hold now and store nothing; only a pass that begins (``renew``), a commit, an epoch
that begins, a load and the two lists of ids change the tracker.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

from globidx.core import validate
from globidx.core.datasets.identity import DatasetIdentity
from globidx.core.json import strict
from globidx.core.orders.base import Order
from globidx.core.orders.lanes import Lanes
from globidx.core.progress.limits import bounded
from globidx.core.progress.partition import Tail
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import SamplerState
from globidx.core.progress.view import EpochView
from globidx.errors import CommitError, EpochError, RecordError, RecordMismatchError


class Ranks(Protocol):
    """Who knows rank and world size, each time they are needed."""

    def resolve(self) -> tuple[int, int]:
        """(rank, world size)."""

    def for_child(self) -> Ranks:
        """The same for a copy in another process, which may have nobody to ask."""


class Tracker:
    """One run's place: ``state`` is its epoch and what is committed of it.

    ``dataset`` is anything with ``len()``. An epoch of which nothing was taken yet takes the dataset as it is, and has
    its order planned for the ranks and the loader as they are (``loading``: workers and batch size of one rank). One
    that runs keeps its own, and refuses a dataset that changed under it other than by growing at its end.
    """

    def __init__(self, dataset: Any, order: Order, seed: int, tail: Tail, ranks: Ranks) -> None:
        self.dataset, self.order, self.seed, self.tail, self.ranks = dataset, order, seed, tail, ranks
        self.loading = (0, 1)
        #: Epochs below it are finished, says the record that was loaded.
        self.loaded_epoch = 0
        self.state, self._planned = self._fresh(0, Ranges())
        self._seen = self.state.dataset  # the dataset as it was last compared with the epoch's
        self._view: EpochView | None = None

    # -- queries

    def at(self, *, untouched: bool, unread: bool) -> tuple[SamplerState, int]:
        """The state at the world size of now, and this rank; changes nothing.

        ``untouched`` says that no id of the pass was drawn, ``unread`` that no loader has begun to read it. CommitError
        where ids were committed at another world size, RecordMismatchError where the dataset changed under a running
        epoch.
        """
        renewed = self._renewed(untouched=untouched, unread=unread)
        state = self.state if renewed is None else renewed[0]
        rank, world_size = self.ranks.resolve()
        if self.state.committed and self.state.world_size != world_size:
            raise self.other_world(self.state.world_size, world_size)
        return state.dealt_to(world_size), rank

    def view(self) -> EpochView:
        """What remains of the epoch, in its order."""
        if self._view is None:
            self._view = self._viewed(self.state, self._planned)
        return self._view

    def whole_epoch(self, epoch: int) -> int:
        """How many ids this rank would yield of ``epoch`` if it began now, from its first to its last."""
        rank, world_size = self.ranks.resolve()
        fresh, planned = self._fresh(epoch, self.state.skip)
        begun = self._leaving_out(replace(fresh, world_size=world_size), planned, fresh.skip)
        return begun.stream_length(rank)

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

    def refuse_finished(self, epoch: int) -> None:
        """EpochError for an epoch that a loaded record calls finished."""
        if epoch < self.loaded_epoch:
            raise EpochError(
                f"set_epoch({epoch}), but the loaded record says that epochs [0, {self.loaded_epoch}) are finished "
                f"and stands in epoch {self.loaded_epoch}. A loop, or a trainer's own counter, restarted at 0 after "
                "the resume: let it run over range(sampler.epoch, num_epochs), or use the plug for your framework "
                "(globidx.integrations); call sampler.reset() first to train on that epoch again"
            )

    def other_world(self, before: int | None, now: int) -> CommitError:
        """The error for ids of one world size that are counted at another."""
        return CommitError(
            f"ids of epoch {self.state.epoch} were dealt at world size {before}, and it is {now} now; "
            "build the sampler anew and load the record to go on with other ranks"
        )

    # -- changes

    def renew(self, *, unread: bool) -> bool:
        """A pass begins: an epoch of which nothing was committed takes dataset, plan and skips as they are.

        Returns whether the epoch began anew, so that what was drawn of it no longer counts.
        """
        renewed = self._renewed(untouched=True, unread=unread)
        if renewed is not None:
            self._go_on(*renewed)
        return renewed is not None

    def commit(self, amount: int, rank: int, world_size: int) -> None:
        """``amount`` more ids of ``rank`` are committed; CommitError if it had fewer left."""
        self.state = self.state.dealt_to(world_size).commit(amount, rank)

    def begin(self, epoch: int, *, ended: bool = False) -> None:
        """Start ``epoch`` afresh, over the dataset as it is now; ``ended``: the one before was read through."""
        left = replace(self.state, world_size=self.ranks.resolve()[1])
        if not left.committed and not left.progress.committed:  # the same on every rank, whoever looked at it
            # one that was read through was planned for its loader, also on a rank that was dealt nothing of it
            lanes = self._lanes if ended else Lanes
            planned = self.order.plan(self.dataset, DatasetIdentity.of(self.dataset).num_samples, lanes)
            left = replace(left, order=_described(planned))
        fresh, planned = self._fresh(epoch, self.state.skip)
        finished = left.epoch if ended else None
        self._start(replace(fresh, trail=left.left_behind(), finished_epoch=finished), planned)

    def load(self, loaded: SamplerState) -> None:
        """Go on from ``loaded``, of any world size. A running epoch keeps its samples, whatever was appended since."""
        epoch, progress = loaded.resumed()
        skip = loaded.skip | self.state.skip
        if progress.committed:
            running = replace(loaded, tail=self.tail, progress=progress, committed=0, finished_epoch=None, skip=skip)
            self._start(running, self._recorded(loaded))
        else:
            fresh, planned = self._fresh(epoch, skip)
            self._start(replace(fresh, trail=loaded.trail, quarantined=loaded.quarantined), planned)
        self.loaded_epoch = self.state.epoch

    def start_over(self) -> None:
        """The epoch starts from its first position again, whatever was loaded or committed of it."""
        fresh, planned = self._fresh(self.state.epoch, self.state.skip)
        self._start(replace(fresh, trail=self.state.trail), planned)

    def skip(self, ids: Ranges) -> None:
        """Leave ``ids`` out from the next epoch or load on; IndexError outside the dataset."""
        if ids.pairs:
            validate.sample_id(ids.pairs[-1][1] - 1, DatasetIdentity.of(self.dataset).num_samples)
        self.state = replace(self.state, skip=bounded(self.state.skip | ids, "skip() would leave out"))

    def quarantine(self, ids: Ranges) -> None:
        """List ``ids``, which others stood in for; RecordError for more than a record may hold."""
        self.state = self.state.quarantine(ids)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_view": None}

    # -- inside

    def _renewed(self, *, untouched: bool, unread: bool) -> tuple[SamplerState, Order] | None:
        """The epoch, begun anew over the dataset and for the readers as they are; None where nothing changed.

        An epoch that runs stays as it is; RecordMismatchError where its ids moved. Skips that were listed since the
        epoch before ended are for this one, unless a loader reads it: then ranks may have come differently far.
        """
        state, found = self.state, DatasetIdentity.of(self.dataset)
        if untouched and not state.committed and not state.progress.committed:
            planned = self.order.plan(self.dataset, found.num_samples, self._lanes)
            between = unread and state.finished_epoch is not None and state.finished_epoch + 1 == state.epoch
            skip = state.skip if between else state.progress.left_out
            more = (skip - state.progress.left_out).below(found.num_samples)
            if found == state.dataset and planned == self._planned and not more.pairs:
                return None
            fresh = replace(self._of(planned, found, state.epoch, state.skip), finished_epoch=state.finished_epoch)
            fresh = replace(fresh, trail=state.trail, quarantined=state.quarantined)
            return self._leaving_out(fresh, planned, skip), planned
        if found != self._seen:
            if not state.dataset.begins(self.dataset):
                raise RecordMismatchError(
                    f"the dataset changed in the middle of epoch {state.epoch}: {state.dataset} is now {found}, so ids "
                    "mean other samples; open the old files, or go on with the new ones after finish_epoch() or reset()"
                )
            self._seen = found
        return None

    def _viewed(self, state: SamplerState, planned: Order) -> EpochView:
        arrangement = planned.bind(state.dataset.num_samples, seed=self.seed, epoch=state.epoch)
        return EpochView(arrangement, state.progress)

    def _lanes(self) -> Lanes:
        (_, world_size), (workers, batch_size) = self.ranks.resolve(), self.loading
        return Lanes(ranks=world_size, workers=max(1, workers), batch=world_size * batch_size)

    def _recorded(self, state: SamplerState) -> Order:
        """The order of a record's epoch, which keeps its plan if anything of it was taken."""
        if state.closed().committed:
            return self.order.recorded(state.order, self.dataset, state.dataset.num_samples)
        return self.order.plan(self.dataset, state.dataset.num_samples, Lanes)

    def _fresh(self, epoch: int, skip: Ranges) -> tuple[SamplerState, Order]:
        """An epoch's start, planned for one rank until a pass begins: ranks are asked as late as can be."""
        dataset = DatasetIdentity.of(self.dataset)
        planned = self.order.plan(self.dataset, dataset.num_samples, Lanes)
        return self._of(planned, dataset, epoch, skip), planned

    def _of(self, planned: Order, dataset: DatasetIdentity, epoch: int, skip: Ranges) -> SamplerState:
        return SamplerState(
            dataset=dataset,
            order=_described(planned),
            seed=self.seed,
            epoch=epoch,
            tail=self.tail,
            progress=Progress(self.order.length(dataset.num_samples)),
            skip=skip,
        )

    def _start(self, state: SamplerState, planned: Order) -> None:
        """Go on from ``state``, leaving out what its list says and its epoch does not leave out yet.

        What was in quarantine before stays there: the list is of the whole run.
        """
        state = replace(state, quarantined=self.state.quarantined | state.quarantined)
        self._go_on(self._leaving_out(state, planned, state.skip), planned)

    def _go_on(self, state: SamplerState, planned: Order) -> None:
        self.state, self._planned, self._seen, self._view = state, planned, state.dataset, None

    def _leaving_out(self, state: SamplerState, planned: Order, ids: Ranges) -> SamplerState:
        """``state``, with those of ``ids`` left out from here on that are not yet."""
        more = (ids - state.progress.left_out).below(state.dataset.num_samples)
        if not more.pairs:
            return state
        positions = self._viewed(state, planned).positions_left(more)
        return replace(state, progress=state.progress.skip(more, positions))


def _described(order: Order) -> dict[str, Any]:
    """The order as a record gives it back."""
    described: dict[str, Any] = strict.plain(order.describe(), "order")
    return described
