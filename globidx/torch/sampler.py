"""The sampler that takes ``DistributedSampler``'s place and can stop anywhere."""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from torch.utils.data.distributed import DistributedSampler

from globidx.core import validate
from globidx.core.orders.base import Order, Sequential, Shuffle
from globidx.core.progress import partition
from globidx.core.progress.partition import TAILS, Tail
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.state import SamplerState
from globidx.core.progress.tracker import Tracker
from globidx.errors import CommitError
from globidx.torch.loops import callers
from globidx.torch.loops.copies import Original
from globidx.torch.loops.iterator import Cursor, SampleIterator
from globidx.torch.loops.passes import Handed, Loop, Passes
from globidx.torch.ranks.world import World

_log = logging.getLogger("globidx")


class ResumableDistributedSampler(DistributedSampler[Any]):
    """A ``DistributedSampler`` that can stop at any step and resume on any number of ranks, each sample once an epoch.

    ``dataset`` is anything with ``len()``. ``num_replicas``, ``rank``, ``shuffle``, ``seed`` and ``drop_last`` mean
    what they mean in torch. ``group`` or ``mesh`` name the data-parallel ranks where they are not the default group;
    all of this is asked when it is first needed. ``order`` (``globidx.orders``) replaces ``Shuffle`` or ``Sequential``.
    ``tail`` says what happens when the ids do not divide by the ranks: ``"pad"`` repeats a few at the end so that all
    ranks yield equally many, ``"drop"`` leaves them out, ``"exact"`` yields each id once.

    What counts is what is *committed*: ids whose batch the training loop has had. ``globidx.DataLoader`` commits by
    itself; with another loader call ``commit(len(batch))``. Every ``iter()`` starts after the committed ids, so
    throw-away iterators cost nothing.

    >>> sampler = ResumableDistributedSampler(range(10), num_replicas=2, rank=0, shuffle=False)
    >>> list(sampler)
    [0, 2, 4, 6, 8]
    >>> sampler.commit(2)                               # both ranks have trained on two: 0, 1, 2, 3
    >>> record = sampler.state_dict()
    >>> for rank in range(3):                           # go on with three ranks
    ...     resumed = ResumableDistributedSampler(range(10), num_replicas=3, rank=rank, shuffle=False)
    ...     resumed.load_state_dict(record)
    ...     list(resumed)
    [4, 7]
    [5, 8]
    [6, 9]
    """

    def __init__(
        self,
        dataset: Any,
        num_replicas: int | None = None,
        rank: int | None = None,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
        *,
        tail: Tail | None = None,
        order: Order | None = None,
        group: Any = None,
        mesh: Any = None,
    ) -> None:
        # torch's __init__ is not called: it asks for rank and world size at once, and copies what are properties here.
        world = World(num_replicas, rank, group, mesh)
        if None not in (num_replicas, rank):
            world.resolve()
        self._tracker = Tracker(
            dataset, _order(order, shuffle), validate.integer(seed, "seed"), _tail(tail, drop_last), world
        )
        self._passes = Passes()
        self._original = Original(self._passes)
        self._chosen: int | None = None  # what set_epoch was last called with
        self._restarts = False  # an iterator loaded what was committed: it is that iterator's pass only
        self._warned: set[str] = set()

    # -- what it is

    @property
    def dataset(self) -> Any:  # type: ignore[override]
        """What it samples from: anything with ``len()``."""
        return self._tracker.dataset

    @property
    def seed(self) -> int:  # type: ignore[override]
        """The seed of the order."""
        return self._tracker.seed

    @property
    def rank(self) -> int:  # type: ignore[override]
        """This process's rank among the data-parallel ranks."""
        return self._tracker.ranks.resolve()[0]

    @property
    def num_replicas(self) -> int:  # type: ignore[override]
        """World size: how many data-parallel ranks there are."""
        return self._tracker.ranks.resolve()[1]

    @property
    def epoch(self) -> int:  # type: ignore[override]
        """The epoch that ``iter`` reads: after a pass whose every batch was handed out, the next one.

        In the body of a ``for`` over the loader it is still that of the last batch.
        """
        with self._passes.lock:
            held = self._passes.held
            is_over = held is not None and held.is_last and not held.caller.is_in_loop()
            return self._running + is_over

    @property
    def _running(self) -> int:
        """The epoch that stands in the tracker."""
        return self._tracker.state.epoch

    @property
    def shuffle(self) -> bool:  # type: ignore[override]
        """Whether the order is another than the ids' own."""
        return not isinstance(self._tracker.order, Sequential)

    @property
    def drop_last(self) -> bool:  # type: ignore[override]
        """Whether ids that do not divide by the ranks are left out."""
        return self._tracker.tail == "drop"

    @property
    def order(self) -> Order:
        """The order in use."""
        return self._tracker.order

    @property
    def tail(self) -> Tail:
        """``"pad"``, ``"drop"`` or ``"exact"``."""
        return self._tracker.tail

    def __len__(self) -> int:
        """Ids of this rank in this epoch: those already done, on whatever world size, and those still to do."""
        state, rank = self._at()
        return state.progress.per_rank + state.stream_length(rank)

    @property
    def num_samples(self) -> int:  # type: ignore[override]
        """``len()`` of this sampler, as torch names it."""
        return len(self)

    @property
    def total_size(self) -> int:  # type: ignore[override]
        """Ids of all ranks together, padding included, as torch names it."""
        if self.tail == "exact":
            progress = self._at()[0].progress
            return progress.length - progress.skipped
        return len(self) * self.num_replicas

    @property
    def num_valid(self) -> int:
        """How many of this rank's ``len()`` ids are real: the rest, at its very end, is padding."""
        state, rank = self._at()
        share = partition.share(state.progress.remaining, rank=rank, world_size=state.world_size)
        return state.progress.per_rank + min(share, state.stream_length(rank))

    @property
    def remaining(self) -> int:
        """Ids of the epoch not yet committed by all ranks together, if the others keep step with this one.

        The batch that the training loop holds counts as committed, as in ``state_dict``.
        """
        return self._including_held().closed().remaining

    @property
    def skipped(self) -> Ranges:
        """The ids that are left out, of this epoch or from the next epoch or load on."""
        return self._tracker.state.skip

    @property
    def quarantined(self) -> Ranges:
        """The ids that could not be read, in this run and those it goes on from: others stood in for them.

        They count as delivered. ``skip(sampler.quarantined)`` leaves them out from the next epoch or load on. Each
        rank knows what its own loop was given, until ``CheckpointManager.save`` tells it the others', or it loads a
        merged record.
        """
        return self._including_held().quarantined

    def __repr__(self) -> str:
        state = self._tracker.state  # as it is: nobody is asked, nothing is counted
        done, length = state.closed().committed, state.progress.length
        where = f"epoch {state.epoch}, {done} of {length} committed"
        return f"{type(self).__name__}({self.order!r}, seed={self.seed}: {where})"

    # -- reading

    def __iter__(self) -> Iterator[int]:
        """This rank's ids of the epoch not committed yet; it raises when touched after the sampler moved on."""
        with self._passes.lock:
            if not self._passes.is_looped_over:
                self._end_if_over()
            self._begin_pass()
            self._warn_of_draws()
            cursor = Cursor(self._passes, by_loader=callers.is_read_by_loader())
            self._point(cursor)
            self._passes.read_by_loader |= cursor.by_loader
        return SampleIterator.over(self, cursor)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read.

        The running epoch keeps its progress; any other starts afresh. A pass whose every batch was handed out is over.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.

        Raises
        ------
        globidx.errors.EpochError
            If the record that was loaded calls this epoch finished: its pass would be empty, and a trainer whose own
            counter restarted at 0 would never train on what is left.
        """
        chosen = validate.integer(epoch, "epoch")
        with self._passes.lock:
            self._tracker.refuse_finished(chosen)
            self._chosen = chosen
            self._end_if_over()
            if chosen != self._running:
                self._passes.move(f"was set to epoch {chosen}")
                self._tracker.begin(chosen)
                self._restarts = False

    # -- progress

    def commit(self, count: int) -> None:
        """Report that the training loop has had ``count`` more of this rank's ids.

        Parameters
        ----------
        count : int
            How many ids, padding included. Of a batch that is a dict, it is the length of one of its fields.

        Raises
        ------
        globidx.errors.CommitError
            If more are reported than were drawn, or than this rank had left in the epoch, or where a
            ``globidx.DataLoader`` commits by itself.
        """
        amount = validate.integer(count, "count")
        with self._passes.lock:
            if self._passes.is_looped_over:
                raise CommitError(
                    "commit() while a loop runs over a globidx.DataLoader, which commits by itself; leave it out"
                )
            self._refuse_undrawn(amount)
            self._refuse_drawn_ahead(amount)
            self._passes.handed = None
            self._commit(amount)

    def _refuse_undrawn(self, amount: int) -> None:
        """CommitError for more than was handed out. Of an epoch that nothing was drawn of, any count is believed: so a
        run is taken over that another sampler has begun.
        """
        left, committed = self._passes.left, self._tracker.state.committed
        if left is not None:
            drawn, since = len(left.ids), "the last batch"
        elif not self._passes.untouched:
            drawn, since = max(0, self._passes.issued - committed), "the last commit"
        else:
            return
        if amount > drawn:
            raise CommitError(
                f"commit({amount}), but only {drawn} ids were handed out since {since}; pass the number of "
                "samples in this rank's batch: of a dict of fields len(batch[field]), not len(batch), and never the "
                "batch of all ranks together"
            )

    def _refuse_drawn_ahead(self, amount: int) -> None:
        """CommitError for a loader that draws the next epoch before this one was delivered."""
        if self._passes.draws_ahead:
            raise CommitError(
                f"commit({amount}), but another iterator draws already, begun when the one before it had drawn the "
                "whole epoch and its ids were not committed: a loader that repeats itself, with workers, would train "
                "on those twice. Use globidx.DataLoader, or call sampler.set_epoch(epoch) before it draws an epoch"
            )

    def skip(self, ids: Any) -> None:
        """Leave samples out, such as bad data found during a run: from the next epoch or load on, for the rest of the
        run.

        Never of an epoch that runs: ranks that have come differently far would deal different cards. ``reset()`` after
        it starts the epoch over without them. What is left out keeps its position, so no other sample moves. Tell
        every rank, or save with ``CheckpointManager``, whose record unites the ranks' lists; ranks that begin an
        epoch with different lists are refused at the next save.

        Parameters
        ----------
        ids : int, range, or iterable
            An id, a range, or an iterable of ids, ranges and (start, stop) pairs.

        Raises
        ------
        IndexError
            If one of them is outside the dataset.
        """
        with self._passes.lock:
            self._tracker.skip(Ranges.of(ids))

    def quarantine(self, ids: Any) -> None:
        """List ids that were delivered, but as other samples in their place; ``globidx.DataLoader`` does so by itself.

        ``ids`` are given as to ``skip``. Nothing else changes; each rank tells its own, and a merge unites the lists.
        """
        with self._passes.lock:
            self._tracker.quarantine(Ranges.of(ids))

    def finish_epoch(self) -> None:
        """End the epoch here, on every rank, whatever is left of it: the next one starts, with nothing done."""
        with self._passes.lock:
            self._passes.move(f"finished epoch {self._running}")
            self._tracker.begin(self._running + 1)

    def reset(self) -> None:
        """Forget all progress: the epoch that was set starts over, and any epoch may be set."""
        with self._passes.lock:
            self._passes.move("was reset")
            self._tracker.loaded_epoch = 0
            self._tracker.begin(self._running)

    def state_dict(self) -> dict[str, Any]:
        """How far the epoch has come if all ranks keep step: fresh JSON values, the same on every rank, no collective.

        It includes the batch that the training loop holds, as if it were committed, and changes nothing. Only what
        was quarantined is this rank's own. Loads on any world size. Ranks that do not keep step need ``merge_states``
        or ``CheckpointManager``.

        Warns
        -----
        UserWarning
            Once, if ids were drawn and nobody reports deliveries: the state would give them all again.
        """
        with self._passes.lock:
            if not callers.is_asked_by_torchdata():
                self._warn_of_untold()
            return self._including_held().to_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state``, this sampler's or another's, of any world size; RecordMismatchError if it was another
        run's.
        """
        with self._passes.lock:
            loaded = self._tracker.refuse_other_run(state)
            self._passes.move("was loaded with a record")
            self._tracker.load(loaded)
            self._restarts = False

    def __getstate__(self) -> dict[str, Any]:
        """For a copy in another process.

        The same position, no iterators, and rank and world size as far as they are known. A batch that the loop holds
        counts as committed there.
        """
        with self._passes.lock:
            tracker = copy.copy(self._tracker)
            held = self._passes.held
            if held is not None:
                state, rank = self._at()
                tracker.state = state.commit(len(held.ids), rank).quarantine(Ranges.of(held.replaced))
                if held.is_last:
                    tracker.begin(self._running + 1, ended=True)
        tracker.ranks = tracker.ranks.for_child()
        return self.__dict__ | {"_tracker": tracker, "_passes": None, "_original": self._original.name}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._passes = Passes()
        self._original = Original(self._passes, parent=state["_original"])

    # -- what its iterators, loaders and checkpoints ask

    @property
    def generation(self) -> int:
        """Number of the pass; another one means that loops of before are stale."""
        return self._passes.generation

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held around every change; a thread that needs several answers of one moment takes it, too."""
        return self._passes.lock

    def begin_pass(self, loop: Loop, *, workers: int, batch_size: int) -> None:
        """Let ``loop``, over a loader that reads so, count deliveries from here on.

        An epoch of which nothing was taken is planned for that loader.
        """
        with self._passes.lock:
            self._end_if_over()
            self.expect(workers=workers, batch_size=batch_size)
            self._begin_pass()
            self._passes.count_by(loop)
        self._original.leave_word()

    def expect(self, *, workers: int, batch_size: int) -> None:
        """Learn how the loader reads that begins a pass: an epoch of which nothing was taken is planned for it."""
        self._tracker.loading = workers, batch_size

    @property
    def left_to_deliver(self) -> int:
        """How many ids this rank still yields in the pass, the batch that its loop holds among them."""
        state, rank = self._at()
        return state.stream_length(rank) - state.committed

    @property
    def held(self) -> int:
        """How many ids the batch has that the loop holds; 0 where it holds none."""
        with self._passes.lock:
            held = self._passes.held
        return len(held.ids) if held is not None else 0

    def whole_epoch(self, epoch: int) -> int:
        """How many ids this rank would yield of ``epoch``, from its first to its last, on the world size of now."""
        return self._tracker.whole_epoch(epoch)

    def is_counted_by(self, loop: Loop) -> bool:
        """Whether ``loop`` is the one that counts deliveries."""
        return self._passes.counted_by(loop)

    def is_run_by(self, loop: Loop) -> bool:
        """Whether ``loop`` counts deliveries and is under way, as far as can be seen."""
        with self._passes.lock:
            return self._passes.counted_by(loop) and self._passes.is_looped_over

    def hand_out(self, loop: Loop, handed: Handed) -> None:
        """``loop`` is given a batch, which counts when the loop comes back."""
        with self._passes.lock:
            self._passes.hand_out(loop, handed)

    def come_back(self, loop: Loop) -> None:
        """``loop`` comes back for its next batch: the one that it was handed before is committed."""
        with self._passes.lock:
            if self._passes.counted_by(loop):
                self._settle(self._passes.handed)

    def end_of(self, loop: Loop) -> None:
        """``loop`` has come to the end of its loader: the epoch is done on this rank.

        The loader's own ``drop_last`` may leave ids that no pass would ever deliver.
        """
        with self._passes.lock:
            if self._passes.counted_by(loop):
                self.end_pass()

    def settle(self) -> None:
        """Commit what the loop holds, as ``CheckpointManager.save`` does on all ranks at the same step."""
        with self._passes.lock:
            held = self._passes.held
            left = self._passes.handed if held is None else None
            if held is not None and not held.is_last:
                self._settle(held)
            elif left is None:  # a last batch that failed is left, and given again
                self._end_if_delivered()
            if left is not None:
                self._passes.give_up()
                _log.info(
                    "the last batch, of %d ids, was handed out, but its loop was left before it came back: it is not "
                    "in the record, and will be given again",
                    len(left.ids),
                )

    def end_pass(self) -> None:
        """The epoch is done on this rank: a merge with ranks still in it will know that it was not just left."""
        finished = self._running
        self._passes.end(f"finished epoch {finished}")
        self._tracker.begin(finished + 1, ended=True)

    @property
    def was_read(self) -> bool:
        """Whether ids were ever drawn or committed in this process."""
        return self._passes.ever_read or self._tracker.state.committed > 0

    def refuse_other_run(self, state: Mapping[str, Any]) -> SamplerState:
        """``state``, parsed; RecordMismatchError where it is another run's. Changes nothing."""
        return self._tracker.refuse_other_run(state)

    def refuse_untold(self) -> None:
        """CommitError where ids were handed out and nobody reports whether they were delivered."""
        if self._passes.untold:
            raise CommitError(self._untold())

    def state_of(self, cursor: Cursor) -> dict[str, Any]:
        """The record as if all ids that ``cursor`` issued were committed; of an earlier pass it has none to tell of."""
        callers.refuse_sparse_snapshots()
        with self._passes.lock:
            if not self._passes.knows(cursor):
                return self._including_held().to_dict()
            state, rank = self._at()
            return replace(state, committed=cursor.issued).normal(rank).to_dict()

    def load_into(self, cursor: Cursor, state: Mapping[str, Any]) -> None:
        """Load ``state``, and point ``cursor`` at what it leaves to do.

        Where that was the last of the epoch that the sampler is set to, it is nothing, and the next pass is the next
        epoch's: a loader that loads only when its loop begins must not run another epoch than its loop was told.
        """
        with self._passes.lock:
            epoch = self._running if self._chosen is None else self._chosen
            self.load_state_dict(state)
            self._restarts = True
            if self._tracker.state.progress.committed or state["finished_epoch"] != epoch:
                self._point(cursor)
            else:
                cursor.empty()

    # -- inside

    def _at(self) -> tuple[SamplerState, int]:
        """The state at the world size of now, and this rank."""
        return self._tracker.at(untouched=self._passes.untouched, unread=not self._passes.read_by_loader)

    def _including_held(self) -> SamplerState:
        """The state as it is written, with the batch that the loop holds."""
        with self._passes.lock:
            (state, rank), held = self._at(), self._passes.held
            if held is None:
                return state.after_epoch() if self._is_read_through(state, rank) else state.normal(rank)
            state = state.commit(len(held.ids), rank).quarantine(Ranges.of(held.replaced))
            return state.after_epoch() if held.is_last else state.normal(rank)

    def _commit(self, amount: int) -> None:
        if not amount:
            return
        if self._passes.untouched:
            self._renew()
        state, rank = self._at()
        if self._passes.dealt_to not in (None, state.world_size):
            raise self._tracker.other_world(self._passes.dealt_to, state.world_size)
        self._tracker.commit(amount, rank, state.world_size)
        self._passes.told = True
        if self._tracker.state.is_complete(rank):
            self.end_pass()

    def _settle(self, handed: Handed | None) -> None:
        """Commit a batch that was handed out."""
        if handed is not None:
            self._passes.handed = None
            if handed.replaced:
                self._tracker.quarantine(Ranges.of(handed.replaced))
            self._commit(len(handed.ids))

    def _end_if_delivered(self) -> None:
        """The loop has come back in another way than for its next batch: if it had all of the pass, that is over."""
        held = self._passes.held
        if held is not None and held.is_last:
            generation = self.generation
            self._settle(held)
            if generation == self.generation:  # a loader that drops its last, smaller batch leaves some
                self.end_pass()
        elif self._passes.is_drained and self._is_read_through(*self._at()):
            self.end_pass()

    def _is_read_through(self, state: SamplerState, rank: int) -> bool:
        """Whether a loader has come to the end of a pass, and all of it is committed: with an exact tail others may
        have one id more, and this rank may have been dealt nothing at all.
        """
        return self._passes.is_drained and state.committed == state.stream_length(rank)

    def _end_if_over(self) -> None:
        """The same, and where all of it was committed by hand."""
        self._end_if_delivered()
        state = self._tracker.state
        if state.committed and state.committed == state.stream_length(self.rank):
            self.end_pass()

    def _point(self, cursor: Cursor) -> None:
        """Set ``cursor`` to what this rank has left to do."""
        state, rank = self._at()
        view = self._tracker.view()

        def ids(start: int, stop: int) -> list[int]:
            self._passes.drawn(cursor, state.world_size)
            block: list[int] = view.stream(start, stop, rank=rank, world_size=state.world_size).tolist()
            return block

        self._passes.note_second_draw(cursor, state.committed)
        cursor.point_at(ids, state.committed, state.stream_length(rank))
        self._passes.add(cursor)

    def _begin_pass(self) -> None:
        """A pass begins, of an epoch that is not done on this rank."""
        if self._restarts and self._passes.only_drawn:
            self._passes.move(f"read epoch {self._running} to its end")
            self._tracker.start_over()
            self._restarts = False
        self._renew()

    def _renew(self) -> None:
        """Take dataset, plan and skips as they are, if nothing of the epoch was committed."""
        if self._tracker.renew(unread=not self._passes.read_by_loader):  # what was only drawn of it does not count
            self._passes.move("began its epoch anew, with other files, ranks, workers or skips")

    def _warn_of_draws(self) -> None:
        if self._passes.only_drawn:
            self._warn(
                "only drawn",
                f"epoch {self._running} was read to its end and nothing of it committed, so it is read again in the "
                "same order; use globidx.DataLoader, or call sampler.commit(len(batch)) after every batch, or "
                "sampler.set_epoch(epoch)",
            )

    def _warn_of_untold(self) -> None:
        if self._passes.untold and (self._passes.read_by_loader or self._passes.copy_is_read):
            self._warn("untold", self._untold())

    def _untold(self) -> str:
        if self._passes.copy_is_read:
            return (
                "a copy of this sampler is being read (of its loader, say), and nothing is reported to this one, so a "
                "record of it would repeat everything; read and save the same sampler: loader.sampler"
            )
        return (
            f"ids of epoch {self._running} were drawn, but no delivery was reported, so a record of it would repeat "
            "them all; use globidx.DataLoader, or call sampler.commit(len(batch)) after every batch"
        )

    def _warn(self, kind: str, message: str) -> None:
        """Warn once of each kind."""
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(message, stacklevel=4)


def _tail(tail: Tail | None, drop_last: bool) -> Tail:
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False, got {drop_last!r}")
    if tail is None:
        return "drop" if drop_last else "pad"
    if tail not in TAILS:
        raise ValueError(f"tail must be one of {', '.join(TAILS)}, got {tail!r}")
    if drop_last and tail != "drop":
        raise ValueError(f"drop_last=True and tail={tail!r} contradict each other; pass one of them")
    return tail


def _order(order: Order | None, shuffle: bool) -> Order:
    if not isinstance(shuffle, bool):
        raise TypeError(f"shuffle must be True or False, got {shuffle!r}; other orders go into order=")
    if order is None:
        return Shuffle() if shuffle else Sequential()
    if not isinstance(order, Order):
        raise TypeError(f"order must be one of globidx.orders, such as Shuffle(), got {order!r}")
    if not shuffle and not isinstance(order, Sequential):
        raise ValueError(f"shuffle=False and order={order!r} contradict each other; pass one of them")
    return order
