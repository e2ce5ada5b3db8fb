"""What loader workers read is counted in the main process."""

import copy

import numpy as np
import pytest
from files import numbers, write_hdf5
from torch.utils.data import ConcatDataset, Subset

import globidx
from globidx import FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler
from globidx.disk.reading.counters import Counters

BYTES = 3 * np.dtype("u2").itemsize  # of a sample


class Wrapper:
    """Reads one sample at a time, through an attribute that nobody knows."""

    def __init__(self, inner):
        self.hidden = inner

    def __len__(self):
        return len(self.hidden)

    def __getitem__(self, id):
        return self.hidden[id]


WRAPS = {
    "plain": lambda d: d,
    "selected": lambda d: Subset(d, range(5, 45)),
    "joined": lambda d: ConcatDataset([d, d]),
    "wrapped": Wrapper,
}


@pytest.fixture
def dataset(tmp_path):
    """50 samples in two files."""
    for name, length in (("a", 20), ("b", 30)):
        write_hdf5(tmp_path / f"{name}.h5", numbers(length), chunk=4)
    return FileCacheDataset(GlobalIndexManager(tmp_path, key="x", cache_dir=tmp_path / "cache"))


@pytest.mark.parametrize("wrap", WRAPS)
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_pass_counts_each_sample_once_whoever_read_it(dataset, method, wrap):
    """As many useful bytes as samples were delivered, by workers, by the main process, and in the next pass again."""
    whole = WRAPS[wrap](dataset)
    sampler = ResumableDistributedSampler(whole, 1, 0)
    workers = {
        "num_workers": 2,
        "multiprocessing_context": method,
        "persistent_workers": wrap == "plain",
    }
    loader = globidx.DataLoader(whole, batch_size=4, sampler=sampler, **workers)
    for passes in (1, 2):
        assert sum(map(len, loader)) == len(whole)
        found = dataset.counters()
        assert found.bytes_useful == passes * len(whole) * BYTES
        assert found.decodes >= len(whole) // 4
        assert found.opens >= 2
    dataset[0]
    assert dataset.counters(reset=True).bytes_useful == (2 * len(whole) + 1) * BYTES
    assert dataset.counters() == Counters()
    list(loader)
    assert dataset.counters().bytes_useful == len(whole) * BYTES


def test_single_samples_are_counted_and_copies_count_for_themselves(dataset):
    """Without batches; a deep copy is a dataset of its own, also in forked workers."""
    other = copy.deepcopy(dataset)
    sampler = ResumableDistributedSampler(other, 1, 0)
    assert (
        len(list(globidx.DataLoader(other, batch_size=None, sampler=sampler, num_workers=1))) == 50
    )
    assert (dataset.counters().bytes_useful, other.counters().bytes_useful) == (0, 50 * BYTES)


def test_what_was_read_for_nothing_is_made_up_for_by_the_next_batch(dataset):
    """After a break the workers' prefetched batches are gone; the totals of persistent ones are not."""
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    loader = globidx.DataLoader(
        dataset, batch_size=5, sampler=sampler, num_workers=1, persistent_workers=True
    )
    next(iter(loader))
    list(loader)
    found = dataset.counters().bytes_useful // BYTES
    assert (
        50 <= found <= 50 + 15
    )  # two prefetched batches and the first one were read twice, at most
