"""An order of one's own: samples from last to first, resumable on any number of ranks like every order.

python examples/reversed_order.py
"""

from globidx import ResumableDistributedSampler
from globidx.orders import Arrangement, Order


class Backwards(Arrangement):
    """One epoch: the sample id at each position, and the position of each sample id, as int64 arrays."""

    def forward(self, positions):
        """Sample ids at positions."""
        return self.num_samples - 1 - positions

    def inverse(self, sample_ids):
        """Positions of sample ids."""
        return self.num_samples - 1 - sample_ids


class Reversed(Order):
    """Samples from last to first, in every epoch."""

    algorithm = "example-reversed"

    def bind(self, num_samples, *, seed, epoch):
        """The arrangement of one epoch: here they are all alike."""
        return Backwards(num_samples)


if __name__ == "__main__":
    first = ResumableDistributedSampler(range(10), num_replicas=1, rank=0, order=Reversed())
    first.commit(4)  # trained on 9, 8, 7, 6
    for rank in range(2):
        resumed = ResumableDistributedSampler(range(10), num_replicas=2, rank=rank, order=Reversed())
        resumed.load_state_dict(first.state_dict())
        print(f"rank {rank} goes on with", list(resumed))
