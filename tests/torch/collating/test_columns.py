"""Columns: the batch that a list of samples is already, to the bit what stacking its samples gives."""

from __future__ import annotations

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from files import write_hdf5, write_zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch.utils.data import default_collate
from window_worlds import FORMATS, KINDS, make

from globidx import (
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
    collate,
)
from globidx.core.reading import arrays
from globidx.torch.collating.columns import ColumnedSamples

LENGTHS = (5, 7, 6)
TOTAL = sum(LENGTHS)


def data():
    """The oracle: all items of each field, as numpy has them."""
    rng = np.random.default_rng(7)
    return {
        "obs/image": rng.integers(0, 2**16, (TOTAL, 4, 3), "u2"),
        "obs/state": rng.random((TOTAL, 2)),
        "label": rng.integers(1, 99, TOTAL, "i4"),
        "good": rng.random((TOTAL, 3)) < [0.5, 0.5, 2],
    }


@pytest.fixture(scope="module")
def manager(tmp_path_factory):
    """Three files: HDF5 contiguous and chunked, and zarr, where items of one field are a chunk each."""
    folder, start = tmp_path_factory.mktemp("columns"), 0
    for number, length in enumerate(LENGTHS):
        part = {name: items[start : start + length] for name, items in data().items()}
        start += length
        if number < 2:
            write_hdf5(folder / f"{number}.h5", part, chunk=(None, 3)[number])
        else:
            write_zarr(folder / f"{number}.zarr", part, chunk=1)
    key = {name: name for name in data()}
    return GlobalIndexManager(folder, key=key, cache_dir=folder / "cache")


def require_same(batch, expected):
    """The same types, keys in sequence, dtypes, shapes, strides and bits; and memory that may be written to."""
    assert type(batch) is type(expected)
    if isinstance(batch, dict):
        assert list(batch) == list(expected)
        for key, part in batch.items():
            require_same(part, expected[key])
    elif isinstance(batch, list):
        assert len(batch) == len(expected)
        for part, other in zip(batch, expected, strict=True):
            require_same(part, other)
    elif isinstance(batch, torch.Tensor):
        assert (batch.dtype, batch.shape, batch.stride()) == (
            expected.dtype,
            expected.shape,
            expected.stride(),
        )
        assert batch.is_contiguous() and not batch.requires_grad
        bits, others = (one.numpy().tobytes() for one in (batch, expected))
        assert bits == others
        batch.fill_(1)
    else:
        assert batch == expected


def tensors(batch):
    """All tensors of a batch."""
    if isinstance(batch, torch.Tensor):
        return [batch]
    if isinstance(batch, dict):
        batch = list(batch.values())
    parts = batch if isinstance(batch, (list, tuple)) else []
    return [tensor for part in parts for tensor in tensors(part)]


def nested(items):
    """One value for each name, in dicts as names say."""
    sample = {}
    for name, value in items.items():
        *groups, key = name.split("/")
        within = sample
        for group in groups:
            within = within.setdefault(group, {})
        within[key] = value
    return sample


IDS = st.lists(st.integers(0, TOTAL - 1), min_size=1, max_size=12)


@settings(max_examples=60)
@given(
    ids=IDS | st.permutations(range(TOTAL)) | st.sampled_from([list(range(TOTAL))]),
    fields=st.lists(st.sampled_from(list(data())), unique=True, min_size=1),
    with_id=st.booleans(),
    cache_bytes=st.sampled_from([0, 100, 2**20]),
    select=st.booleans(),
)
@example([3, 3, 0], ["label"], True, 0, False)
def test_columns_are_the_stack_of_numpys_items(manager, ids, fields, with_id, cache_bytes, select):
    """Any ids with repeats in any sequence, any fields: torch's collate of numpy's own items, to the bit."""
    select = {"obs/image": {2: [2, 0]}} if select and "obs/image" in fields else {}
    dataset = FileCacheDataset(
        manager,
        fields=fields,
        with_id=with_id,
        cache_bytes=cache_bytes,
        select=_alone(select, fields),
    )
    known = {
        name: items[:, :, [2, 0]] if name in select else items for name, items in data().items()
    }
    values = [{name: torch.from_numpy(known[name][[id]])[0] for name in fields} for id in ids]
    samples = [nested(one) if len(fields) > 1 else next(iter(one.values())) for one in values]
    expected = default_collate(list(zip(samples, ids, strict=True)) if with_id else samples)
    for _ in range(2):
        read = dataset.__getitems__(ids)
        # each one's memory, where it is one block a field
        places = {one.data_ptr() for one in tensors([list.__getitem__(read, 0)])}
        batch = collate.default(read)
        taken = tensors(batch)[: len(fields)]
        assert {one.data_ptr() for one in taken} <= places
        require_same(batch, expected)
        expected = default_collate(list(zip(samples, ids, strict=True)) if with_id else samples)
    dataset.close()


def _alone(select, fields):
    if not select:
        return None
    return select if len(fields) > 1 else select["obs/image"]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=4)
@given(seed=st.integers(0, 2**32 - 1))
def test_columns_of_windows_are_the_stack_of_samples_read_one_by_one(
    tmp_path_factory, kind, form, seed
):
    """Windows that overlap, pads, masks, constants and whole sequences: the same batch, or the same error."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("world")
    world = make(rng, folder / "data", kind, form)
    if not world.samples():
        return
    manager = GlobalIndexManager(world.files, cache_dir=folder / "cache", **world.options)
    dataset = FileCacheDataset(
        manager, with_id=bool(rng.integers(2)), cache_bytes=[0, 600, 2**20][rng.integers(3)]
    )
    total = len(dataset)
    for number in range(3):
        ids = rng.permutation(total)[:9] if number else rng.integers(0, total, 5)
        samples = [dataset[id] for id in ids.tolist()]
        expected, batch = (outcome(some) for some in (samples, dataset.__getitems__(ids)))
        require_same(batch, expected)
    dataset.close()


def test_columns_without_elements_have_the_strides_of_a_stack(tmp_path):
    """Those of numpy are zeros, by which ``view`` would be refused."""
    write_hdf5(tmp_path / "a.h5", np.zeros((4, 0, 3), "u2"))
    samples = FileCacheDataset(GlobalIndexManager(tmp_path)).__getitems__([2, 0])
    require_same(
        collate.default(samples), default_collate([torch.zeros(0, 3).to(torch.uint16)] * 2)
    )


def outcome(samples):
    """Their batch, or what is said of why there is none."""
    try:
        return collate.default(samples)
    except (ValueError, RuntimeError) as error:
        return repr(error)


LOOKS = {
    "iterate": lambda samples: [sample.clone() for sample in samples],
    "index": lambda samples: samples[1].unsqueeze_(0).squeeze_(0),
    "add": lambda samples: samples + [],  # noqa: RUF005 - it is this method that is tried
    "copy": lambda samples: samples.copy(),
    "compare": lambda samples: samples.index(samples[0]),
    "repeat": lambda samples: 2 * samples,
    "reverse": lambda samples: samples.reverse(),
    "shuffle": lambda samples: random.Random(1).shuffle(samples),
    "sort": lambda samples: samples.sort(key=lambda sample: -int(sample.sum())),
    "append": lambda samples: samples.append(samples[0]),
    "extend": lambda samples: samples.extend([torch.zeros(2).double()]),
    "insert": lambda samples: samples.insert(0, torch.zeros(2).double()),
    "grow": lambda samples: samples.__iadd__([torch.zeros(2).double()]),
    "pop": lambda samples: samples.pop(),
    "delete": lambda samples: samples.__delitem__(0),
    "set": lambda samples: samples.__setitem__(0, torch.ones(2).double()),
    "set a slice": lambda samples: samples.__setitem__(slice(0, 2), []),
    "in place": lambda samples: [sample.mul_(2) for sample in samples],
}


@pytest.mark.parametrize("look", LOOKS)
def test_a_list_that_was_looked_into_is_collated_as_it_is_now(manager, look):
    """Whatever a collate function does with the list before, the batch is that of its samples, and shares no memory."""
    dataset = FileCacheDataset(manager, fields="obs/state")
    samples = dataset.__getitems__([4, 1, 9])
    LOOKS[look](samples)
    now = [samples[index] for index in range(len(samples))]
    batch = collate.default(samples)
    require_same(batch.clone(), default_collate(now))
    assert batch.data_ptr() not in {sample.data_ptr() for sample in now}


def test_every_method_of_a_list_is_known_to_look_or_not():
    """A new Python's list may have a method more: it forgets the columns unless it is known to be harmless."""
    harmless = {
        "__init__",
        "__getattribute__",
        "__len__",
        "__class_getitem__",
        "__sizeof__",
        "__new__",
    }
    own = {name for name, method in vars(list).items() if callable(method)}
    assert own - harmless == own & vars(ColumnedSamples).keys() - {"__init__"}


def test_a_dict_that_a_collate_function_changed_is_collated_as_it_is_now(manager):
    """The usual one: it converts a field of each sample, and calls the default."""
    dataset = FileCacheDataset(manager, fields=["label", "good"])
    samples = dataset.__getitems__([2, 0])
    for sample in samples:
        sample["label"] = sample["label"].float() / 2
        del sample["good"]
    batch = collate.default(samples)
    assert batch.keys() == {"label"}
    assert batch["label"].tolist() == (data()["label"][[2, 0]] / 2).tolist()


def test_columns_are_given_once(manager):
    """A second batch of the same list is of its own memory."""
    samples = FileCacheDataset(manager, fields="obs/state").__getitems__([1, 2])
    first, second = collate.default(samples), collate.default(samples)
    assert torch.equal(first, second) and first.data_ptr() != second.data_ptr()


@pytest.mark.parametrize("look", [list, collate.default, lambda samples: samples[:]])
def test_a_list_that_is_kept_has_its_samples_whatever_a_loop_did_with_the_batch(manager, look):
    """A dataset that caches what it was given, list by list, and a loop that scales its batch in place."""
    ids = [4, 1, 9]
    samples = FileCacheDataset(manager, fields="obs/state").__getitems__(ids)
    collate.default(samples).zero_()
    for _ in range(2):
        assert np.array_equal(np.stack(list(look(samples))), data()["obs/state"][ids])
        collate.default(samples).zero_()


def test_an_epoch_of_batches_reads_each_once(manager):
    """Nobody of ours looks into a list whose columns were taken."""
    dataset = FileCacheDataset(manager)
    sampler = ResumableDistributedSampler(dataset, 1, 0)
    assert sum(len(batch["label"]) for batch in DataLoader(dataset, 3, sampler=sampler)) == TOTAL
    expected = sum(items.nbytes for items in data().values())
    assert dataset.counters().bytes_useful == expected


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))]
)
def test_a_copy_is_a_plain_list(manager, copied):
    """What leaves the process, or is kept, has no columns."""
    samples = FileCacheDataset(manager, fields="label").__getitems__([3, 4])
    assert type(samples) is ColumnedSamples
    other = copied(samples)
    assert type(other) is list
    assert [one.item() for one in other] == data()["label"][[3, 4]].tolist()


def test_samples_of_a_batch_do_not_overlap(manager):
    """Each may be written to, also where an id came twice, and the columns see what was written."""
    dataset = FileCacheDataset(manager, fields=["obs/image", "label"])
    samples = dataset.__getitems__([8, 8, 2])
    for number, sample in enumerate(samples):
        sample["obs"]["image"].fill_(number)
        sample["label"].fill_(number)
    assert [one["obs"]["image"].unique().tolist() for one in samples] == [[0], [1], [2]]
    assert [int(one["label"]) for one in samples] == [0, 1, 2]


@pytest.mark.parametrize(
    "options",
    [{"transform": dict}, {"on_error": "substitute"}],
    ids=["transform", "substitute"],
)
def test_what_is_made_sample_by_sample_has_no_columns(manager, options):
    """The samples of a transform are not those that were read; where some may be replaced, all are stacked."""
    samples = FileCacheDataset(manager, fields=["label", "good"], **options).__getitems__([0, 1])
    assert type(samples) is list


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_of_a_loader_are_numpys(manager, num_workers):
    """Through torch's machinery, here and in a worker."""
    loader = DataLoader(
        FileCacheDataset(manager, with_id=True), batch_size=4, num_workers=num_workers
    )
    ids, images = [], []
    for batch, some in loader:
        ids += some.tolist()
        images.append(batch["obs"]["image"])
    assert ids == list(range(TOTAL))
    assert torch.equal(torch.cat(images), torch.from_numpy(data()["obs/image"]))


def test_a_batch_is_made_where_its_reader_says(manager):
    """One array a field, in the sequence of the ids, and nothing else, is asked of the allocator."""
    made = []

    def allocate(shape, dtype):
        made.append(np.empty(shape, dtype))
        return made[-1]

    dataset = FileCacheDataset(manager, fields=["obs/image", "label"])
    for ids in ([9, 2, 16], [2, 2, 0]):
        made.clear()
        with arrays.made_by(allocate):
            batch = collate.default(dataset.__getitems__(ids))
        assert [one.__array_interface__["data"][0] for one in made] == [
            one.data_ptr() for one in tensors(batch)
        ]
        assert np.array_equal(made[0], data()["obs/image"][ids])
