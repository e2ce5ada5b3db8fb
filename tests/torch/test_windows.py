"""Windowed samples against lists: every kind of sequence, in every format, read by id and in batches."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from window_worlds import FORMATS, KINDS, make

from globidx import FileCacheDataset, GlobalIndexManager


def get(sample, name):
    """A field of a nested sample."""
    for part in name.split("/"):
        sample = sample[part]
    return sample


def has(sample, name):
    """Whether a sample has a field, nested or by its whole name."""
    if name in sample:
        return True
    first, _, rest = name.partition("/")
    return bool(rest) and first in sample and has(sample[first], rest)


def require_equal(world, fields, sample, expected):
    """A sample is exactly what its lists of rows say."""
    several = len(fields) > 1 or world.options["window"].mask or world.options.get("constants")
    nested = isinstance(world.options["key"], dict) or world.options["sequences"] == "match"
    for name in fields:
        got = sample if not several else get(sample, name) if nested else sample[name]
        wanted = world.value(expected, name)
        assert got.dtype == torch.from_numpy(wanted).dtype
        np.testing.assert_array_equal(got.numpy(), wanted, err_msg=name)
    window = world.options["window"]
    if window.mask:
        for name in fields:
            mask = sample["mask"]
            if isinstance(window.offsets, dict):
                mask = get(mask, name) if nested else mask[name]
            np.testing.assert_array_equal(mask.numpy(), world.mask(expected, name))
    if isinstance(sample, dict):
        assert all(has(sample, name) == (name in fields) for name in world.fields)
    for name in world.options.get("constants", ()):
        got, wanted = get(sample, name), world.kept[expected[0]].constants[name]
        if isinstance(wanted, (str, list)):
            assert got == wanted
        else:
            np.testing.assert_array_equal(got.numpy(), wanted)


def tensors_of(sample, constants=()):
    if isinstance(sample, dict):
        for name, value in sample.items():
            if not any(one == name or one.startswith(name + "/") for one in constants):
                yield from tensors_of(value)
    elif isinstance(sample, torch.Tensor):
        yield sample


def require_apart(samples, constants):
    """No two tensors of fields share a byte."""
    spans = sorted(
        (tensor.data_ptr(), tensor.data_ptr() + tensor.numel() * tensor.element_size())
        for sample in samples
        for tensor in tensors_of(sample, constants)
        if tensor.numel()
    )
    assert all(stop <= start for (_, stop), (start, _) in zip(spans, spans[1:], strict=False))


def require_same_places(world, manager, expected):
    """where, locate, locate_many, sample_id and sequences say the same as the lists."""
    window, kept = world.options["window"], world.kept
    assert list(manager.sequences.names) == [one.name for one in kept]
    assert manager.sequences.lengths.tolist() == [len(one.rows) for one in kept]
    for one, path in zip(kept, manager.sequences.paths, strict=True):
        assert path == one.path or not one.rows
    files, items = manager.locate_many(np.arange(len(manager)))
    for id, (number, anchor, rows) in enumerate(expected):
        sequence = kept[number]
        where = manager.where(id)
        nearest = sequence.rows[min(max(anchor, 0), len(sequence.rows) - 1)]
        assert (where.sequence, where.anchor) == (number, anchor)
        assert (where.path,) == (world.rows[nearest][0],)
        assert manager.locate(id) == (manager.paths[files[id]], items[id]) == world.rows[nearest]
        assert manager.sample_id(number, anchor) == id
        for name in world.fields:
            told = where.rows[name] if isinstance(window.offsets, dict) else where.rows
            real = [row for row in rows[name] if row is not None]
            if window.pad != "zero" and all(world.rows[row][0] == where.path for row in real):
                assert told.tolist() == [world.rows[row][1] for row in real]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_sample_is_what_a_list_of_windows_says(tmp_path_factory, kind, form, seed):
    """Ids one by one, random batches with repeats, and a pickled copy give the rows of a naive list; nothing is shared."""
    rng = np.random.default_rng(seed)
    folder = tmp_path_factory.mktemp("world")
    world = make(rng, folder / "data", kind, form)
    expected = world.samples()
    if not expected and world.rows and world.sequences:
        with pytest.raises(ValueError, match=r"there is no sample|leaves none of"):
            GlobalIndexManager(world.files, cache_dir=folder / "cache", **world.options)
        return
    manager = GlobalIndexManager(world.files, cache_dir=folder / "cache", **world.options)
    assert len(manager) == len(expected)
    require_same_places(world, manager, expected)
    count = int(rng.integers(1, len(world.fields) + 1))
    fields = rng.permutation(world.fields)[:count].tolist() if rng.random() < 0.5 else world.fields
    dataset = FileCacheDataset(
        manager,
        fields=fields,
        backend=["auto", "auto", "library"][rng.integers(3)],
        cache_bytes=[0, 600, 2**20][rng.integers(3)],
        max_open_files=int(rng.integers(1, 4)),
    )
    assert len(dataset) == len(expected)
    explained = dataset.explain()
    assert all(f"  {name}: " in explained for name in fields)
    constants = tuple(world.options.get("constants", ()))
    for id in rng.permutation(len(expected))[:60].tolist():
        require_equal(world, fields, dataset[id], expected[id])
    copied = (
        pickle.loads(pickle.dumps(dataset)) if not callable(world.options.get("only")) else dataset
    )
    for reader in (dataset, copied):
        for _ in range(3 if expected else 0):
            ids = rng.integers(0, len(expected), int(rng.integers(1, 12))).tolist()
            batch = reader.__getitems__(ids)
            for id, sample in zip(ids, batch, strict=True):
                require_equal(world, fields, sample, expected[id])
            require_apart(batch, constants)
    dataset.close()
    copied.close()
