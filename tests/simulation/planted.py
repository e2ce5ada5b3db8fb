"""Planted bugs: what peers got wrong, put into production code one at a time. The simulation must find each of them."""

from __future__ import annotations

from dataclasses import replace

from cluster import Production

from globidx import ResumableDistributedSampler, merge_states
from globidx.core.progress import Progress
from globidx.core.ranges import Ranges
from globidx.core.tracker import Standing
from globidx.core.state import SamplerState
from globidx.core.view import EpochView
from globidx.torch.loader import Deliveries
from globidx.torch.passes import Readers


class CountsDraws(ResumableDistributedSampler):
    """Progress is what was drawn, prefetched batches included."""

    def state_dict(self):
        cursor = self._readers._last
        return super().state_dict() if cursor is None else self.state_of(cursor)


class _Reshuffled(Standing):
    def view(self):
        state, seed = self.state, self.seed + self.state.progress.committed
        return EpochView(self.order.bind(state.dataset.num_samples, seed=seed, epoch=state.epoch), state.progress)


class ReshufflesTheTail(ResumableDistributedSampler):
    """After a resume the rest is put in a new order."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._standing.__class__ = _Reshuffled


def rank_0_only(states):
    """The others are taken to have come as far as rank 0."""
    return states[0]


class ForgetsEarlierSegments(ResumableDistributedSampler):
    """The record holds this job's progress only."""

    def state_dict(self):
        self._readers.settle()
        state, rank = self._at()
        return replace(state, progress=Progress(state.progress.length)).normal(rank).to_dict()


class _Lax(Readers):
    def move(self, why):
        """Nobody is told."""


class IteratorsSurviveAReload(ResumableDistributedSampler):
    """Iterators of before go on under a sampler that moved."""

    def __init__(self, *arguments, **named):
        super().__init__(*arguments, **named)
        self._readers = _Lax()


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
    ranks = [SamplerState.from_dict(state) for state in states]
    if len({(rank.epoch, rank.progress) for rank in ranks}) > 1 or len({rank.committed for rank in ranks}) == 1:
        return merge_states(states)
    done = min(sum(rank.committed for rank in ranks), ranks[0].progress.remaining)
    return replace(ranks[0], progress=ranks[0].progress.extend((done,)), committed=0).to_dict()


class CommitsOnDelivery(Deliveries):
    """A batch counts as soon as it is handed over, also where the loop then breaks."""

    def __next__(self):
        batch = super().__next__()
        self.settle()
        return batch


class QuarantinesOnDelivery(Deliveries):
    """What stands for another is listed as soon as it is handed over, also where the batch then never counts."""

    def __next__(self):
        batch = super().__next__()
        self._sampler.quarantine(self._replaced)
        return batch


def quarantine_of_rank_0(states):
    """What the other ranks found is not in the record."""
    rest = [replace(SamplerState.from_dict(state), quarantined=Ranges()).to_dict() for state in states[1:]]
    return merge_states([states[0], *rest])


PLANTED = {
    "counts draws": Production(sampler=CountsDraws),
    "reshuffles the tail": Production(sampler=ReshufflesTheTail),
    "rank 0 only": Production(merge=rank_0_only),
    "forgets earlier segments": Production(sampler=ForgetsEarlierSegments),
    "iterators survive a reload": Production(sampler=IteratorsSurviveAReload),
    "loops survive a reload": Production(deliveries=LoopsSurviveAReload),
    "resets under a live loader": Production(sampler=IteratorsSurviveAReload, deliveries=LoopsSurviveAReload),
    "counter times world size": Production(sampler=CounterTimesWorldSize),
    "padding counted as progress": Production(merge=padding_counted),
    "commits on delivery": Production(deliveries=CommitsOnDelivery),
    "quarantines on delivery": Production(deliveries=QuarantinesOnDelivery),
    "quarantine of rank 0": Production(merge=quarantine_of_rank_0),
}
