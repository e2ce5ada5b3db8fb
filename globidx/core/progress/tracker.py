"""A sampler's tracker: owns the state of its epoch, over the current dataset and ranks.

Queries such as ``at`` compute the current values and store nothing. Only ``renew``, ``commit``,
``begin``, ``load``, ``start_over``, ``skip`` and ``quarantine`` change the tracker.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from globidx.core import validate
from globidx.core.datasets.identity import DatasetIdentity, advice
from globidx.core.json import strict
from globidx.core.orders.base import Arrangement, Left, Order
from globidx.core.orders.lanes import Lanes
from globidx.core.progress.frontier import left_at, rearranged
from globidx.core.progress.limits import bounded
from globidx.core.progress.partition import Tail
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import SamplerState
from globidx.core.progress.view import EpochView
from globidx.errors import CommitError, EpochError, RecordError, RecordMismatchError


class Ranks(Protocol):
    """The source of rank and world size, which is asked each time they are needed."""

    def resolve(self) -> tuple[int, int]:
        """Return (rank, world size)."""

    def for_child(self) -> Ranks:
        """Return the same for a copy in another process, which may have no process group."""


class Tracker:
    """How far a run has come: ``state`` is its epoch, and what is committed of it.

    ``dataset`` is anything with ``len()``. As long as nothing of an epoch is committed, the epoch
    follows the dataset, and its order is planned for the current ranks and loader (``loading``:
    workers and batch size of a rank). An epoch that runs keeps both, and refuses a dataset that
    changed in any other way than by growing at its end.
    """

    def __init__(self, dataset: Any, order: Order, seed: int, tail: Tail, ranks: Ranks) -> None:
        self.dataset = dataset
        self.order = order
        self.seed = seed
        self.tail = tail
        self.ranks = ranks
        self.loading = (0, 1)
        # the order that plans the next epoch: `order`, unless that depends on earlier epochs
        self._upcoming = order
        #: Earlier epochs are finished, according to the record that was loaded.
        self.loaded_epoch = 0
        self.state, self._planned = self._fresh(0, Ranges())
        #: The identity of the dataset when it was last compared with that of the epoch.
        self._seen = self.state.dataset
        self._view: EpochView | None = None

    # -- queries

    def at(self, *, untouched: bool, unread: bool) -> tuple[SamplerState, int]:
        """Return the state at the current world size, and the rank; changes nothing.

        ``untouched`` says that no id of the pass was drawn, ``unread`` that no loader has begun to
        read it. CommitError if ids were committed at another world size, RecordMismatchError if
        the dataset changed in a running epoch.
        """
        renewed = self._renewed(untouched=untouched, unread=unread)
        state = self.state if renewed is None else renewed[0]
        rank, world_size = self.ranks.resolve()
        # ids of this segment are dealt to as many ranks as it began with: nobody could say which
        # are committed
        if self.state.committed and self.state.world_size != world_size:
            raise self.other_world(self.state.world_size, world_size)
        return state.dealt_to(world_size), rank

    def view(self) -> EpochView:
        """Return what remains of the epoch, in its order."""
        # building one looks up all skips: it is kept until the epoch or its plan changes
        if self._view is None:
            self._view = self._viewed(self.state, self._planned)
        return self._view

    def whole_epoch(self, epoch: int) -> int:
        """Return how many ids this rank would yield of a whole ``epoch`` that began now."""
        rank, world_size = self.ranks.resolve()
        fresh, planned = self._fresh(epoch, self.state.skip)
        begun = self._leaving_out(replace(fresh, world_size=world_size), planned, fresh.skip)
        return begun.stream_length(rank)

    def check(self, state: Mapping[str, Any]) -> SamplerState:
        """Return ``state``, parsed.

        RecordMismatchError if another run wrote it. Nothing changes.
        """
        loaded = SamplerState.from_dict(state)
        loaded.refuse_single_rank()
        refuse_other_run(loaded, dataset=self.dataset, order=self.order, seed=self.seed)
        try:
            self._check_plan(loaded)
        except RecordError:
            raise
        except (ValueError, OverflowError) as error:
            raise RecordError(f"sampler state: order: {error}; it was edited or damaged") from None
        return loaded

    def _check_plan(self, loaded: SamplerState) -> None:
        """RecordError or ValueError unless the order of a record can be had, and is as long as it says."""
        is_begun = bool(loaded.closed().committed)
        if not is_begun and not _has_history(self.order):
            return
        planned = self._recorded(loaded)
        # An epoch of which nothing is committed is planned again, and may then have another length.
        if not is_begun:
            self._after_recorded(planned, loaded.epoch)
            return
        length = planned.epoch_length(loaded.dataset.num_samples, loaded.epoch)
        if loaded.progress.length != length:
            raise RecordError(
                f"sampler state: length is {loaded.progress.length}, but the order has {length} positions; it was "
                "edited or damaged"
            )
        # Building the view compares how many positions are left out with the order, and checks a
        # plan that has a history.
        if loaded.progress.left_out.pairs or _changes(self.order):
            self._viewed(loaded, planned)

    def refuse_finished(self, epoch: int) -> None:
        """EpochError if ``epoch`` is finished according to the record that was loaded."""
        # an empty pass would end a trainer, whose counter restarted at 0, untrained and without an
        # error
        if epoch < self.loaded_epoch:
            raise EpochError(
                f"set_epoch({epoch}), but epochs [0, {self.loaded_epoch}) are finished according to the loaded record, "
                f"which is in epoch {self.loaded_epoch}. Probably a loop, or the counter of a trainer, restarted at 0: "
                "loop over range(sampler.epoch, num_epochs), or use the integration for your framework "
                "(globidx.integrations). To train on that epoch again, call sampler.reset() first"
            )

    def other_world(self, before: int | None, now: int) -> CommitError:
        """Return the error for ids dealt at one world size and committed at another."""
        return CommitError(
            f"ids of epoch {self.state.epoch} were dealt at world size {before}, but it is {now} now; build a new "
            "sampler and load the record to go on with other ranks"
        )

    # -- changes

    def renew(self, *, unread: bool) -> bool:
        """Begin a pass.

        An epoch of which nothing is committed takes the current dataset, plan and skips.

        Returns whether that changed the epoch, so that samples drawn before do not count.
        """
        renewed = self._renewed(untouched=True, unread=unread)
        if renewed is not None:
            self._go_on(*renewed)
        return renewed is not None

    def commit(self, amount: int, rank: int, world_size: int, at: Ranges | None = None) -> None:
        """Commit ``amount`` more ids of ``rank``; CommitError if it had fewer left.

        They are those ``at`` some indices of its stream, or else the first that it has left.
        """
        # the first commit of a segment fixes its world size
        self.state = self.state.dealt_to(world_size).commit(amount, rank, at)

    def begin(self, epoch: int, *, ended: bool = False) -> None:
        """Start ``epoch`` over the current dataset.

        ``ended`` says that the epoch before was completed.
        """
        left = replace(self.state, world_size=self.ranks.resolve()[1])
        # The trail must be the same on every rank, so an epoch without commits is planned again.
        if not left.committed and not left.progress.committed:
            # A completed epoch was planned for its loader, also on a rank without samples.
            lanes = self._lanes if ended else Lanes
            planned = self._plan(DatasetIdentity.of(self.dataset), left.progress.left_out, lanes)
            left = replace(left, order=_described(planned))
            self._planned, self._view = planned, None
        # how far an epoch came is looked up for those orders alone that ask for it
        if _has_history(self.order):
            self._upcoming = self.order.after(self._planned, self._left(ended=ended), epoch)
        fresh, planned = self._fresh(epoch, self.state.skip)
        finished = left.epoch if ended else None
        self._start(replace(fresh, trail=left.left_behind(), finished_epoch=finished), planned)

    def load(self, loaded: SamplerState) -> None:
        """Go on from ``loaded``, of any world size.

        A running epoch keeps its samples if files were appended.
        """
        epoch, progress = loaded.resumed()
        # what was skipped before the load is still bad data
        skip = loaded.skip | self.state.skip
        if progress.committed:
            planned = self._recorded(loaded)
            running = replace(
                loaded,
                # as this run says it, so that ranks that are in the next epoch say the same
                order=_described(planned),
                tail=self.tail,
                progress=progress,
                committed=0,
                taken=None,
                finished_epoch=None,
                skip=skip,
            )
            self._start(running, planned)
            self._upcoming = self._after_recorded(planned, epoch)
        else:
            if _has_history(self.order):
                self._upcoming = self._after_recorded(self._recorded(loaded), epoch)
            fresh, planned = self._fresh(epoch, skip)
            self._start(replace(fresh, trail=loaded.trail, quarantined=loaded.quarantined), planned)
        self.loaded_epoch = self.state.epoch

    def start_over(self) -> None:
        """Start the epoch from its first position again, whatever was loaded or committed of it."""
        fresh, planned = self._fresh(self.state.epoch, self.state.skip)
        self._start(replace(fresh, trail=self.state.trail), planned)

    def skip(self, ids: Ranges) -> None:
        """Leave ``ids`` out from the next epoch or load on.

        IndexError if one is outside the dataset.
        """
        if ids.pairs:
            validate.sample_id(ids.pairs[-1][1] - 1, DatasetIdentity.of(self.dataset).num_samples)
        self.state = replace(
            self.state, skip=bounded(self.state.skip | ids, "skip() would leave out")
        )

    def quarantine(self, ids: Ranges) -> None:
        """Add ``ids``, which were replaced by others.

        RecordError if a record cannot hold so many.
        """
        self.state = self.state.quarantine(ids)

    def __getstate__(self) -> dict[str, Any]:
        # a view may be large, and a copy makes its own when it needs one
        return self.__dict__ | {"_view": None}

    # -- inside

    def _renewed(self, *, untouched: bool, unread: bool) -> tuple[SamplerState, Order] | None:
        """Return the epoch for the current dataset and readers, and its order.

        None if both are the same as before.

        An epoch that runs stays as it is; RecordMismatchError if its ids mean other samples now.
        Ids that were skipped since the epoch before ended are left out of this one, unless a
        loader reads it: then ranks may have progressed by different amounts.
        """
        state, here = self.state, DatasetIdentity.of(self.dataset)
        if untouched and not state.committed and not state.progress.committed:
            between = (
                unread
                and state.finished_epoch is not None
                and state.finished_epoch + 1 == state.epoch
            )
            skip = state.skip if between else state.progress.left_out
            planned = self._plan(here, skip, self._lanes)
            more = (skip - state.progress.left_out).below(here.num_samples)
            # the usual case: nothing is made anew, and iterators of this pass stay good
            if here == state.dataset and planned == self._planned and not more.pairs:
                return None
            fresh = replace(
                self._of(planned, here, state.epoch, state.skip),
                finished_epoch=state.finished_epoch,
            )
            fresh = replace(fresh, trail=state.trail, quarantined=state.quarantined)
            return self._leaving_out(fresh, planned, skip), planned
        if here != self._seen:
            # appended samples have ids behind all of this epoch's
            if not state.dataset.begins(self.dataset):
                raise RecordMismatchError(
                    f"the dataset changed in the middle of epoch {state.epoch}: {state.dataset} is now {here}, so that "
                    "ids mean other samples; open the old files, or call finish_epoch() or reset() to use the new ones"
                )
            self._seen = here
        if untouched and not state.committed and _changes(self.order):
            return self._gone_on()
        return None

    def _gone_on(self) -> tuple[SamplerState, Order] | None:
        """Return the running epoch as the order has its rest, which is dealt anew; None if as before."""
        state = self.state
        planned = self.order.go_on(self._planned, self._left(ended=False), self._lanes)
        if planned == self._planned:
            return None
        progress = rearranged(state.progress, self._arranged(state, planned))
        return replace(state, order=_described(planned), progress=progress), planned

    def _left(self, *, ended: bool) -> Left:
        """Return how far the epoch has come, if all ranks have kept step since it was loaded."""
        state = self.state
        if ended:
            end = self._planned.epoch_length(state.dataset.num_samples, state.epoch)
            return Left(state.epoch, end, 0, self.seed)
        arranged = self._arranged(state, self._planned)
        return left_at(state.closed(), arranged, seed=self.seed, epoch=state.epoch)

    def _after_recorded(self, planned: Order, epoch: int) -> Order:
        """Return the order that would plan the epoch of a record from its start."""
        return self.order.after(planned, Left(epoch, 0, 0, self.seed), epoch)

    def _viewed(self, state: SamplerState, planned: Order) -> EpochView:
        return EpochView(self._arranged(state, planned), state.progress)

    def _arranged(self, state: SamplerState, planned: Order) -> Arrangement:
        arrangement: object = planned.bind(
            state.dataset.num_samples, seed=self.seed, epoch=state.epoch
        )
        if not isinstance(arrangement, Arrangement):
            raise TypeError(
                f"{type(planned).__name__}.bind() must return an orders.Arrangement, got {arrangement!r:.80}"
            )
        return arrangement

    def _lanes(self) -> Lanes:
        # a loader without workers reads in one process, which is one lane a rank
        (_, world_size), (workers, batch_size) = self.ranks.resolve(), self.loading
        return Lanes(ranks=world_size, workers=max(1, workers), batch=world_size * batch_size)

    def _recorded(self, state: SamplerState) -> Order:
        """Return the order of the epoch of a record, as it was planned for it."""
        return self.order.recorded(state.order, self.dataset, state.dataset.num_samples)

    def _fresh(self, epoch: int, skip: Ranges) -> tuple[SamplerState, Order]:
        """Return the start of an epoch.

        It is planned for one rank until a pass begins and asks for the ranks.
        """
        dataset = DatasetIdentity.of(self.dataset)
        planned = self._plan(dataset, skip, Lanes)
        return self._of(planned, dataset, epoch, skip), planned

    def _plan(self, dataset: DatasetIdentity, skip: Ranges, lanes: Callable[[], Lanes]) -> Order:
        """Return the order of an epoch that begins now, of which some ids are left out."""
        planned = self._upcoming.plan(self.dataset, dataset.num_samples, lanes)
        return planned.without(skip.below(dataset.num_samples).pairs)

    def _of(
        self, planned: Order, dataset: DatasetIdentity, epoch: int, skip: Ranges
    ) -> SamplerState:
        return SamplerState(
            dataset=dataset,
            order=_described(planned),
            seed=self.seed,
            epoch=epoch,
            tail=self.tail,
            progress=Progress(planned.epoch_length(dataset.num_samples, epoch)),
            skip=skip,
        )

    def _start(self, state: SamplerState, planned: Order) -> None:
        """Go on from ``state``, and leave out all ids of its ``skip``.

        The quarantine is of the whole run, so the ids in it are kept.
        """
        state = replace(state, quarantined=self.state.quarantined | state.quarantined)
        self._go_on(self._leaving_out(state, planned, state.skip), planned)

    def _go_on(self, state: SamplerState, planned: Order) -> None:
        self.state = state
        self._planned = planned
        self._seen = state.dataset
        self._view = None

    def _leaving_out(self, state: SamplerState, planned: Order, ids: Ranges) -> SamplerState:
        """Return ``state`` with ``ids`` left out from here on, if they are not left out already."""
        more = (ids - state.progress.left_out).below(state.dataset.num_samples)
        if not more.pairs:
            return state
        positions = self._viewed(state, planned).positions_left(more)
        return replace(state, progress=state.progress.skip(more, positions))


def refuse_other_run(state: SamplerState, *, dataset: Any, order: Order, seed: int) -> None:
    """RecordMismatchError if ``state`` belongs to another run.

    It names the first field that differs.
    """
    if not state.dataset.begins(dataset):
        here = DatasetIdentity.of(dataset)
        # the most telling one first: another number of samples follows from other files
        names = ("fingerprint", "num_files", "num_samples")
        name = next(name for name in names if getattr(state.dataset, name) != getattr(here, name))
        raise _mismatch(
            f"dataset.{name}", getattr(state.dataset, name), getattr(here, name), advice(dataset)
        )
    if state.seed != seed:
        raise _mismatch("seed", state.seed, seed, f"pass seed={state.seed}")
    if not order.matches(state.order):
        raise _mismatch("order", dict(state.order), order.describe(), "pass the same order")


def _mismatch(field: str, recorded: Any, here: Any, advice: str) -> RecordMismatchError:
    return RecordMismatchError(
        f"the record was written with {field} {recorded!r}, this run has {here!r}; resuming would read the wrong "
        f"samples: {advice}, or start a new run",
        field=field,
    )


def _has_history(order: Order) -> bool:
    return type(order).after is not Order.after


def _changes(order: Order) -> bool:
    return type(order).go_on is not Order.go_on


def _described(order: Order) -> dict[str, Any]:
    """Return the description of an order as a record gives it back."""
    described: dict[str, Any] = strict.plain(order.describe(), "order")
    return described
