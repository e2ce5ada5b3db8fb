"""The account of a sampler: how far it is, from its epoch's state and the pass that reads it.

Progress bars, schedules and ``if rank == 0: torch.save(sampler.state_dict())`` ask at any moment,
on any rank. So nothing here changes the tracker or the pass, and nothing starts a collective; what
changes them is the ledger (``globidx.torch.loops.ledger``).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from globidx.core.progress import partition
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.state import SamplerState
from globidx.core.progress.tracker import Tracker
from globidx.torch.loops.iterator import Cursor
from globidx.torch.loops.passes import HeldBatch, Passes

#: Ids that are computed at a time.
_BLOCK = 1024


class Account:
    """Queries of a sampler's epoch (``tracker``) and the pass that reads it (``passes``).

    ``lock`` is held around every change; a thread that needs several answers about one moment takes
    it, too.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.passes = Passes()
        self.lock = self.passes.lock
        # the iterator whose issued ids count in place of the committed ones, while it is asked
        self._asked: Cursor | None = None

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
            # in the body of its last batch a loop still expects the epoch that it reads
            is_over = held is not None and held.is_last and not held.caller.is_in_loop()
            return self.running_epoch + is_over

    @property
    def done(self) -> int:
        """How many ids of the epoch this rank has committed, at any world size."""
        state, _ = self.at()
        return state.progress.per_rank + state.committed

    @property
    def left_to_deliver(self) -> int:
        """How many ids this rank still yields in the pass, the held batch included."""
        state, rank = self.at()
        return state.stream_length(rank) - state.committed

    def coming(self) -> Iterator[int]:
        """The ids that this rank still yields in the pass, without drawing them."""
        with self.lock:
            state, rank = self.at()
            view = self.tracker.view()
        taken = None if state.taken is None else Gaps.of_ranges(state.taken)
        stop = state.stream_length(rank)
        for start in range(state.committed, stop, _BLOCK):
            block = view.stream(
                start,
                min(start + _BLOCK, stop),
                rank=rank,
                world_size=state.world_size,
                taken=taken,
            )
            yield from block.tolist()

    @property
    def held_ids(self) -> int:
        """How many ids are in the batch that the loop holds; 0 where it holds none."""
        with self.lock:
            held = self.passes.held
        return len(held.ids) if held is not None else 0

    @property
    def holds_last(self) -> bool:
        """Whether nothing of the pass follows the batch that the loop holds."""
        with self.lock:
            held = self.passes.held
        return held is not None and held.is_last

    @property
    def held_by_rank(self) -> list[int]:
        """How many ids of the batch that each rank's loop holds are no padding, in rank order.

        The other ranks are assumed to hold as many ids as this one, and to have progressed as far.
        """
        state, _ = self.at()
        ids, world_size = self.held_ids, state.world_size
        # any batch of a regrouped pass may have the padding, which is then taken for real
        if state.taken is not None:
            return [ids] * world_size
        shares = [
            partition.share(state.progress.remaining, rank=rank, world_size=world_size)
            for rank in range(world_size)
        ]
        return [min(max(share - state.committed, 0), ids) for share in shares]

    @property
    def was_read(self) -> bool:
        """Whether ids were ever drawn or committed in this process."""
        # commits by hand count too: who takes over another sampler's run need not draw
        return self.passes.ever_read or self.tracker.state.committed > 0

    @property
    def is_read_through(self) -> bool:
        """Whether a loader has come to the end of a pass, and all of it is committed."""
        # `is_complete` does not say it: with an exact tail other ranks may have one id more, and
        # this rank may have none at all
        return self.passes.is_drained and self.left_to_deliver == 0

    def including_held(self) -> SamplerState:
        """The state as a record has it, with the batch that the loop holds."""
        with self.lock:
            state, rank = self.at()
            # what is issued counts there, and what a loop holds was issued before
            if self._asked is not None:
                return _issued(state, self._asked.issued, rank).normal(rank)
            held = self.passes.held
            is_over = self.is_read_through if held is None else held.is_last
            if held is not None:
                state = with_batch(state, held, rank)
            return state.after_epoch() if is_over else state.normal(rank)

    def without_held(self) -> SamplerState:
        """The state without the batch that the loop holds, which it has not trained on yet."""
        with self.lock:
            state, rank = self.at()
            return state.normal(rank)

    @contextmanager
    def as_issued_by(self, cursor: Cursor) -> Iterator[None]:
        """Answer as if all ids that ``cursor`` issued were committed.

        An iterator of an earlier pass does not count.
        """
        # the lock keeps other threads from being answered so
        with self.lock:
            before, self._asked = self._asked, cursor if self.passes.knows(cursor) else None
            try:
                yield
            finally:
                self._asked = before


def with_batch(state: SamplerState, batch: HeldBatch, rank: int) -> SamplerState:
    """``state`` with ``batch`` committed."""
    ids = len(batch.ids)
    return state.commit(ids, rank, batch.indices(ids)).quarantine(Ranges.of(batch.replaced))


def _issued(state: SamplerState, ids: int, rank: int) -> SamplerState:
    """``state`` with all committed that an iterator has issued."""
    if state.taken is None:
        return replace(state, committed=ids)
    return state.commit(max(0, ids - state.committed), rank)
