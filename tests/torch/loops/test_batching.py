"""How many batches there are, have begun and are left, and which batch samplers can be counted."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loops import LEN_LIMITED, by_next, made

from globidx import DataLoader, ResumableDistributedSampler
from globidx.core.progress.limits import MAX_PASSED_OVER
from globidx.orders import ChunkShuffle
from globidx.torch.loops.batching import Window


class Renamed(torch.utils.data.BatchSampler):
    """Cuts as torch's does."""


@pytest.mark.parametrize("take", LEN_LIMITED)
@pytest.mark.parametrize("drop_last", [False, True])
def test_a_batch_sampler_that_cuts_as_torchs_does_is_known_to_be_at_its_end(take, drop_last):
    """Its class has another name only: what a full batch leaves over, it drops too."""
    sampler = ResumableDistributedSampler(range(41), 1, 0, seed=3)
    loader = DataLoader(range(41), batch_sampler=Renamed(sampler, 4, drop_last))
    assert [sum(map(len, take(loader))) for _ in range(3)] == [40 if drop_last else 41] * 3


@given(
    n=st.integers(1, 80),
    batch=st.integers(1, 9),
    world=st.integers(1, 4),
    rank=st.integers(0, 3),
    tail=st.sampled_from(["pad", "drop", "exact"]),
    drop_last=st.booleans(),
    before=st.tuples(st.integers(1, 4), st.integers(0, 20)),
    epochs=st.integers(0, 4),
)
def test_lengths_are_what_comes(n, batch, world, rank, tail, drop_last, before, epochs):
    """len is what was done and what this pass gives; steps_left is all that comes, for any tail, after any resume."""
    first = ResumableDistributedSampler(range(n), before[0], 0, tail=tail)
    first.commit(min(before[1], n // before[0]))
    sampler = ResumableDistributedSampler(range(n), world, rank % world, tail=tail)
    sampler.load_state_dict(first.state_dict())
    loader = DataLoader(range(n), batch_size=batch, sampler=sampler, drop_last=drop_last)
    left, came = loader.steps_left(epochs), 0
    for epoch in range(sampler.epoch, epochs):
        sampler.set_epoch(epoch)
        length, start, whole = len(loader), loader.start, loader.steps_per_epoch
        numbers = []
        for number, _ in enumerate(loader, start + 1):
            numbers.append(number)
            assert (len(loader), loader.start) == (length, start)
            assert loader.steps_left(epochs) == left - came - len(numbers)
        assert numbers == list(range(start + 1, length + 1))
        came += len(numbers)
        if start == 0 and epoch > first.epoch:
            assert len(numbers) == whole
    assert came == left


def test_steps_are_left_after_the_last_batch_of_a_loop_by_next():
    """Such a loop does not come back after its last batch: the epoch is over, and the next one is whole."""
    sampler, loader = made(41, 4)
    by_next(loader)
    assert (sampler.epoch, loader.steps_left(1), loader.steps_left(3)) == (1, 0, 22)


def test_skips_count_in_the_steps_of_later_epochs():
    """What an epoch leaves out is no step of it."""
    sampler, loader = made(41, 4)
    sampler.skip(range(10, 20))
    assert (len(loader), loader.steps_per_epoch, loader.steps_left(3)) == (11, 8, 11 + 8 + 8)


def test_steps_need_batches_of_one_size():
    """A sampler that is not ours, or batches of any size, cannot be counted ahead."""
    with pytest.raises(TypeError, match="steps_per_epoch needs a ResumableDistributedSampler"):
        _ = DataLoader(range(5)).steps_per_epoch


def test_a_window_holds_what_was_passed_over_and_not_yielded():
    """So an epoch of any length may be sorted within windows, and its end is found."""
    n = 3 * MAX_PASSED_OVER
    window = Window(zip(range(n), range(n), strict=True), "Sorting")
    for first in range(0, n, 1000):
        ids = list(range(first, min(first + 1000, n)))[::-1]
        assert window.look_up(ids) == (ids, ids)
    assert not window._waiting


def test_a_pass_over_a_sampler_that_does_not_resume_starts_at_its_start():
    """A bar over a loader for validation counts from 0."""
    assert DataLoader(range(5)).start == 0


class Told(torch.utils.data.Dataset):
    """Ids as samples; each batch with what was told of the next ones, and by which worker it was read."""

    foresight = 12
    told = ()

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def foresee(self, batches, moment):
        self.told = [list(ids) for ids in batches]

    def __getitems__(self, ids):
        worker = torch.utils.data.get_worker_info()
        assert not self.told or self.told[0] == list(ids)
        return [(list(ids), list(self.told[1:]), worker and worker.id)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
@pytest.mark.parametrize("order", [None, ChunkShuffle(chunk=4)], ids=["shuffle", "chunks"])
def test_a_worker_is_told_the_batches_that_it_reads_next(workers, tail, order):
    """All of them to the end of the epoch, or as many as hold what the dataset asks for; also after a resume."""
    record = None
    for world, rank, most in ((1, 0, 5), (2, 1, None)):
        data = Told(101)
        sampler = ResumableDistributedSampler(data, world, rank, tail=tail, order=order)
        if record is not None:
            sampler.load_state_dict(record)
        read = []
        for batch in DataLoader(data, 3, sampler=sampler, num_workers=workers, collate_fn=_only):
            read.append(batch)
            if len(read) == most:
                break
        record = sampler.state_dict()
        lanes = max(1, workers)
        for place, (ids, coming, worker) in enumerate(read):
            mine = [one for one, _, by in read[place + lanes :: lanes]]
            assert all(by == worker for _, _, by in read[place::lanes])
            assert coming[: len(mine)] == mine[: len(coming)]
            assert most or len(coming) == min(4, len(mine))
            assert len(ids) <= 3


def _only(samples):
    (one,) = samples
    return one


def test_what_is_drawn_to_look_ahead_is_in_no_record():
    """At each step the record is that of a loader that tells nothing."""
    ours, plain = (
        ResumableDistributedSampler(data, 2, 1, seed=5) for data in (Told(40), range(40))
    )
    loaders = [DataLoader(one.dataset, 3, sampler=one, collate_fn=len) for one in (ours, plain)]
    for _ in zip(*loaders, strict=True):
        assert ours.remaining == plain.remaining
        records = [one.state_dict() for one in (ours, plain)]
        assert records[0] | {"dataset": None} == records[1] | {"dataset": None}
    assert ours.epoch == plain.epoch == 1


def test_a_batch_sampler_of_ones_own_tells_nothing():
    """Nobody knows what it will yield, and nothing is guessed."""
    sampler = ResumableDistributedSampler(Told(20), 1, 0)
    batches = torch.utils.data.BatchSampler(sampler, 4, drop_last=False)

    class Reversing:
        def __init__(self):
            self.sampler = sampler

        def __iter__(self):
            return (batch[::-1] for batch in batches)

        def __len__(self):
            return len(batches)

    loader = DataLoader(Told(20), batch_sampler=Reversing(), collate_fn=_only)
    assert [coming for _, coming, _ in loader] == [[]] * 5
