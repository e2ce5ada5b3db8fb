"""Identity of datasets that are made of others: ids that mean other samples are never taken for the same ones."""

import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from files import numbers, write_hdf5
from hypothesis import given
from hypothesis import strategies as st
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
from globidx.core.index.chunking import Chunking


class Files(Dataset):
    """Samples (name, file, item); it tells of its files by naming them."""

    def __init__(self, name, lengths, chunk=4):
        self.name, self.lengths, self.chunk = name, tuple(lengths), chunk

    def __len__(self):
        return sum(self.lengths)

    def __getitem__(self, id):
        return [
            (self.name, file, item)
            for file, length in enumerate(self.lengths)
            for item in range(length)
        ][id]

    @property
    def num_files(self):
        return len(self.lengths)

    @property
    def fingerprint(self):
        return self.fingerprint_of(self.num_files)

    def fingerprint_of(self, count):
        return f"{self.name}{self.lengths[:count]}"

    @property
    def chunking(self):
        return Chunking.of(self.lengths, [self.chunk] * len(self.lengths))


LEAVES = st.builds(
    Files, st.sampled_from("ab"), st.lists(st.integers(0, 5), min_size=1, max_size=3)
)


def of_others(inner):
    """Subsets and concatenations of what ``inner`` draws."""
    picked = inner.flatmap(
        lambda d: st.lists(st.integers(0, max(0, len(d) - 1)), max_size=6 if len(d) else 0).map(
            lambda ids: Subset(d, ids)
        )
    )
    return picked | st.lists(inner, min_size=1, max_size=3).map(ConcatDataset)


TREES = st.recursive(LEAVES, of_others, max_leaves=4)


def samples(dataset):
    """What the ids mean, one after another."""
    return [dataset[id] for id in range(len(dataset))]


def grown(dataset, more):
    """The same construction after files were appended to each leaf."""
    if isinstance(dataset, Subset):
        return Subset(grown(dataset.dataset, more), dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return ConcatDataset([grown(part, more) for part in dataset.datasets])
    return Files(dataset.name, dataset.lengths + more)


@given(TREES, TREES)
def test_equal_identities_mean_equal_samples(one, other):
    """And the same construction in another process is the same dataset."""
    if DatasetIdentity.of(one) == DatasetIdentity.of(other):
        assert samples(one) == samples(other)
    assert DatasetIdentity.of(pickle.loads(pickle.dumps(one))) == DatasetIdentity.of(one)


@given(TREES, st.lists(st.integers(1, 3), min_size=1, max_size=2))
def test_appended_files_are_growth_exactly_where_no_id_moves(before, more):
    """A selection does not notice them, a concatenation grows at its end alone."""
    after = grown(before, tuple(more))
    keeps_ids = samples(after)[: len(before)] == samples(before)
    assert DatasetIdentity.of(before).begins(after) == keeps_ids or not len(before)


@given(TREES, TREES)
def test_a_longer_selection_begins_with_the_shorter(dataset, other):
    """``Subset(d, ids)`` may grow at its end, and be nothing else."""
    ids = list(range(len(dataset)))
    assert (
        DatasetIdentity.of(Subset(dataset, ids[: len(ids) // 2])).begins(Subset(dataset, ids))
        or len(ids) < 2
    )
    known = DatasetIdentity.of(dataset)
    if known.begins(other):
        assert samples(other)[: len(dataset)] == samples(dataset)


@pytest.mark.parametrize(
    "indices", [[2, 0, 1], np.array([2, 0, 1]), torch.tensor([2, 0, 1]), (2, 0, 1)], ids=type
)
def test_a_selection_is_the_same_however_its_ids_are_kept(indices):
    """As list, tuple, array or tensor."""
    inner = Files("a", [5])
    assert DatasetIdentity.of(Subset(inner, indices)) == DatasetIdentity.of(
        Subset(inner, [2, 0, 1])
    )
    assert DatasetIdentity.of(Subset(inner, range(3))) == DatasetIdentity.of(
        Subset(inner, [0, 1, 2])
    )


@pytest.mark.parametrize(
    "other",
    [
        SimpleNamespace(dataset=[1, 2], indices="ab", __len__=None),
        type(
            "Callable",
            (),
            {"dataset": [1, 2], "indices": lambda self: [0], "__len__": lambda self: 1},
        )(),
        type("Sampling", (), {"dataset": [1, 2], "indices": [0.5], "__len__": lambda self: 1})(),
        type("Outside", (), {"dataset": [1, 2], "indices": [7], "__len__": lambda self: 1})(),
        type("Stacked", (), {"datasets": ([1], [2]), "__len__": lambda self: 1})(),
    ],
    ids=["length", "method", "fractions", "outside", "stacked"],
)
def test_what_only_looks_like_one_is_known_by_its_length(other):
    """Attributes of the same names that mean something else."""
    if isinstance(other, SimpleNamespace):
        with pytest.raises(TypeError, match="has no __len__"):
            DatasetIdentity.of(other)
    else:
        assert DatasetIdentity.of(other) == DatasetIdentity(1)


class Read(list):
    """A list that counts how often it is read through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_ids_are_read_once_and_not_at_every_look():
    """Ten million ids may be looked at between any two steps; what is put in their place is read anew."""
    subset = Subset(Files("a", [50] * 40), Read(range(2000)))
    sampler = ResumableDistributedSampler(subset, 1, 0, order=orders.ChunkShuffle())
    for _ in range(3):
        next(iter(sampler)), sampler.state_dict(), sampler.remaining, len(sampler)
    assert subset.indices.times == 2  # for the fingerprint, and for the chunks
    before = DatasetIdentity.of(subset)
    subset.indices = subset.indices[::-1]
    assert DatasetIdentity.of(subset) != before
    subset.indices.reverse()
    assert DatasetIdentity.of(subset) == before


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


@pytest.mark.parametrize("word", ["", "x" * 257])
def test_a_fingerprint_that_no_record_takes_is_refused_at_once(word):
    """Rather than written and never read again."""
    with pytest.raises(ValueError, match="digest"):
        ResumableDistributedSampler(
            type("D", (), {"fingerprint": word, "__len__": lambda self: 3})(), 1, 0
        )


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
