"""A sampler without torch, for tests of the core: its tracker, with rank and world size as they are given."""

from __future__ import annotations

from dataclasses import dataclass

from globidx.core.orders.plain import Sequential, Shuffle
from globidx.core.progress.tracker import Tracker


@dataclass(frozen=True)
class FixedRanks:
    """One rank of a world size that never changes."""

    rank: int
    world_size: int

    def resolve(self):
        """(rank, world size)"""
        return self.rank, self.world_size


class Sampler:
    """What ``ResumableDistributedSampler`` does for a loop without loader: iterate, commit, give and load a state."""

    def __init__(self, dataset, world_size, rank, *, shuffle=True, seed=0, order=None, tail="pad"):
        order = order or (Shuffle() if shuffle else Sequential())
        self.ranks = FixedRanks(rank, world_size)
        self.tracker = Tracker(dataset, order, seed, tail, self.ranks)

    @property
    def state(self):
        """The state of the epoch, dealt to this world size."""
        return self.tracker.state.dealt_to(self.ranks.world_size)

    def __len__(self):
        return self.state.stream_length(self.ranks.rank)

    def __iter__(self):
        begin, rank, world_size = self.state.committed, self.ranks.rank, self.ranks.world_size
        yield from (
            self.tracker.view().stream(begin, len(self), rank=rank, world_size=world_size).tolist()
        )

    def commit(self, count):
        """Count so many more ids of this rank as trained on."""
        self.tracker.commit(count, *self.ranks.resolve())

    def state_dict(self):
        """How far the epoch has come, as JSON values."""
        return self.state.normal(self.ranks.rank).to_dict()

    def load_state_dict(self, state):
        """Go on from a state of any world size."""
        self.tracker.load(self.tracker.check(state))
