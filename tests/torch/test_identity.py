"""Identity of datasets that are made of others: ids that mean other samples are never taken for the same ones."""

import shutil

import derived
import pytest
import torch
from files import numbers, write_hdf5
from hypothesis import given
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset, random_split

import globidx
from globidx import (
    CheckpointManager,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    errors,
    orders,
)
from globidx.core.datasets.identity import DatasetIdentity, IdentifiedDataset


class Files(derived.Files, Dataset):
    """As in tests without torch."""


def through_torch(dataset):
    """The same construction of torch's own classes."""
    if isinstance(dataset, derived.Picked):
        return Subset(through_torch(dataset.dataset), dataset.indices)
    if isinstance(dataset, derived.Joined):
        return ConcatDataset([through_torch(part) for part in dataset.datasets])
    return Files(dataset.name, dataset.lengths)


@given(derived.TREES)
def test_torchs_own_classes_are_known_by_what_they_hold(dataset):
    """The laws of tests/core/datasets hold for them, too."""
    made = through_torch(dataset)
    assert [made[id] for id in range(len(made))] == derived.samples(dataset)
    assert DatasetIdentity.of(made) == DatasetIdentity.of(dataset)


def test_a_selection_by_a_tensor_is_the_one_by_a_list():
    """torch's users make indices so."""
    inner = Files("a", [5])
    assert DatasetIdentity.of(Subset(inner, torch.tensor([2, 0, 1]))) == DatasetIdentity.of(
        Subset(inner, [2, 0, 1])
    )


@pytest.fixture
def dataset(tmp_path):
    """59 samples in three HDF5 files, in chunks of 4."""
    for name, start, length in (("a", 0, 20), ("b", 20, 17), ("c", 37, 22)):
        write_hdf5(tmp_path / f"{name}.h5", numbers(length, (), start=start), chunk=4)
    return FileCacheDataset(GlobalIndexManager(tmp_path, key="x", cache_dir=tmp_path / "cache"))


def half_way(dataset, folder):
    """A record after 4 of this dataset's batches, and what was trained."""
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    trained = []
    for batch in globidx.DataLoader(dataset, batch_size=4, sampler=sampler):
        trained += batch.tolist()
        if len(trained) == 16:
            CheckpointManager(folder, sampler).save(4)
            break
    return trained


def test_a_split_of_another_seed_is_refused_and_says_what_to_do(dataset, tmp_path):
    """An unseeded random_split would train some samples twice and others never."""
    split = [
        random_split(dataset, [40, 19], torch.Generator().manual_seed(seed))[0]
        for seed in (0, 0, 1)
    ]
    trained = half_way(split[0], tmp_path / "run")
    again = ResumableDistributedSampler(split[1], 1, 0)
    assert CheckpointManager(tmp_path / "run", again).restore() is not None
    rest = [int(dataset[split[1].indices[id]]) for id in again]
    assert sorted(trained + rest) == sorted(int(dataset[id]) for id in split[0].indices)
    with pytest.raises(
        errors.RecordMismatchError, match=r"dataset\.fingerprint .*random_split.*manual_seed"
    ):
        CheckpointManager(tmp_path / "run", ResumableDistributedSampler(split[2], 1, 0)).restore()


def test_files_appended_behind_a_selection_change_nothing(dataset, tmp_path):
    """A real index, refreshed in mid-epoch: the selected samples are the same, and so is their record."""
    subset = Subset(dataset, list(range(3, 50)))
    sampler = ResumableDistributedSampler(subset, 1, 0, order=orders.ChunkShuffle(window=2))
    drawn = list(sampler)[:20]
    sampler.commit(20)
    shutil.copy(tmp_path / "a.h5", tmp_path / "d.h5")
    dataset.index_manager.refresh()
    resumed = ResumableDistributedSampler(subset, 1, 0, order=orders.ChunkShuffle(window=2))
    resumed.load_state_dict(sampler.state_dict())
    assert sorted(drawn + list(resumed)) == list(range(47))


class Forwarding(Dataset):
    """A wrapper that passes on what it wraps tells of itself."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, id):
        return self.inner[id]

    @property
    def fingerprint(self):
        return DatasetIdentity.of(self.inner).fingerprint

    @property
    def chunking(self):
        return self.inner.chunking


@pytest.mark.parametrize(
    "wrap",
    [
        Forwarding,
        lambda d: Subset(d, list(range(len(d)))),
        lambda d: Subset(d, [id for id in range(len(d)) if id % 5]),
        lambda d: ConcatDataset([d, d]),
        lambda d: ConcatDataset([Subset(d, range(10, 33)), Forwarding(d)]),
        lambda d: Subset(ConcatDataset([d, d]), list(range(30, 80))),
    ],
    ids=["wrapper", "all", "most", "twice", "mixed", "nested"],
)
def test_wrapped_chunks_are_decoded_about_once(dataset, wrap):
    """ChunkShuffle over wrappers, selections and concatenations: counted in the reader, whose cache holds two chunks."""
    small = FileCacheDataset(dataset.index_manager, cache_bytes=4 * 4 * 2)
    wrapped = wrap(small)
    sampler = ResumableDistributedSampler(wrapped, 1, 0, order=orders.ChunkShuffle(window=2))
    ids = [
        id
        for batch in globidx.DataLoader(range(len(wrapped)), batch_size=4, sampler=sampler)
        for id in batch.tolist()
    ]
    assert sorted(ids) == list(range(len(wrapped)))
    for id in ids:
        wrapped[id]
    once = len(wrapped) // 4 + 8
    assert small.counters().decodes < 1.5 * once


def test_a_shuffled_selection_has_no_chunks_and_says_so(dataset):
    """What random_split makes: samples of a chunk are scattered, and sorting them is the cure."""
    scattered = Subset(
        dataset, torch.randperm(59, generator=torch.Generator().manual_seed(0)).tolist()
    )
    with pytest.raises(TypeError, match=r"next to each other; sort its indices"):
        ResumableDistributedSampler(scattered, 1, 0, order=orders.ChunkShuffle())
    with pytest.raises(TypeError, match="list has no `chunking`"):
        ResumableDistributedSampler(Subset([1, 2], [0]), 1, 0, order=orders.ChunkShuffle())
    ResumableDistributedSampler(
        Subset(dataset, sorted(scattered.indices)), 1, 0, order=orders.ChunkShuffle()
    )


def test_a_hugging_face_dataset_is_known_by_its_own_fingerprint():
    """Its ``_fingerprint`` changes with every shuffle, selection and map."""
    one, other = (
        type("HF", (), {"_fingerprint": word, "__len__": lambda self: 3})()
        for word in ("5f1b", "c07a")
    )
    record = ResumableDistributedSampler(one, 1, 0).state_dict()
    assert record["dataset"]["fingerprint"] == "5f1b"
    with pytest.raises(errors.RecordMismatchError, match="with a fixed seed"):
        ResumableDistributedSampler(other, 1, 0).load_state_dict(record)


def test_the_protocol_is_met_by_our_dataset_and_gives_defaults(dataset):
    """A class that inherits needs a length and a fingerprint."""

    class Own(IdentifiedDataset, Dataset):
        fingerprint = "v1"

        def __len__(self):
            return 4

    own = Own()
    assert (own.num_files, own.chunking, own.fingerprint_of(2)) == (None, None, None)
    assert DatasetIdentity.of(own) == DatasetIdentity(4, None, "v1")
    members = [name for name in vars(IdentifiedDataset) if name[0] != "_"]
    assert all(getattr(dataset, name) is not None for name in members)
    assert globidx.IdentifiedDataset is IdentifiedDataset


def said(caplog):
    return [record.getMessage() for record in caplog.records if "is known" in record.getMessage()]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (
            lambda d: TensorDataset(torch.arange(6)),
            "of this TensorDataset only its length (6) is known",
        ),
        (
            lambda d: Subset([1, 2, 3], [0, 2]),
            "of the list in this Subset only the length is known",
        ),
        (
            lambda d: ConcatDataset([d, [1, 2]]),
            "of the list in this ConcatDataset only the length is known",
        ),
        (lambda d: d, None),
        (lambda d: Subset(d, [1, 2]), None),
        (lambda d: range(5), None),
    ],
    ids=["tensors", "selection", "concatenation", "files", "known selection", "range"],
)
def test_what_is_not_known_is_said_once_by_save_and_by_restore(
    dataset, tmp_path, caplog, make, word
):
    """Each manager says once that a length is all it compares, at its first save or restore of a record."""
    data = make(dataset)
    manager = CheckpointManager(tmp_path / "run", ResumableDistributedSampler(data, 1, 0))
    assert manager.restore() is None
    assert said(caplog) == []
    manager.save(1)
    manager.save(2)
    assert len(said(caplog)) == (word is not None)
    caplog.clear()
    CheckpointManager(tmp_path / "run", ResumableDistributedSampler(data, 1, 0)).restore()
    assert len(said(caplog)) == (word is not None)
    assert word is None or word in said(caplog)[0]
