"""An order that a user writes needs public methods only, and is saved and resumed like any other."""

import pytest

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler, errors
from globidx.orders import Arrangement, Order


class ReversedEpoch(Arrangement):
    """Position 0 holds the last id."""

    def forward(self, positions):
        return self.num_samples - 1 - positions

    def inverse(self, sample_ids):
        return self.num_samples - 1 - sample_ids


class Reversed(Order):
    """From the last sample to the first, every epoch."""

    algorithm = "example.reversed"

    def bind(self, num_samples, *, seed, epoch):
        return ReversedEpoch(num_samples)


def ids(loader):
    return [id for batch in loader for id in batch.tolist()]


def test_an_order_of_ones_own_survives_a_save_and_a_resume(tmp_path):
    """One rank in mid-epoch, saved; two ranks go on from the record where it stopped, without an id twice."""
    sampler = ResumableDistributedSampler(range(23), 1, 0, order=Reversed())
    manager = CheckpointManager(tmp_path, sampler)
    loader = DataLoader(range(23), batch_size=4, sampler=sampler)
    for number, batch in enumerate(loader):
        if number == 1:
            assert batch.tolist() == [18, 17, 16, 15]
            manager.save(1)
            break
    record = manager.state_dict()["states"]["sampler"]
    assert record["order"] == {"algorithm": "example.reversed", "version": 1}
    resumed = []
    for rank in range(2):
        sampler = ResumableDistributedSampler(range(23), 2, rank, order=Reversed(), tail="exact")
        sampler.load_state_dict(record)
        resumed.append(ids(DataLoader(range(23), batch_size=4, sampler=sampler, num_workers=rank)))
    assert resumed == [[14, 12, 10, 8, 6, 4, 2, 0], [13, 11, 9, 7, 5, 3, 1]]


def test_a_sampler_of_another_order_refuses_its_record():
    """Name and version in the record are compared."""
    sampler = ResumableDistributedSampler(range(23), 1, 0, order=Reversed())
    sampler.commit(3)
    with pytest.raises(errors.RecordMismatchError, match="order"):
        ResumableDistributedSampler(range(23), 1, 0).load_state_dict(sampler.state_dict())


def test_ids_that_an_order_of_ones_own_leaves_out_are_found():
    """``skip`` asks the order for positions, through ``inverse`` alone."""
    sampler = ResumableDistributedSampler(range(10), 1, 0, order=Reversed())
    sampler.skip([9, 5])
    sampler.commit(2)
    sampler.load_state_dict(sampler.state_dict())
    assert list(sampler) == [7, 6, 4, 3, 2, 1, 0]
