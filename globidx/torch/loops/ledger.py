"""The ledger of a sampler: which ids its loops were given, and which of them are committed.

The sampler itself is what users call. Loaders, torchdata's iterators and checkpoints call its
ledger, which ties the epoch's state (``globidx.core.progress.tracker``) to the pass that reads it
(``globidx.torch.loops.passes``).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from globidx.core.progress.ranges import Ranges
from globidx.core.progress.state import SamplerState
from globidx.core.progress.tracker import Tracker
from globidx.torch.loops import callers, reports
from globidx.torch.loops.copies import Original
from globidx.torch.loops.iterator import Cursor, SampleIterator
from globidx.torch.loops.passes import HeldBatch, Loop, Passes
from globidx.torch.loops.reports import Reminders

_log = logging.getLogger("globidx")


class Ledger:
    """Ties the state of a sampler's epoch (``tracker``) to the pass that reads it (``passes``).

    ``lock`` is held around every change; a thread that needs several answers about one moment takes
    it, too.
    """

    def __init__(self, tracker: Tracker, *, parent: str | None = None) -> None:
        self.tracker = tracker
        self.passes = Passes()
        self.lock = self.passes.lock
        self._original = Original(self.passes, parent)
        self._reminders = Reminders()
        # the argument of the last set_epoch
        self._chosen: int | None = None
        # whether an iterator loaded the record: then only that iterator's pass starts in the middle
        # of the epoch
        self._restarts = False

    # -- queries, which change nothing

    def at(self) -> tuple[SamplerState, int]:
        """The state at the current world size, and this rank."""
        passes = self.passes
        return self.tracker.at(untouched=passes.untouched, unread=not passes.read_by_loader)

    @property
    def running_epoch(self) -> int:
        """The epoch of the tracker."""
        return self.tracker.state.epoch

    @property
    def epoch(self) -> int:
        """The epoch that the next pass reads."""
        with self.lock:
            held = self.passes.held
            is_over = held is not None and held.is_last and not held.caller.is_in_loop()
            return self.running_epoch + is_over

    @property
    def done(self) -> int:
        """How many ids of the epoch this rank has committed, at any world size."""
        state, _ = self.at()
        return state.progress.per_rank + state.committed

    @property
    def left_to_deliver(self) -> int:
        """How many ids this rank still yields in the pass, those of the batch that its loop holds included."""
        state, rank = self.at()
        return state.stream_length(rank) - state.committed

    @property
    def held_ids(self) -> int:
        """How many ids are in the batch that the loop holds; 0 where it holds none."""
        with self.lock:
            held = self.passes.held
        return len(held.ids) if held is not None else 0

    @property
    def was_read(self) -> bool:
        """Whether ids were ever drawn or committed in this process."""
        return self.passes.ever_read or self.tracker.state.committed > 0

    def including_held(self) -> SamplerState:
        """The state as a record has it, with the batch that the loop holds."""
        with self.lock:
            state, rank = self.at()
            held = self.passes.held
            is_over = self._is_read_through() if held is None else held.is_last
            if held is not None:
                state = _with(state, held, rank)
            return state.after_epoch() if is_over else state.normal(rank)

    def refuse_unreported(self) -> None:
        """CommitError where ids were drawn and nobody reports deliveries."""
        reports.refuse_unreported(self.passes, self.running_epoch)

    def state_dict(self) -> dict[str, Any]:
        """The record of this sampler; see ``ResumableDistributedSampler.state_dict``."""
        with self.lock:
            if not callers.is_asked_by_torchdata():
                self._reminders.of_missing_reports(self.passes, self.running_epoch)
            return self.including_held().to_dict()

    # -- copies

    def for_copy(self) -> dict[str, Any]:
        """What a copy needs: no iterators, and the batch that the loop holds committed."""
        with self.lock:
            tracker = copy.copy(self.tracker)
            held = self.passes.held
            if held is not None:
                state, rank = self.at()
                tracker.state = _with(state, held, rank)
                if held.is_last:
                    tracker.begin(self.running_epoch + 1, ended=True)
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

    def iterate(self) -> SampleIterator:
        """An iterator over what this rank has left to do."""
        with self.lock:
            if not self.passes.is_looped_over:
                self._end_if_over()
            self._begin_pass()
            self._reminders.of_draws(self.passes, self.running_epoch)
            cursor = Cursor(self.passes, by_loader=callers.is_read_by_loader())
            self._point(cursor)
            self.passes.read_by_loader |= cursor.by_loader
        return SampleIterator.over(self, cursor)

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
            self.passes.batch = None
            self._commit(amount)

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
            loaded = self.tracker.check(state)
            self.passes.move("was loaded with a record")
            self.tracker.load(loaded)
            self._restarts = False

    # -- what a loop over a loader reports

    def begin_pass(self, loop: Loop, *, workers: int, batch_size: int) -> None:
        """Let ``loop``, over a loader of so many workers, count deliveries from here on."""
        with self.lock:
            self._end_if_over()
            self.expect(workers=workers, batch_size=batch_size)
            self._begin_pass()
            self.passes.count_by(loop)
        self._original.note_loop()

    def expect(self, *, workers: int, batch_size: int) -> None:
        """Learn how the loader of the next pass reads; an epoch of which nothing was drawn is planned for it."""
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

    # -- what a save asks for

    def settle(self) -> None:
        """Commit the batch that the loop holds, as ``CheckpointManager.save`` does on all ranks at the same step."""
        with self.lock:
            held = self.passes.held
            abandoned = self.passes.batch if held is None else None
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

    def state_of(self, cursor: Cursor) -> dict[str, Any]:
        """The record as if all ids that ``cursor`` issued were committed.

        For an iterator of an earlier pass it is the sampler's own record.
        """
        callers.refuse_sparse_snapshots()
        with self.lock:
            if not self.passes.knows(cursor):
                return self.including_held().to_dict()
            state, rank = self.at()
            return replace(state, committed=cursor.issued).normal(rank).to_dict()

    def load_into(self, cursor: Cursor, state: Mapping[str, Any]) -> None:
        """Load ``state``, and point ``cursor`` at what it leaves to do.

        If the record finished the epoch that the sampler is set to, nothing is left, and the next
        pass is the next epoch's: a loader that loads when its loop begins must not run another
        epoch than the loop was set to.
        """
        with self.lock:
            epoch = self.running_epoch if self._chosen is None else self._chosen
            self.load(state)
            self._restarts = True
            if self.tracker.state.progress.committed or state["finished_epoch"] != epoch:
                self._point(cursor)
            else:
                cursor.empty()

    # -- inside

    def _commit(self, amount: int) -> None:
        if not amount:
            return
        if self.passes.untouched:
            self._renew()
        state, rank = self.at()
        if self.passes.dealt_to not in (None, state.world_size):
            raise self.tracker.other_world(self.passes.dealt_to, state.world_size)
        self.tracker.commit(amount, rank, state.world_size)
        self.passes.is_reported = True
        if self.tracker.state.is_complete(rank):
            self._end_pass()

    def _settle(self, batch: HeldBatch | None) -> None:
        """Commit a batch that a loop was given."""
        if batch is not None:
            self.passes.batch = None
            if batch.replaced:
                self.tracker.quarantine(Ranges.of(batch.replaced))
            self._commit(len(batch.ids))

    def _end_pass(self) -> None:
        """End the epoch on this rank; the state says that the epoch was finished, and not just left."""
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
        elif self._is_read_through():
            self._end_pass()

    def _is_read_through(self) -> bool:
        """Whether a loader has come to the end of a pass, and all of it is committed.

        With an exact tail other ranks may have one id more, and this rank may have none at all.
        """
        return self.passes.is_drained and self.left_to_deliver == 0

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

        def ids(start: int, stop: int) -> list[int]:
            self.passes.drawn(cursor, state.world_size)
            block: list[int] = view.stream(
                start, stop, rank=rank, world_size=state.world_size
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


def _with(state: SamplerState, batch: HeldBatch, rank: int) -> SamplerState:
    """``state`` with ``batch`` committed."""
    return state.commit(len(batch.ids), rank).quarantine(Ranges.of(batch.replaced))
