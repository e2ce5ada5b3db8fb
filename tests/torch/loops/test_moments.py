"""Randomness that belongs to a sample: the same numbers however a run is cut into ranks, workers and resumes."""

from __future__ import annotations

import copy
import pickle
import random
from functools import partial

import numpy as np
import pytest
import torch
import torch.utils.data
import zarr
from loops import HOW, reading

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    batch_rng,
    sample_rng,
)
from globidx.core.generator import Moment
from globidx.torch.loops.moments import DatedIds, SharedMoment, moments_of, seeded, takes_rng

SEED, SAMPLES, GLOBAL_BATCH = 5, 36, 12


def add_noise(sample, rng):
    return sample + rng.random()


class Global:
    """A transform that draws from all global generators, as older ones do."""

    def __call__(self, sample):
        return sample + torch.rand((), dtype=torch.float64) + random.random() + np.random.rand()


def crop(rng, shape):
    start = int(rng.integers(shape[1] - 2))
    return {1: slice(start, start + 2)}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("moments")
    values = np.arange(1.0, SAMPLES * 8 + 1).reshape(SAMPLES, 8)
    zarr.create_array(folder / "a.zarr", data=values, chunks=(5, 8))
    return str(folder)


def dataset_of(data, what):
    options = {
        "rng": {"transform": add_noise},
        "globals": {"transform": Global(), "seed_transforms": True},
        "crop": {"select": crop},
    }[what]
    return FileCacheDataset(GlobalIndexManager(data), with_id=True, **options)


def samples_of(
    dataset,
    world_size,
    workers=0,
    context=None,
    loader=DataLoader,
    epochs=2,
    stop=None,
    record=None,
):
    """Each (epoch, id) with its values; an epoch may be stopped after so many batches."""
    found, saved = {}, None
    for rank in range(world_size):
        sampler = ResumableDistributedSampler(dataset, world_size, rank, seed=SEED, tail="exact")
        if record is not None:
            sampler.load_state_dict(record)
        options = {"num_workers": workers, "multiprocessing_context": context} if workers else {}
        batches = loader(dataset, batch_size=GLOBAL_BATCH // world_size, sampler=sampler, **options)
        for epoch in range(sampler.epoch, epochs):
            sampler.set_epoch(epoch)
            for number, (values, ids) in enumerate(batches, 1):
                for value, id in zip(values, ids.tolist(), strict=True):
                    assert (epoch, id) not in found
                    found[epoch, id] = value.tolist()
                if loader is not DataLoader:
                    sampler.commit(len(ids))
                if number == stop:
                    # the batch that the loop holds counts as trained on
                    saved = sampler.state_dict()
                    break
            if stop is not None:
                break
    return found, saved


@pytest.mark.parametrize("what", ["rng", "globals", "crop"])
def test_ranks_workers_and_start_methods_change_no_number(data, what):
    """Nor do torch's own loader and persistent workers; another epoch has other numbers."""
    expected, _ = samples_of(dataset_of(data, what), 1)
    assert len(expected) == 2 * SAMPLES
    ways = [(2, 0, None, DataLoader), (3, 0, None, torch.utils.data.DataLoader)]
    ways += [(2, 2, "fork", DataLoader), (1, 2, "spawn", DataLoader)]
    persistent = partial(torch.utils.data.DataLoader, persistent_workers=True)
    ways += [(1, 2, "fork", persistent)]
    for world_size, workers, context, loader in ways:
        found, _ = samples_of(dataset_of(data, what), world_size, workers, context, loader)
        assert found == expected, (world_size, workers, context, loader)
    epochs = [[expected[epoch, id] for id in range(SAMPLES)] for epoch in (0, 1)]
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("what", ["rng", "globals", "crop"])
def test_a_resume_on_other_ranks_goes_on_with_the_same_numbers(data, what):
    """Two ranks stop after one batch; three go on."""
    expected, _ = samples_of(dataset_of(data, what), 1)
    before, record = samples_of(dataset_of(data, what), 2, stop=1)
    after, _ = samples_of(dataset_of(data, what), 3, record=record)
    assert not before.keys() & after.keys()
    assert before | after == expected


def test_the_generator_is_the_one_that_is_made_by_hand(data):
    """``globidx.sample_rng`` of the sampler's seed, the epoch and the id."""
    found, _ = samples_of(dataset_of(data, "rng"), 1)
    for (epoch, id), value in found.items():
        noise = sample_rng(SEED, epoch, id).random()
        assert value == [float(one) + noise for one in range(id * 8 + 1, id * 8 + 9)]


def test_two_samplers_of_one_dataset_do_not_disturb_each_other(data):
    """A loop that draws validation batches in the middle of an epoch, from the same dataset."""
    dataset = dataset_of(data, "rng")
    expected, _ = samples_of(dataset_of(data, "rng"), 1, epochs=1)
    train = ResumableDistributedSampler(dataset, 1, 0, seed=SEED)
    other = ResumableDistributedSampler(dataset, 1, 0, seed=99)
    other.set_epoch(7)
    found = {}
    for values, ids in DataLoader(dataset, batch_size=6, sampler=train):
        next(iter(DataLoader(dataset, batch_size=6, sampler=other)))
        found |= {(0, id): value.tolist() for id, value in zip(ids.tolist(), values, strict=True)}
    assert found == expected


def numbers_of(batches):
    """The values of each id in some batches."""
    return {
        id: value.tolist()
        for values, ids in batches
        for value, id in zip(values, ids.tolist(), strict=True)
    }


def expected_in(data, epoch):
    """What one rank without workers gives for each id in an epoch."""
    found, _ = samples_of(dataset_of(data, "rng"), 1, epochs=epoch + 1)
    return {id: value for (of, id), value in found.items() if of == epoch}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_workers_of_a_copied_dataset_learn_the_epoch(data, copied):
    """Memory that was copied is shared anew, with workers that are kept over epochs, too."""
    dataset = copied(torch.utils.data.Subset(dataset_of(data, "rng"), range(SAMPLES)))
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=SEED)
    loader = DataLoader(dataset, 6, sampler=sampler, num_workers=2, persistent_workers=True)
    for epoch in range(2):
        assert numbers_of(loader) == expected_in(data, epoch)


@pytest.mark.parametrize("workers", HOW)
def test_a_wrapped_dataset_learns_the_epoch_from_a_sampler_of_another_object(data, workers):
    """Only its length must be the sampler's."""
    dataset = torch.utils.data.Subset(dataset_of(data, "rng"), range(SAMPLES))
    sampler = ResumableDistributedSampler(range(SAMPLES), 1, 0, seed=SEED)
    loader = DataLoader(dataset, 6, sampler=sampler, **reading(workers))
    for epoch in range(2):
        assert numbers_of(loader) == expected_in(data, epoch)


def test_an_iterator_that_loads_a_record_reads_samples_of_its_epoch(data):
    """As torchdata's loaders do it: the iterator was made for epoch 0."""
    first = ResumableDistributedSampler(dataset_of(data, "rng"), 1, 0, seed=SEED)
    first.set_epoch(3)
    first.commit(6)
    dataset = dataset_of(data, "rng")
    ids = iter(ResumableDistributedSampler(dataset, 1, 0, seed=SEED))
    ids.load_state_dict(first.state_dict())
    expected = expected_in(data, 3)
    left = [(dataset[id][0].tolist(), id) for id in ids]
    assert len(left) == SAMPLES - 6 and all(expected[id] == value for value, id in left)


def test_what_is_read_beside_the_last_batch_of_next_is_of_its_epoch(data):
    """The sampler's next epoch is another one by then, but its iterators still read this one."""
    dataset = dataset_of(data, "rng")
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=SEED)
    batches = iter(DataLoader(dataset, SAMPLES, sampler=sampler))
    held = next(batches)
    assert sampler.epoch == 1
    beside = torch.utils.data.DataLoader(dataset, SAMPLES, sampler=sampler)
    assert numbers_of(beside) == numbers_of([held]) == expected_in(data, 0)


def test_global_generators_are_left_as_they_were():
    """Also where the transform raises."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()[1]
    with pytest.raises(KeyError), seeded(sample_rng(0, 0, 0)):
        torch.rand(3)
        random.random()
        np.random.rand()
        raise KeyError
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()
    assert np.array_equal(states[2], np.random.get_state()[1])


def test_a_dataset_that_draws_nothing_shares_no_memory(data):
    """No cost where it is not asked for."""
    assert FileCacheDataset(GlobalIndexManager(data)).moment is None
    assert moments_of(FileCacheDataset(GlobalIndexManager(data))) == []
    dataset = dataset_of(data, "rng")
    subset = torch.utils.data.Subset(dataset, range(4))
    assert moments_of(torch.utils.data.ConcatDataset([subset, subset])) == [dataset.moment] * 2


def test_ids_keep_their_moment_in_another_process():
    """They are pickled on their way to a worker."""
    ids = pickle.loads(pickle.dumps(DatedIds([3, 1], Moment(7, 2))))
    assert ids == [3, 1] and SharedMoment().of(ids) == Moment(7, 2)


@pytest.mark.parametrize(
    ("transform", "takes"),
    [
        (lambda sample: sample, False),
        (lambda sample, rng: sample, True),
        (lambda sample, generator: sample, True),
        (lambda sample, scale=2: sample, False),
        (lambda sample, *, rng: sample, False),
        (lambda sample, rng=None: sample, True),
        (Global(), False),
        (partial(add_noise, rng=np.random.default_rng()), False),
        (torch.nn.Identity(), False),
        (float, False),
    ],
)
def test_who_is_given_a_generator(transform, takes):
    """A function of two arguments, or of one called rng; not one whose second argument has a default."""
    assert takes_rng(transform) == takes


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_generator_of_a_batch_is_the_same_on_all_ranks(world_size):
    """And as on one rank, also after a resume in mid-epoch."""

    def drawn(world_size, rank, record=None, stop=None):
        sampler = ResumableDistributedSampler(range(SAMPLES), world_size, rank, seed=SEED)
        if record is not None:
            sampler.load_state_dict(record)
        loader = DataLoader(range(SAMPLES), GLOBAL_BATCH // world_size, sampler=sampler)
        numbers = []
        for epoch in range(sampler.epoch, 2):
            sampler.set_epoch(epoch)
            for number, _ in enumerate(loader, 1):
                numbers.append(int(batch_rng(sampler).integers(2**40)))
                if number == stop:
                    return numbers, sampler.state_dict()
        return numbers, None

    expected, _ = drawn(1, 0)
    assert len(set(expected)) == 6
    for rank in range(world_size):
        assert drawn(world_size, rank)[0] == expected
        before, record = drawn(world_size, rank, stop=2)
        assert before + drawn(2, 0, record)[0] == expected
