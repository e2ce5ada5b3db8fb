"""Planted bugs: what peers, and earlier versions of this library, got wrong, put into production code one at a time.

The simulation must find each of them.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from unittest.mock import patch

from cluster import Production

from globidx import ResumableDistributedSampler, merge_states
from globidx.core.progress import merge
from globidx.core.progress.ranges import Ranges
from globidx.core.progress.segments import Progress
from globidx.core.progress.state import SamplerState
from globidx.core.progress.tracker import Tracker
from globidx.core.progress.view import EpochView
from globidx.errors import CommitError, EpochError
from globidx.torch.loops import reports
from globidx.torch.loops.handover import Deliveries
from globidx.torch.loops.ledger import Ledger
from globidx.torch.loops.passes import Passes


class Planted(ResumableDistributedSampler):
    """A sampler whose ledger or tracker is replaced by a wrong one."""

    ledger, tracker = Ledger, Tracker

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._ledger.__class__, self._ledger.tracker.__class__ = self.ledger, self.tracker


class CountsDraws(ResumableDistributedSampler):
    """Progress is what was drawn, prefetched batches included."""

    def state_dict(self):
        cursor = self._ledger.passes._last
        if cursor is None:
            return super().state_dict()
        with self._ledger.as_issued_by(cursor):
            return super().state_dict()


class _Reshuffled(Tracker):
    def view(self):
        state, seed = self.state, self.seed + self.state.progress.committed
        return EpochView(
            self.order.bind(state.dataset.num_samples, seed=seed, epoch=state.epoch), state.progress
        )


class ReshufflesTheTail(Planted):
    """After a resume the rest is put in a new order."""

    tracker = _Reshuffled


def rank_0_only(states):
    """The others are taken to have come as far as rank 0."""
    return states[0]


class ForgetsEarlierSegments(ResumableDistributedSampler):
    """The record holds this job's progress only."""

    def state_dict(self):
        state = SamplerState.from_dict(super().state_dict())
        return replace(state, progress=Progress(state.progress.length)).to_dict()


class _Lax(Passes):
    def move(self, why):
        """Nobody is told."""
        self.batch = None


class IteratorsSurviveAReload(ResumableDistributedSampler):
    """Iterators of before go on under a sampler that moved."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._ledger.passes.__class__ = _Lax


class LoopsSurviveAReload(Deliveries):
    """So do loops, with what their workers had fetched."""

    def _refuse_if_stale(self):
        pass


class CounterTimesWorldSize(ResumableDistributedSampler):
    """Progress is this rank's count times the world size of now."""

    def load_state_dict(self, state):
        loaded = SamplerState.from_dict(state)
        done = loaded.closed().per_rank * self.num_replicas
        wrong = Progress(loaded.progress.length).extend((min(done, loaded.progress.length),))
        super().load_state_dict(replace(loaded, progress=wrong, committed=0).to_dict())


def padding_counted(states):
    """Repeats at the end of padded streams are taken for samples."""
    ranks = [SamplerState.from_dict(states[rank]) for rank in range(len(states))]
    if (
        len({(rank.epoch, rank.progress) for rank in ranks}) > 1
        or len({rank.committed for rank in ranks}) == 1
    ):
        return merge_states(states)
    done = min(sum(rank.committed for rank in ranks), ranks[0].progress.remaining)
    listed = SamplerState.from_dict(merge_states(states)).quarantined
    padded = replace(
        ranks[0], progress=ranks[0].progress.extend((done,)), committed=0, quarantined=listed
    )
    return padded.to_dict()


class CommitsOnDelivery(Deliveries):
    """A batch counts as soon as it is handed over, also where the loop then breaks."""

    def __next__(self):
        batch = super().__next__()
        self._ledger.come_back(self)
        return batch


class QuarantinesOnDelivery(Deliveries):
    """What stands for another is listed as soon as it is handed over, also where the batch then never counts."""

    def __next__(self):
        batch = super().__next__()
        self._ledger.tracker.quarantine(Ranges.of(self._ledger.passes.batch.replaced))
        return batch


def quarantine_of_rank_0(states):
    """What the other ranks found is not in the record."""
    alone = {
        rank: replace(SamplerState.from_dict(states[rank]), quarantined=Ranges()).to_dict()
        for rank in range(1, len(states))
    }
    return merge_states({0: states[0], **alone})


class LastBatchesWait(Deliveries):
    """A loop that takes exactly as many batches as there are leaves its last one uncommitted."""

    def _hand_out(self, replaced):
        self._smallest = -1
        super()._hand_out(replaced)


class QueriesSettle(ResumableDistributedSampler):
    """Asking one rank for its state commits the batch that its loop holds."""

    def state_dict(self):
        self._ledger.settle()
        return super().state_dict()


class SizesSettle(ResumableDistributedSampler):
    """So does asking what remains."""

    @property
    def remaining(self):
        self._ledger.settle()
        return super().remaining


class CopiesMove(ResumableDistributedSampler):
    """Pickling begins the pass anew."""

    def __getstate__(self):
        self._ledger.passes.move("was copied")
        return super().__getstate__()


class _SkipsAtOnce(Tracker):
    def _renewed(self, *, untouched, unread):
        state = self.state
        if (
            untouched
            and not state.committed
            and not state.progress.committed
            and self.state.skip.pairs
        ):
            fresh, planned = self._fresh(state.epoch, state.skip)
            kept = {
                name: getattr(state, name) for name in ("trail", "finished_epoch", "quarantined")
            }
            fresh = replace(fresh, **kept)
            begun = self._leaving_out(fresh, planned, state.skip)
            return (begun, planned) if begun.progress != state.progress else None
        return super()._renewed(untouched=untouched, unread=unread)


class SkipsAtOnce(Planted):
    """A rank that has committed nothing yet leaves out at once what it is told to skip."""

    tracker = _SkipsAtOnce


class _NeverDrained(Ledger):
    def _end_if_delivered(self):
        self.passes.is_exhausted = False
        super()._end_if_delivered()


class IdleRanksStay(Planted):
    """With a plain loader, a rank that was dealt nothing never leaves its epoch."""

    ledger = _NeverDrained


class FinishedEpochsAreEmpty(ResumableDistributedSampler):
    """An epoch that the record calls finished may be set: the run then trains on nothing."""

    def set_epoch(self, epoch):
        try:
            super().set_epoch(epoch)
        except EpochError:
            self._ledger.tracker.begin(epoch)


class OvercommitsAreTaken(ResumableDistributedSampler):
    """More may be committed than was drawn."""

    def commit(self, count):
        if count > self._ledger.left_to_deliver:
            raise CommitError("at the epoch's end it is noticed")
        with patched(reports, refuse_undrawn=lambda passes, committed, amount: None):
            super().commit(count)


class _Counting(Tracker):
    def commit(self, amount, rank, world_size, at=None):
        super().commit(amount, rank, world_size)


class CountsRegroupedIds(Planted):
    """As many ids are committed as a batch had, and not those."""

    tracker = _Counting


class StopsEndPasses(Deliveries):
    """A StopIteration out of a dataset ends the pass, and with it the epoch."""

    def _refuse_early(self, stop):
        pass


class SkippedRestIsNotDone(ResumableDistributedSampler):
    """An epoch whose whole rest is skipped when it is loaded stays the running one in records."""

    def state_dict(self):
        with patched(
            SamplerState,
            is_complete=lambda state, rank: bool(state.committed) and _is_complete(state, rank),
        ):
            return super().state_dict()


_is_complete = SamplerState.is_complete


@contextmanager
def patched(owner, **attributes):
    """Attributes of a class or module, replaced for a while."""
    with patch.multiple(owner, **attributes):
        yield


def idle_finishers_forgotten(states):
    """A rank that finished the epoch, and is dealt nothing of the next, is taken for one that did nothing."""
    finished = merge._has_finished

    def forgetful(rank, epoch):
        return finished(rank, epoch) and bool(rank.progress.remaining) and not rank.progress.skipped

    with patched(merge, _has_finished=forgetful):
        return merge_states(states)


def in_given_order(states):
    """States given as {rank: state} are taken in the sequence in which they were inserted, the last one first."""
    return merge_states(list(reversed(states.values())) if isinstance(states, dict) else states)


def ids_ahead_forgotten(states):
    """What a rank has had beyond its first hole is not recorded."""
    with patched(merge, beyond=lambda runs, counts: Ranges()):
        return merge_states(states)


PLANTED = {
    "counts draws": Production(sampler=CountsDraws),
    "reshuffles the tail": Production(sampler=ReshufflesTheTail),
    "rank 0 only": Production(merge=rank_0_only),
    "forgets earlier segments": Production(sampler=ForgetsEarlierSegments),
    "iterators survive a reload": Production(sampler=IteratorsSurviveAReload),
    "loops survive a reload": Production(deliveries=LoopsSurviveAReload),
    "resets under a live loader": Production(
        sampler=IteratorsSurviveAReload, deliveries=LoopsSurviveAReload
    ),
    "counter times world size": Production(sampler=CounterTimesWorldSize),
    "padding counted as progress": Production(merge=padding_counted),
    "commits on delivery": Production(deliveries=CommitsOnDelivery),
    "quarantines on delivery": Production(deliveries=QuarantinesOnDelivery),
    "quarantine of rank 0": Production(merge=quarantine_of_rank_0),
    "last batches wait": Production(deliveries=LastBatchesWait),
    "state_dict settles": Production(sampler=QueriesSettle),
    "remaining settles": Production(sampler=SizesSettle),
    "copies move": Production(sampler=CopiesMove),
    "skips at once": Production(sampler=SkipsAtOnce),
    "idle ranks stay": Production(sampler=IdleRanksStay),
    "finished epochs are empty": Production(sampler=FinishedEpochsAreEmpty),
    "overcommits are taken": Production(sampler=OvercommitsAreTaken),
    "a dataset's StopIteration ends the pass": Production(deliveries=StopsEndPasses),
    "regrouped ids are counted only": Production(sampler=CountsRegroupedIds),
    "ids ahead are forgotten": Production(merge=ids_ahead_forgotten),
    "a skipped rest is not done": Production(sampler=SkippedRestIsNotDone),
    "idle finishers are forgotten": Production(merge=idle_finishers_forgotten),
    "states in any sequence": Production(merge=in_given_order),
}
