"""What a rank has left to read, epoch by epoch, for whoever reads it apart from its sampler."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

from globidx.core.generator import Moment
from globidx.core.progress.gaps import Gaps
from globidx.core.progress.state import SamplerState
from globidx.core.progress.view import EpochView
from globidx.torch.loops.ledger import Ledger
from globidx.torch.sampler import ResumableDistributedSampler


@dataclass(frozen=True)
class Leg:
    """What one rank has left of one epoch, when its pass begins."""

    view: EpochView
    state: SamplerState
    rank: int

    @property
    def length(self) -> int:
        """How many ids it yields."""
        return self.state.stream_length(self.rank) - self.state.committed

    @property
    def moment(self) -> Moment:
        """The seed and epoch that its samples are drawn for."""
        return Moment(self.state.seed, self.state.epoch)

    def ids(self, start: int, stop: int) -> list[int]:
        """The ids ``[start, stop)`` of those."""
        done, state = self.state.committed, self.state
        taken = None if state.taken is None else Gaps.of_ranges(state.taken)
        ids: list[int] = self.view.stream(
            done + start, done + stop, rank=self.rank, world_size=state.world_size, taken=taken
        ).tolist()
        return ids


class Legs:
    """The legs of a pass that begins now, and of those after it if it is ``endless``.

    They are computed from a copy of the sampler, in any process, and end epochs as the sampler
    does when all of it is committed.
    """

    def __init__(self, sampler: ResumableDistributedSampler, *, endless: bool) -> None:
        self._ledger: Ledger = copy.copy(sampler)._ledger
        self._endless = endless
        # before anything is delivered: the sampler's own position changes from then on
        self.first = self._begin()

    def __iter__(self) -> Iterator[Leg]:
        leg = self.first
        yield leg
        while self._endless:
            next_epoch(self._ledger)
            leg = self._begin()
            yield leg

    def _begin(self) -> Leg:
        tracker = self._ledger.tracker
        if tracker.state.committed and not self._ledger.left_to_deliver:
            self._ledger.end_pass()
        # as the sampler does at the first commit of a pass
        tracker.renew(unread=True)
        state, rank = self._ledger.at()
        return Leg(tracker.view(), state, rank)


def next_epoch(ledger: Ledger) -> None:
    """Go on to the next epoch; ValueError if it deals this rank nothing, as would all others."""
    if not ledger.left_to_deliver and not ledger.tracker.whole_epoch(ledger.running_epoch + 1):
        rank, world_size = ledger.tracker.ranks.resolve()
        raise ValueError(
            f"the epochs of this dataset deal nothing to rank {rank} of {world_size}, so an infinite "
            "stream would never yield a sample; use fewer ranks, or tail='pad'"
        )
    ledger.end_pass()
