"""assert_resumes passes what resumes exactly, and says of what does not what is wrong with it."""

import random

import numpy as np
import pytest
import torch.utils.data
from faulty_loaders import (
    N,
    Samples,
    maker,
    plain,
    prefetched,
    reordered,
    without_last,
    without_second,
)
from files import write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import globidx
from globidx.orders import ChunkShuffle, Weighted
from globidx.testing import assert_resumes, strategies

PLAIN = torch.utils.data.DataLoader


@settings(max_examples=30)
@given(
    run=strategies.resizes(),
    batch=strategies.batch_sizes(),
    tail=st.sampled_from(("pad", "drop", "exact")),
    by_hand=st.booleans(),
    data=st.data(),
)
def test_any_right_loader_resumes(run, batch, tail, by_hand, data):
    """Any number of resumes on any world sizes, with globidx's loader and with torch's."""
    steps = data.draw(st.integers(2, 5))
    n = run[0] * batch * (steps - 1) + data.draw(strategies.lengths(run[0] * batch))
    stop = data.draw(st.integers(1, steps - 1))
    if tail == "drop" and n // run[0] <= batch * stop:
        n += run[0]
    loader = PLAIN if by_hand else globidx.DataLoader
    assert_resumes(maker(n, batch, loader=loader, tail=tail), world_sizes=[run], stop_after=stop)


@pytest.mark.parametrize(
    "order", [ChunkShuffle(chunk=4), Weighted(np.arange(1.0, N + 1))], ids=repr
)
def test_any_order_resumes(order):
    """Chunks that are planned for ranks, and samples that are drawn more than once."""
    assert_resumes(maker(order=order))


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata calls it
def test_a_stateful_loader_resumes_by_its_own_state():
    """torchdata's loader resumes from the sampler's record, and from its own state of rank 0."""
    loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    assert_resumes(maker(loader=loader))
    assert_resumes(
        maker(loader=loader),
        save=lambda loaders: loaders[0].state_dict(),
        load=lambda loader, state: loader.load_state_dict(state),
    )


def transformed(folder, transform, **arguments):
    """make_loader over the rows of a file."""
    write_zarr(folder / "a.zarr", {"x": np.arange(2.0 * N).reshape(N, 2)}, chunk=8)
    manager = globidx.GlobalIndexManager(folder / "a.zarr", key="x")
    dataset = globidx.FileCacheDataset(manager, transform=transform, with_id=True, **arguments)
    return maker(dataset=dataset)


def test_transforms_of_the_sample_s_generator_resume(tmp_path):
    """transform(sample, rng) gives the same bits in the run that was stopped."""
    assert_resumes(transformed(tmp_path, lambda sample, rng: sample + rng.normal()))


@pytest.mark.parametrize(
    "draw", [torch.rand, lambda _: np.random.rand(), lambda _: random.random()]
)
def test_a_transform_of_a_global_generator_is_named(tmp_path, draw):
    """torch's, numpy's or Python's: the sample, its epoch and the cure; which it needs no more once it is seeded."""
    faulty = lambda sample: sample + float(draw(1))  # noqa: E731
    message = r"2 -> 1 ranks, stopped after batch 1: sample \d+ of epoch 0 has another value at '0' .*transform\(sample, rng\)"
    with pytest.raises(AssertionError, match=message):
        assert_resumes(transformed(tmp_path, faulty))
    assert_resumes(transformed(tmp_path / "seeded", faulty, seed_transforms=True))


class KeepsRecords:
    """A loader that makes its record as it is asked for a batch: before that batch can count."""

    def __init__(self, loader):
        self.loader, self.sampler = loader, loader.sampler

    def __iter__(self):
        for batch in self.loader:
            self.record = self.sampler.state_dict()
            yield batch


@pytest.mark.filterwarnings("ignore:ids of epoch 0 were drawn, but no delivery was reported")
def test_a_record_that_is_made_one_batch_late_is_named():
    """What was trained on last is repeated after each resume, and the record is told to be behind."""

    def make_loader(rank, world_size):
        return KeepsRecords(maker(loader=PLAIN)(rank, world_size))

    def load(loader, record):
        loader.sampler.load_state_dict(record)

    message = r"2 -> 1 ranks, stopped after batch 2, epoch 0: of 41 samples, 8 were repeated \(.*\)\. The record is 1 global batch behind"
    with pytest.raises(AssertionError, match=message):
        assert_resumes(
            make_loader,
            stop_after=2,
            save=lambda loaders: globidx.merge_states([loader.record for loader in loaders]),
            load=load,
        )


def test_runs_stop_at_the_first_batch_in_the_middle_and_before_the_last():
    """Where each stops is seen as it is saved: 44 samples are 11 batches of 4."""
    left = []

    def save(loaders):
        left.append(loaders[0].sampler.remaining)
        return loaders[0].sampler.state_dict()

    assert_resumes(maker(44), world_sizes=[(1, 2), (1, 1)], save=save)
    assert left == [40, 24, 4] * 2


class FreezesLength:
    """A trainer's limit: it takes from every epoch as many batches as the first pass had."""

    def __init__(self, loader):
        self.loader, self.sampler, self.limit = loader, loader.sampler, None

    def __iter__(self):
        limit, self.limit = self.limit, 0
        for number, batch in enumerate(self.loader):
            if limit is not None and number >= limit:
                return
            self.limit += 1
            yield batch


def test_an_epoch_that_is_cut_after_the_resumed_one_is_named():
    """The epoch that was resumed is whole, and the next one has only as many batches as the rest of that one."""
    with pytest.raises(
        AssertionError,
        match=r"2 -> 1 ranks, stopped after batch 1, epoch 1: .* 5 were lost .* drop_last",
    ):
        assert_resumes(lambda rank, world: FreezesLength(maker(loader=PLAIN)(rank, world)))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_record_that_is_not_loaded_is_named():
    """All that was trained on is repeated."""
    with pytest.raises(
        AssertionError, match="24 were repeated .* The record is 3 global batches behind"
    ):
        assert_resumes(maker(), stop_after=3, load=lambda loader, record: None)


FAULTS = {
    "prefetches outside": (
        maker(change=prefetched),
        r"2 -> 1 ranks, stopped after batch 1, epoch 0: of 41 samples, 8 were lost \(.*\)\. The record is 1 global batch ahead",
    ),
    "loses its last batch": (
        plain(without_last),
        r"2 -> 1 ranks, .* 1 was lost \(\d+\)\. Rank 0 of 1: its loop ended 1 ids before .*drop_last",
    ),
    "reorders": (plain(reordered), "2 -> 1 ranks, .* Rank 0 of 2: .* reorders them"),
    "leaves out a batch": (
        plain(without_second),
        "2 -> 1 ranks, .* 4 were lost .* leaves out 4 ids amid",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_by_name(fault):
    """What is lost or repeated, where the run was stopped, and what a loader does to cause it."""
    make_loader, message = FAULTS[fault]
    with pytest.raises(AssertionError, match=message):
        assert_resumes(make_loader)


def test_values_may_be_read_out_of_batches_that_have_no_rows():
    """A batch that is padded differently from batch to batch needs a function, and one without rows is refused."""
    lengths = Samples(value_of=lambda id: torch.arange(id % 5 + 1))

    def make_loader(rank, world_size):
        loader = maker(dataset=lengths)(rank, world_size)
        collate = lambda pairs: (torch.cat([value for value, _ in pairs]), [id for _, id in pairs])  # noqa: E731
        loader.collate_fn = collate
        return loader

    with pytest.raises(
        TypeError, match="'0' of the batch, a Tensor, has not one row for each of its 4 samples"
    ):
        assert_resumes(make_loader)
    assert_resumes(
        make_loader,
        values=lambda batch: torch.split(batch[0], [id % 5 + 1 for id in batch[1]]),
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world_sizes": (2, 1)}, "each of world_sizes is a run"),
        ({"world_sizes": [(2,)]}, r"each of world_sizes is a run .*, got \(2,\)"),
        ({"world_sizes": [(2, 0)]}, "a world size must be"),
        ({"stop_after": 6}, "stop_after=6 is not in mid-epoch: a rank has 6 batches"),
        ({"stop_after": 0}, "stop_after must be"),
    ],
)
def test_runs_that_do_not_stop_in_mid_epoch_are_refused(arguments, message):
    """What is wrong, and what would be right."""
    with pytest.raises(ValueError, match=message):
        assert_resumes(maker(), **arguments)
