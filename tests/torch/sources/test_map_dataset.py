"""Samples of any objects: known by their fingerprints, drawn by their own generators, read by their sources."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
import zarr
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset

from globidx import (
    CheckpointManager,
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    MapDataset,
    ResumableDistributedSampler,
    errors,
    orders,
    sample_rng,
)
from globidx.core.datasets.identity import DatasetIdentity

SEED, SAMPLES, GLOBAL_BATCH = 5, 36, 12


class Own(Dataset):
    """A dataset of another author's, whose samples draw from all global generators."""

    def __init__(self, length, start=0):
        self.length, self.start = length, start

    def __len__(self):
        return self.length

    def __getitem__(self, id):
        return (
            torch.rand(2, dtype=torch.float64)
            + random.random()
            + np.random.rand()
            + id
            + self.start
        )


def add_noise(sample, rng):
    return sample + rng.random()


@pytest.fixture
def files(tmp_path):
    """20 samples in chunks of 4."""
    values = np.arange(40.0).reshape(20, 2)
    zarr.create_array(tmp_path / "a.zarr", data=values, chunks=(4, 2))
    return FileCacheDataset(GlobalIndexManager(tmp_path / "a.zarr"), transform=add_noise)


def run(dataset, world_size, workers=0, context=None, epochs=2, stop=None, record=None):
    """Each (epoch, id) with its values; the first epoch may be stopped after so many batches."""
    found, saved = {}, None
    for rank in range(world_size):
        sampler = ResumableDistributedSampler(dataset, world_size, rank, seed=SEED)
        if record is not None:
            sampler.load_state_dict(record)
        options = {"num_workers": workers, "multiprocessing_context": context} if workers else {}
        loader = DataLoader(dataset, GLOBAL_BATCH // world_size, sampler=sampler, **options)
        for epoch in range(sampler.epoch, epochs):
            sampler.set_epoch(epoch)
            for number, (values, ids) in enumerate(loader, 1):
                found |= {
                    (epoch, id): value.tolist()
                    for id, value in zip(ids.tolist(), values, strict=True)
                }
                if number == stop:
                    saved = sampler.state_dict()
                    break
            if stop is not None:
                break
    return found, saved


def seeds(files):
    return MapDataset(Own(16), files, seed_transforms=True, with_id=True)


def draws(files):
    noiseless = [torch.arange(2.0, dtype=torch.float64) + id for id in range(16)]
    return MapDataset(noiseless, Subset(files, range(20)), transform=add_noise, with_id=True)


@pytest.mark.parametrize("make", [seeds, draws])
def test_ranks_workers_start_methods_and_resumes_change_no_number(files, make):
    """Of a source that draws from global generators, of a transform, and of files inside that draw themselves."""
    expected, _ = run(make(files), 1)
    assert len(expected) == 2 * SAMPLES
    assert all(expected[0, id] != expected[1, id] for id in range(SAMPLES))
    first = {key: values for key, values in expected.items() if key[0] == 0}
    assert run(make(files), 2)[0] == expected
    for world_size, context in ((2, "fork"), (1, "spawn")):
        assert run(make(files), world_size, 2, context, epochs=1)[0] == first
    before, record = run(make(files), 2, stop=1)
    after, _ = run(make(files), 3, record=record)
    assert not before.keys() & after.keys() and before | after == expected


def test_a_transform_is_given_the_generator_that_is_made_by_hand():
    """``globidx.sample_rng`` of the sampler's seed, the epoch and the id."""
    dataset = MapDataset([10.0, 20.0], [30.0], transform=add_noise)
    [values] = DataLoader(dataset, 3, sampler=ResumableDistributedSampler(dataset, 1, 0, False, 7))
    assert values.tolist() == [10 * (id + 1) + sample_rng(7, 0, id).random() for id in range(3)]


@pytest.mark.parametrize("wrap", [list.copy, lambda one: [Subset(one[0], range(20))]])
def test_files_inside_draw_for_the_same_epoch(files, wrap):
    """Also behind a ``Subset``, and beside a generator of the outer dataset's own."""
    dataset = MapDataset(*wrap([files]), transform=add_noise, with_id=True)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=SEED)
    loader = torch.utils.data.DataLoader(dataset, 20, sampler=sampler)
    for epoch in range(2):
        sampler.set_epoch(epoch)
        [(values, ids)] = loader
        for value, id in zip(values.tolist(), ids.tolist(), strict=True):
            noise = sample_rng(SEED, epoch, id).random()
            assert value == [2.0 * id + noise + noise, 2.0 * id + 1 + noise + noise]


def test_global_generators_are_left_as_they_were():
    """Reading a sample draws nothing from the training's own numbers."""
    states = torch.get_rng_state(), random.getstate()
    MapDataset(Own(3), seed_transforms=True).__getitems__([0, 2])
    assert torch.equal(states[0], torch.get_rng_state()) and states[1] == random.getstate()


def test_its_identity_is_that_of_its_sources(files):
    """One source's own; several are those of torch's ``ConcatDataset``, so that records go on with either."""
    other = MapDataset(range(5), fingerprint="five")
    assert DatasetIdentity.of(MapDataset(files)) == DatasetIdentity.of(files)
    joined = DatasetIdentity.of(ConcatDataset([files, other]))
    assert DatasetIdentity.of(MapDataset(files, other)) == joined
    assert DatasetIdentity.of(MapDataset(ConcatDataset([files, other]))) == joined
    assert DatasetIdentity.of(MapDataset(other, files)) != joined
    assert DatasetIdentity.of(MapDataset([1, 2])) == DatasetIdentity(2)
    assert DatasetIdentity.of(MapDataset([1, 2], fingerprint="v1")).fingerprint == "v1"
    for copied in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))):
        assert DatasetIdentity.of(copied(MapDataset(files, other))) == joined


def test_another_dataset_of_the_same_length_is_refused_and_named(tmp_path):
    """A list has no fingerprint of its own; what is given for it is in the record."""

    def sampler(word):
        return ResumableDistributedSampler(MapDataset([1, 2, 3], fingerprint=word), 1, 0)

    manager = CheckpointManager(tmp_path, sampler("v1"))
    manager.save(1)
    assert CheckpointManager(tmp_path, sampler("v1")).restore()["step"] == 1
    with pytest.raises(
        errors.RecordMismatchError, match=r"dataset\.fingerprint 'v1', .* 'v2'"
    ) as refused:
        CheckpointManager(tmp_path, sampler("v2")).restore()
    assert refused.value.field == "dataset.fingerprint"


def test_what_is_not_known_of_a_source_is_said(files, tmp_path, caplog):
    """Also where other sources are known."""
    for number, (dataset, word) in enumerate(
        [
            (MapDataset([1, 2]), "of the list in this MapDataset only the length is known"),
            (MapDataset(files, [1]), "of the list in this MapDataset only the length is known"),
            (MapDataset(files, [1], fingerprint="v1"), None),
        ]
    ):
        caplog.clear()
        CheckpointManager(tmp_path / str(number), ResumableDistributedSampler(dataset, 1, 0)).save(
            1
        )
        said = [
            record.getMessage() for record in caplog.records if "is known" in record.getMessage()
        ]
        assert [word] * (word is not None) == [
            text.split(": ")[1].split(", so")[0] for text in said
        ]


def test_chunks_of_the_sources_are_known_to_an_order(files):
    """``ChunkShuffle`` over one source, over several, and beside a fingerprint."""
    chunked = MapDataset(files, Subset(files, range(8)))
    for dataset in (MapDataset(files), chunked, MapDataset(files, fingerprint="v1")):
        order = orders.ChunkShuffle(window=2)
        ids = list(ResumableDistributedSampler(dataset, 1, 0, order=order))
        assert sorted(ids) == list(range(len(dataset)))


def test_files_appended_to_the_only_source_are_recognised(tmp_path):
    """A record goes on, as over the files themselves."""
    for name in "ab":
        zarr.create_array(tmp_path / f"{name}.zarr", data=np.arange(4.0), chunks=(4,))
    one = MapDataset(FileCacheDataset(GlobalIndexManager([tmp_path / "a.zarr"])))
    both = MapDataset(
        FileCacheDataset(GlobalIndexManager([tmp_path / "a.zarr", tmp_path / "b.zarr"]))
    )
    sampler = ResumableDistributedSampler(one, 1, 0)
    drawn = list(sampler)[:3]
    sampler.commit(3)
    resumed = ResumableDistributedSampler(both, 1, 0)
    resumed.load_state_dict(sampler.state_dict())
    assert sorted(drawn + list(resumed)) == [0, 1, 2, 3]
    resumed.commit(1)
    assert sorted(resumed) == list(range(8))


class Loses(FileCacheDataset):
    """Sample 3 is read as sample 4."""

    may_substitute = True

    def __getitems__(self, ids):
        from globidx.torch.loops.quarantine import SubstitutedSamples

        read = super().__getitems__([4 if id == 3 else id for id in ids])
        places = tuple(place for place, id in enumerate(ids) if id == 3)
        return SubstitutedSamples(read, places) if places else read


@pytest.mark.parametrize("seeded", [False, True])
@pytest.mark.parametrize("wrap", [lambda *all: all, lambda *all: [ConcatDataset(all)]])
def test_samples_that_a_source_replaced_are_in_quarantine(tmp_path, caplog, wrap, seeded):
    """By the ids of the whole: a ``ConcatDataset`` cannot say so, and is warned of where it is not read by its parts."""
    zarr.create_array(tmp_path / "a.zarr", data=np.arange(6.0), chunks=(4,))
    sources = wrap([0.0] * 7, Loses(GlobalIndexManager(tmp_path / "a.zarr")))
    dataset = MapDataset(*sources, seed_transforms=seeded)
    assert dataset.may_substitute
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=SEED)
    assert sum(len(batch) for batch in DataLoader(dataset, 4, sampler=sampler)) == 13
    assert sampler.quarantined.pairs == ((10, 11),)
    assert "not listed" not in caplog.text


def test_bad_sources_are_refused_by_a_sentence():
    """What they lack, and what to pass."""

    class Stream(IterableDataset):
        def __iter__(self):
            return iter([1])

    with pytest.raises(TypeError, match="MapDataset has no source: pass one object"):
        MapDataset()
    with pytest.raises(TypeError, match="Stream has no __len__; an IterableDataset"):
        MapDataset([1], Stream())
    with pytest.raises(TypeError, match="set has no __getitem__; pass an object"):
        MapDataset({1, 2})
    with pytest.raises(TypeError, match="this dict has the keys 'train': choose one"):
        MapDataset({"train": [1]})
    with pytest.raises(TypeError, match="of this MapDataset is of type int"):
        MapDataset([1], fingerprint=5)
    with pytest.raises(ValueError, match="of this MapDataset has 0 characters"):
        MapDataset([1], fingerprint="")
    with pytest.raises(TypeError, match="transform must be callable"):
        MapDataset([1], transform="flip")


def test_an_id_outside_is_refused_alone_and_in_a_batch():
    """A list would count negative ids from its end."""
    dataset = MapDataset([1], [2])
    for read in (lambda: dataset[-1], lambda: dataset.__getitems__([0, -1]), lambda: dataset[2]):
        with pytest.raises(IndexError, match="is outside"):
            read()


def test_its_words_are_its_sources(files):
    """For a log."""
    assert repr(MapDataset(files, [1, 2])) == "MapDataset(22 samples of FileCacheDataset, list)"
