"""Datasets by URL are told what comes next through whatever wraps them, and each chunk is asked for once."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch.utils.data
import zarr
from servers import Server
from torch.utils.data import ConcatDataset, Subset

pytest.importorskip("obstore")
pytest.importorskip("aiohttp")

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    MapDataset,
    ResumableDistributedSampler,
)
from globidx.core.generator import Moment
from globidx.mixture import InterleavedDataset
from globidx.torch.loops.foreseen import ForeseenIds, announce, foresight_of

# Python 3.12 and later
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")

FILES, ITEMS = 2, 24


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two stores whose chunks have an item each, which is its number, from 1 on."""
    folder = tmp_path_factory.mktemp("foreseen")
    for number in range(FILES):
        # a chunk of zeros would not be written
        rows = np.arange(1, ITEMS + 1).repeat(8).reshape(ITEMS, 8) + number * ITEMS
        zarr.create_array(folder / f"{number}.zarr", data=rows, chunks=(1, 8))
    with Server(folder) as server:
        yield server


@pytest.fixture
def opened(served, tmp_path, monkeypatch):
    """A function that opens one of the stores, or both, indexed already."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def opened(*numbers):
        urls = [f"{served.url}/{number}.zarr" for number in numbers or range(FILES)]
        return FileCacheDataset(GlobalIndexManager(urls))

    served.delay(0)
    return opened


class Halved(torch.utils.data.Dataset):
    """A wrapper of somebody's that reads sample by sample, and says whose ids it takes."""

    def __init__(self, dataset):
        self.same_ids_as = dataset

    def __len__(self):
        return len(self.same_ids_as)

    def __getitem__(self, id):
        return self.same_ids_as[id] // 2


def noisy(sample, rng):
    return sample + 0 * int(rng.integers(9))


def halves(opened):
    """Two selections of one dataset, one behind the other."""
    whole = opened()
    return ConcatDataset([Subset(whole, range(1, 48, 2)), Subset(whole, np.arange(0, 48, 2))])


WRAPPERS = {
    "none": lambda opened: opened(),
    "Subset": lambda opened: Subset(opened(), torch.randperm(48).tolist()),
    "MapDataset": lambda opened: MapDataset(opened()),
    "joined": lambda opened: MapDataset(opened(0), Subset(opened(1), range(24)), transform=noisy),
    "ConcatDataset": lambda opened: ConcatDataset([opened(1), opened(0)]),
    "halves": halves,
    "mixture": lambda opened: InterleavedDataset({"a": opened(0), "b": opened(1)}, [0.5, 0.5]),
    "same_ids_as": lambda opened: Halved(MapDataset(opened())),
}


@pytest.mark.parametrize(("workers", "how"), [(0, "processes"), (2, "processes"), (2, "threads")])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_chunks_of_coming_batches_are_in_flight_and_each_is_asked_for_once(
    served, opened, wrapper, workers, how
):
    """More at a time than a batch has, also where a wrapper asks for one sample after the other."""
    dataset = WRAPPERS[wrapper](opened)
    order = getattr(dataset, "order", None)
    sampler = ResumableDistributedSampler(dataset, 1, 0, order=order)
    loader = DataLoader(dataset, 4, sampler=sampler, num_workers=workers, workers=how)
    served.delay(0.05)
    served.take()
    samples = [int(value) for batch in loader for value in batch[:, 0]]
    taken = served.take()
    assert sorted(samples) == [
        1 + id if wrapper != "same_ids_as" else (1 + id) // 2 for id in range(48)
    ]
    asked = Counter(path for _, path, _ in taken["asked"] if "/c/" in path)
    assert len(asked) == 48 and set(asked.values()) == {1}
    assert taken["most"] > 12, taken["most"]


class Listening:
    """A dataset that has a use for what comes, and keeps what it was told."""

    foresight = 7

    def __init__(self, size):
        self.size, self.told = size, []

    def __len__(self):
        return self.size

    def __getitem__(self, id):
        return id

    def foresee(self, batches, moment):
        self.told.append(([list(ids) for ids in batches], moment))


def test_what_is_told_are_the_ids_of_the_dataset_itself():
    """Batch by batch, once for each dataset, however often it lies in the other."""
    first, second = Listening(10), Listening(5)
    both = ConcatDataset([Subset(first, [9, 7, 5]), second, Subset(first, torch.tensor([0, 1]))])
    assert foresight_of(both) == 7
    moment = Moment(3, 4)
    announce(both, ForeseenIds([0, 3, 9], moment, [[4], [1, 8]]))
    assert first.told == [([[9, 1], [], [7, 0]], moment)]
    assert second.told == [([[0], [1], []], moment)]


def test_datasets_that_have_no_use_for_it_or_cannot_be_told_are_left_alone():
    """Local files, a wrapper that nobody knows, and indices that are none."""
    inner = Listening(4)

    class Other:
        dataset = inner

        def __len__(self):
            return 4

    assert foresight_of(range(4)) == 0
    announce(Other(), ForeseenIds([0], Moment(0, 0)))
    announce(Subset(inner, ["a"]), ForeseenIds([0], Moment(0, 0)))
    assert inner.told == []
