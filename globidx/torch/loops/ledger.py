"""The ledger of a sampler: which ids its loops were given, and which of them are committed.

The sampler itself is what users call. Loaders, torchdata's iterators and checkpoints call its
ledger, which ties the epoch's state (``globidx.core.progress.tracker``) to the pass that reads it
(``globidx.torch.loops.passes``). What it answers is in ``globidx.torch.loops.account``.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, starmap
from typing import Any

from globidx.core.progress.gaps import Gaps
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.tracker import Tracker
from globidx.torch.loops import callers, reports
from globidx.torch.loops.account import Account, with_batch
from globidx.torch.loops.copies import Original
from globidx.torch.loops.iterator import Cursor, Resumable, SampleIterator
from globidx.torch.loops.passes import HeldBatch, Loop
from globidx.torch.loops.reports import Reminders

_log = logging.getLogger("globidx")


class Ledger(Account):
    """All that changes how far a sampler is.

    That is what users call, what loops report, and what saves ask for.
    """

    def __init__(self, tracker: Tracker, *, parent: str | None = None) -> None:
        super().__init__(tracker)
        self._original = Original(self.passes, parent)
        self._reminders = Reminders()
        # the argument of the last set_epoch
        self._chosen: int | None = None
        # the epoch that the loaded record's rank had completed to get to where it is
        self._finished: int | None = None
        # whether an iterator loaded the record: then only that iterator's pass starts in the middle
        # of the epoch
        self._restarts = False

    # -- what a record holds

    def refuse_unreported(self) -> None:
        """CommitError where ids were drawn and nobody reports deliveries."""
        reports.refuse_unreported(self.passes, self.running_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The record of this sampler; see ``ResumableDistributedSampler.state_dict``."""
        with self.lock:
            # torchdata counts what its iterators issued, so it lacks no report
            if self._asked is None and not callers.is_asked_by_torchdata():
                self._reminders.of_missing_reports(self.passes, self.running_epoch)
            state = self.including_held()
            if not state.speaks_for_all:
                self._reminders.of_single_ranks(state.world_size)
            return state.to_dict()

    # -- copies

    def for_copy(self) -> dict[str, Any]:
        """What a copy needs: no iterators, and the batch that the loop holds committed."""
        with self.lock:
            tracker = copy.copy(self.tracker)
            held = self.passes.held
            if held is not None:
                state, rank = self.at()
                tracker.state = with_batch(state, held, rank)
                if held.is_last:
                    tracker.begin(self.running_epoch + 1, ended=True)
        # a process group cannot be pickled, and a worker has none
        tracker.ranks = tracker.ranks.for_child()
        return {
            "tracker": tracker,
            "parent": self._original.name,
            "chosen": self._chosen,
            "restarts": self._restarts,
            "reminders": self._reminders,
        }

    @classmethod
    def of_copy(cls, state: Mapping[str, Any]) -> Ledger:
        """The ledger of a copy."""
        ledger = cls(state["tracker"], parent=state["parent"])
        ledger._chosen, ledger._restarts = state["chosen"], state["restarts"]
        ledger._reminders = state["reminders"]
        return ledger

    # -- changes that users ask for

    def iterate(self, sampler: Resumable) -> SampleIterator:
        """An iterator over what this rank has left to do, for ``sampler``, whose ledger this is."""
        callers.refuse_accelerate(self.tracker.ranks.resolve()[1])
        callers.refuse_ignite()
        with self.lock:
            if not self.passes.is_looped_over:
                self._end_if_over()
            self._begin_pass()
            self._reminders.of_draws(self.passes, self.running_epoch)
            cursor = Cursor(self.passes, by_loader=callers.is_read_by_loader())
            self._point(cursor)
            self.passes.read_by_loader |= cursor.by_loader
        return SampleIterator.over(self, cursor, sampler)

    def issue(self, sampler: Resumable) -> Iterator[tuple[int, int]]:
        """The ids of what this rank has left to do, each with its index in the rank's stream."""
        with self.lock:
            ids = self.iterate(sampler)
            state, rank = self.at()
            left = Ranges.of(range(state.stream_length(rank))) - state.runs
        return zip(ids, chain.from_iterable(starmap(range, left.pairs)), strict=False)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch to read; EpochError for one that the loaded record calls finished."""
        with self.lock:
            self.tracker.refuse_finished(epoch)
            self._chosen = epoch
            self._end_if_over()
            if epoch != self.running_epoch:
                self.passes.move(f"was set to epoch {epoch}")
                self.tracker.begin(epoch)
                self._restarts = False

    def commit(self, amount: int) -> None:
        """Commit ids by hand; CommitError for more than were drawn."""
        with self.lock:
            reports.refuse_second_reporter(self.passes)
            reports.refuse_undrawn(self.passes, self.tracker.state.committed, amount)
            reports.refuse_drawn_ahead(self.passes, amount)
            # after a break it is that batch, whatever its ids were
            left = self.passes.abandoned
            self.passes.batch = None
            self._commit(amount, None if left is None else left.indices(amount))

    def finish_epoch(self) -> None:
        """Begin the next epoch, whatever is left of this one."""
        with self.lock:
            self.passes.move(f"finished epoch {self.running_epoch}")
            self.tracker.begin(self.running_epoch + 1)

    def reset(self) -> None:
        """Begin the epoch again with nothing done, and forget which epochs are finished."""
        with self.lock:
            self.passes.move("was reset")
            self.tracker.loaded_epoch = 0
            self.tracker.begin(self.running_epoch)

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a record; RecordMismatchError if it is another run's."""
        with self.lock:
            # before anything changes: a record that is refused leaves all as it was
            loaded = self.tracker.check(state)
            self.tracker.load(loaded)
            self.passes.move("was loaded with a record")
            self._finished, self._restarts = loaded.finished_epoch, False

    # -- what a loop over a loader reports

    def begin_pass(self, loop: Loop, *, workers: int, batch_size: int) -> None:
        """Let ``loop``, over a loader of so many workers, count deliveries from here on."""
        callers.refuse_ahead()
        with self.lock:
            self._end_if_over()
            self.expect(workers=workers, batch_size=batch_size)
            self._begin_pass()
            self.passes.count_by(loop)
        self._original.note_loop()

    def expect(self, *, workers: int, batch_size: int) -> None:
        """Learn how the loader of the next pass reads.

        An epoch of which nothing was drawn is planned for it.
        """
        self.tracker.loading = workers, batch_size

    def is_run_by(self, loop: Loop) -> bool:
        """Whether ``loop`` counts deliveries and is running, as far as can be seen."""
        with self.lock:
            return self.passes.counted_by(loop) and self.passes.is_looped_over

    def hand_out(self, loop: Loop, batch: HeldBatch) -> None:
        """Note that ``loop`` is given a batch, which counts when the loop comes back."""
        with self.lock:
            self.passes.hand_out(loop, batch)

    def come_back(self, loop: Loop) -> None:
        """Commit the last batch of ``loop``, which comes back for its next one."""
        with self.lock:
            if self.passes.counted_by(loop):
                self._settle(self.passes.batch)

    def end_of(self, loop: Loop) -> None:
        """End the epoch on this rank: ``loop`` has come to the end of its loader.

        The loader's own ``drop_last`` may leave ids that no pass would ever deliver.
        """
        with self.lock:
            if self.passes.counted_by(loop):
                self._end_pass()

    def read_apart(self) -> None:
        """Learn that a pass is read by a copy of the sampler, and that its ids are committed by hand."""
        with self.lock:
            if not self.passes.is_looped_over:
                self._end_if_over()
                if not self.passes.untouched:
                    self.passes.move("is read by a stream")

    def end_pass(self) -> None:
        """End the epoch on this rank, which has had all that was dealt to it."""
        with self.lock:
            self._end_pass()

    # -- what a save asks for

    def expect_all_ranks(self) -> None:
        """Learn that whoever asks for states gathers those of all ranks."""
        self._reminders.expect_all_ranks()

    def settle(self) -> None:
        """Commit the batch that the loop holds.

        ``CheckpointManager.save`` does so on all ranks at the same step.
        """
        self.expect_all_ranks()
        with self.lock:
            held = self.passes.held
            abandoned = self.passes.batch if held is None else None
            # a last batch is settled where its pass is ended, which counts what is left besides
            if held is not None and not held.is_last:
                self._settle(held)
            # a last batch that failed was abandoned, and is delivered again
            elif abandoned is None:
                self._end_if_delivered()
            if abandoned is not None:
                self.passes.give_up()
                _log.info(
                    "the last batch, of %d ids, was delivered, but its loop was left before it "
                    "came back: the batch is not in the record, and will be delivered again",
                    len(abandoned.ids),
                )

    # -- what an iterator asks for

    def load_into(self, cursor: Cursor, load: Callable[[], None]) -> None:
        """Load a record by calling ``load``, and point ``cursor`` at what it leaves to do.

        If the record finished the epoch that the sampler is set to, nothing is left, and the next
        pass is the next epoch's: a loader that loads when its loop begins must not run another
        epoch than the loop was set to.
        """
        with self.lock:
            epoch = self.running_epoch if self._chosen is None else self._chosen
            load()
            self._restarts = True
            if self.tracker.state.progress.committed or self._finished != epoch:
                # a loop that was set to an earlier one would come to this one again
                if self._chosen is not None:
                    self.tracker.refuse_finished(self._chosen)
                self._point(cursor)
            else:
                cursor.empty()

    # -- inside

    def _commit(self, amount: int, at: Ranges | None = None) -> None:
        if not amount:
            return
        if self.passes.untouched:
            self._renew()
        state, rank = self.at()
        # ids that were drawn as one rank of W are others than those of a rank of another W
        if self.passes.dealt_to not in (None, state.world_size):
            raise self.tracker.other_world(self.passes.dealt_to, state.world_size)
        self.tracker.commit(amount, rank, state.world_size, at)
        self.passes.is_reported = True
        if self.tracker.state.is_complete(rank):
            self._end_pass()

    def _settle(self, batch: HeldBatch | None) -> None:
        """Commit a batch that a loop was given."""
        if batch is not None:
            self.passes.batch = None
            if batch.replaced:
                self.tracker.quarantine(Ranges.of(batch.replaced))
            self._commit(len(batch.ids), batch.indices(len(batch.ids)))

    def _end_pass(self) -> None:
        """End the epoch on this rank.

        The state says that the epoch was finished, and not just left.
        """
        finished = self.running_epoch
        self.passes.end(f"finished epoch {finished}")
        self.tracker.begin(finished + 1, ended=True)

    def _end_if_delivered(self) -> None:
        """End the pass if all of it was delivered and the loop comes back for something else."""
        held = self.passes.held
        if held is not None and held.is_last:
            generation = self.passes.generation
            self._settle(held)
            # a loader that drops its last, smaller batch leaves some ids
            if generation == self.passes.generation:
                self._end_pass()
        elif self.is_read_through:
            self._end_pass()

    def _end_if_over(self) -> None:
        """End the pass if all of it was delivered, or committed by hand."""
        self._end_if_delivered()
        state = self.tracker.state
        if state.committed and state.committed == state.stream_length(
            self.tracker.ranks.resolve()[0]
        ):
            self._end_pass()

    def _point(self, cursor: Cursor) -> None:
        """Set ``cursor`` to what this rank has left to do."""
        state, rank = self.at()
        view = self.tracker.view()
        taken = None if state.taken is None else Gaps.of_ranges(state.taken)

        def ids(start: int, stop: int) -> list[int]:
            self.passes.drawn(cursor, state.world_size)
            block: list[int] = view.stream(
                start, stop, rank=rank, world_size=state.world_size, taken=taken
            ).tolist()
            return block

        self.passes.note_second_draw(cursor, state.committed)
        cursor.point_at(ids, state.committed, state.stream_length(rank))
        self.passes.add(cursor)

    def _begin_pass(self) -> None:
        """Begin a pass over an epoch that is not done on this rank."""
        if self._restarts and self.passes.only_drawn:
            self.passes.move(f"read epoch {self.running_epoch} to its end")
            self.tracker.start_over()
            self._restarts = False
        self._renew()

    def _renew(self) -> None:
        """Take dataset, plan and skips as they are now, if nothing of the epoch was committed."""
        # what was only drawn of the epoch does not count
        if self.tracker.renew(unread=not self.passes.read_by_loader):
            self.passes.move("began its epoch anew, with other files, ranks, workers or skips")
