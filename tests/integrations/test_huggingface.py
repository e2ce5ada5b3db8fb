"""Hugging Face's datasets as a source: known by their fingerprints, read by batches, in real processes."""

import json
import re
import shutil
from collections import Counter

import pytest

pytest.importorskip("datasets")

import datasets
import numpy as np
import torch
import zarr
from integrations.jobs import EXAMPLES, lines, run, times_seen
from torch.utils.data import ConcatDataset, Subset

from globidx import (
    CheckpointManager,
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    MapDataset,
    ResumableDistributedSampler,
    errors,
)
from globidx.core.datasets.identity import DatasetIdentity

datasets.disable_progress_bars()
# sort() calls pyarrow in a manner that is deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Specifying null_placement:FutureWarning")
SAMPLES, BATCH, EPOCHS, STOP_AT = 203, 5, 2, 25


def rows(length=20, start=0):
    return datasets.Dataset.from_dict({"x": list(range(start, start + length))})


def fingerprint(dataset):
    return DatasetIdentity.of(dataset).fingerprint


def plus_one(row):
    return {"y": row["x"] + 1}


class Unhashable:
    """A function that dill cannot pickle, as one that holds a connection."""

    def __call__(self, row):
        return {"y": row["x"] + 1}

    def __reduce__(self):
        raise TypeError("it holds a connection")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_a_run_goes_on_on_any_number_of_ranks(saved, tmp_path, ranks):
    """Files and Arrow rows beside each other: each sample of an epoch once, but for padding."""
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    run(ranks, "huggingface_job.py", tmp_path, SAMPLES, BATCH, EPOCHS, 0)
    everything = times_seen(lines(tmp_path))
    assert sorted(everything) == list(range(EPOCHS))
    for epoch, seen in everything.items():
        assert set(seen) == set(range(SAMPLES))
        # padding: epoch 0 was padded for two ranks
        assert seen.total() - SAMPLES < (ranks if epoch else 2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a job on two ranks that was saved in the middle of its second epoch."""
    folder = tmp_path_factory.mktemp("saved")
    zarr.create_array(folder / "files.zarr", data=np.arange(90), chunks=(8,))
    datasets.Dataset.from_dict({"x": list(range(90, SAMPLES))}).save_to_disk(folder / "rows")
    run(2, "huggingface_job.py", folder, SAMPLES, BATCH, EPOCHS, STOP_AT)
    return folder


@pytest.mark.slow
def test_the_example_goes_on_where_it_was_stopped(tmp_path):
    """Two ranks read 40 of 100 samples, three the other 60 and the next epoch."""
    example = EXAMPLES / "resume_huggingface.py"
    assert len(example.read_text().splitlines()) < 80
    assert run(2, example, tmp_path / "run") == "epoch 0: 40 samples\n"
    assert run(3, example, tmp_path / "run") == "epoch 0: 60 samples\nepoch 1: 100 samples\n"


@pytest.mark.parametrize(
    "change",
    [
        lambda one: one.shuffle(seed=1),
        lambda one: one.select(range(19, -1, -1)),
        lambda one: one.sort("x", reverse=True),
        lambda one: one.map(plus_one),
        lambda one: one.with_format("torch"),
        lambda one: one.with_transform(plus_one),
        lambda one: datasets.concatenate_datasets([one.select(range(10)), one.select(range(10))]),
    ],
    ids=["shuffle", "select", "sort", "map", "format", "transform", "concatenate"],
)
def test_every_step_that_makes_a_dataset_is_in_its_fingerprint(change):
    """The same steps make the same one; a record over the dataset before is refused, by the field and with a way out."""
    one, other = rows(), change(rows())
    assert len(other) == len(one)
    assert fingerprint(one) == fingerprint(rows())
    assert fingerprint(other) == fingerprint(change(rows())) != fingerprint(one)
    record = ResumableDistributedSampler(one, 1, 0).state_dict()
    with pytest.raises(errors.RecordMismatchError) as refused:
        ResumableDistributedSampler(other, 1, 0).load_state_dict(record)
    assert refused.value.field == "dataset.fingerprint"
    assert re.search(
        "by the same steps.*set the record's: dataset.fingerprint = ", str(refused.value)
    )


def test_a_fingerprint_that_is_random_has_a_way_out():
    """The library draws one for a function that it cannot hash: another one in every process."""
    first, second = (rows().map(Unhashable()) for _ in range(2))
    assert fingerprint(first) != fingerprint(second)
    sampler = ResumableDistributedSampler(first, 1, 0)
    sampler.commit(5)
    record = sampler.state_dict()
    with pytest.raises(errors.RecordMismatchError, match=r"dataset\.fingerprint"):
        ResumableDistributedSampler(second, 1, 0).load_state_dict(record)
    second.fingerprint = record["dataset"]["fingerprint"]
    resumed = ResumableDistributedSampler(second, 1, 0)
    resumed.load_state_dict(record)
    assert resumed.remaining == 15
    # or from the beginning, the same in every process
    named = MapDataset(rows().map(Unhashable()), fingerprint="rows plus one")
    assert fingerprint(named) == "rows plus one"


def test_a_fingerprint_that_was_set_goes_with_views_and_not_with_other_samples():
    """Which attributes the library's methods copy is its own affair, so that what they do is watched here."""
    one = rows()
    one.fingerprint = "mine"
    for same in (one.with_format("torch"), one.with_transform(plus_one), one.remove_columns([])):
        assert fingerprint(same) == "mine"
    other = (
        one.select([1, 0]),
        one.shuffle(seed=1),
        one.map(plus_one),
        one.sort("x", reverse=True),
    )
    assert "mine" not in {fingerprint(dataset) for dataset in other}


def test_a_saved_dataset_has_its_fingerprint_wherever_it_lies(tmp_path):
    """Files are hashed by path and time of change: ``save_to_disk`` is what travels."""
    dataset = rows().shuffle(seed=1)
    dataset.save_to_disk(tmp_path / "a")
    loaded = datasets.load_from_disk(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "elsewhere")
    again = datasets.load_from_disk(tmp_path / "elsewhere")
    assert fingerprint(loaded) == fingerprint(again)
    found = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "rows.csv").write_text("x\n1\n2\n")
        csv = str(tmp_path / folder / "rows.csv")
        loaded = datasets.load_dataset("csv", data_files=csv, cache_dir=str(tmp_path / "cache"))
        found.append(fingerprint(loaded["train"]))
    assert found[0] != found[1]


def test_splits_and_streams_are_refused_with_what_to_use():
    """The number of splits is no number of samples, and a stream chooses its samples itself."""
    splits = datasets.DatasetDict({"train": rows(), "test": rows(5)})
    with pytest.raises(
        TypeError, match=r"this DatasetDict has the keys 'train', .*dataset\['train'\]"
    ):
        ResumableDistributedSampler(splits, 1, 0)
    stream = rows().to_iterable_dataset()
    with pytest.raises(TypeError, match=r"such as load_dataset\(\.\.\., streaming=False\)"):
        ResumableDistributedSampler(stream, 1, 0)
    streams = datasets.IterableDatasetDict({"train": stream})
    with pytest.raises(TypeError, match=r"this IterableDatasetDict has the keys 'train': choose"):
        ResumableDistributedSampler(streams, 1, 0)
    sampler = ResumableDistributedSampler(rows(), 1, 0)
    with pytest.raises(TypeError, match="an IterableDataset, takes none"):
        DataLoader(stream, 2, sampler=sampler)


def test_selections_and_concatenations_of_them_are_known():
    """By the indices, the sequence of the parts, and what lies below."""
    found = [
        fingerprint(dataset)
        for dataset in (
            rows(),
            Subset(rows(), range(20)),
            Subset(rows(), [1, 0, *range(2, 20)]),
            Subset(rows().shuffle(seed=1), range(20)),
            ConcatDataset([rows(10), rows(10, 10)]),
            ConcatDataset([rows(10, 10), rows(10)]),
            Subset(ConcatDataset([rows(10), rows(10, 10)]), range(20)),
        )
    ]
    assert None not in found and len(set(found)) == len(found)


class Counted(datasets.Dataset):
    """Notes how it was asked."""

    asked: list = []  # noqa: RUF012

    def __getitems__(self, ids):
        self.asked.append(len(ids))
        return super().__getitems__(ids)


@pytest.mark.parametrize("workers", [0, 2])
def test_files_and_rows_are_each_read_by_batches(tmp_path, workers):
    """The samples are those of a ``ConcatDataset``, which asks for one at a time; tensors and workers included."""
    zarr.create_array(tmp_path / "a.zarr", data=np.arange(30), chunks=(4,))
    files = FileCacheDataset(GlobalIndexManager(tmp_path / "a.zarr"), transform=lambda x: {"x": x})
    arrow = rows(20, 30).with_format("torch")
    arrow.__class__, Counted.asked = Counted, []
    dataset = MapDataset(files, arrow)
    sampler = ResumableDistributedSampler(dataset, 1, 0, seed=3)
    loader = DataLoader(dataset, 10, sampler=sampler, num_workers=workers)
    delivered = [row for batch in loader for row in batch["x"].tolist()]
    expected = ConcatDataset([files, arrow])
    ids = list(ResumableDistributedSampler(dataset, 1, 0, seed=3))
    assert delivered == [int(expected[id]["x"]) for id in ids]
    assert Counter(delivered) == Counter(range(50))
    if not workers:
        assert len(Counted.asked) == 5 and sum(Counted.asked) == 20


def test_a_record_is_refused_over_other_rows_and_says_so_once(tmp_path):
    """Through a ``CheckpointManager``, as users keep records; nothing is logged of a dataset that is known."""
    manager = CheckpointManager(tmp_path, ResumableDistributedSampler(rows(), 1, 0))
    manager.save(1)
    stored = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert rows()._fingerprint in json.dumps(stored)
    other = CheckpointManager(tmp_path, ResumableDistributedSampler(rows(20, 5), 1, 0))
    with pytest.raises(errors.RecordMismatchError, match=r"dataset\.fingerprint"):
        other.restore()
    assert torch.is_tensor(rows().with_format("torch")[0]["x"])
