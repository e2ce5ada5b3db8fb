"""What a sample gets of each kind of array: a tensor, or objects, that are no other sample's."""

from __future__ import annotations

import warnings

import h5py
import numpy as np
import pytest
import torch
import zarr
from files import write_zarr
from torch.utils.data import DataLoader

import globidx
from globidx import FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window
from globidx.core.values import dtypes
from globidx.torch import values

ROWS = 7
INNER = np.dtype([("x", ">f4"), ("cov", "<f8", (2, 2))])
COMPOUND = np.dtype(
    {
        "names": ["id", "vertex", "name", "hits"],
        "formats": ["<u2", INNER, h5py.string_dtype(), h5py.vlen_dtype(np.dtype("i2"))],
        "offsets": [0, 4, 40, 48],
        "itemsize": 64,
    }
)


def fields():
    """By field, a dtype of HDF5's and a value for each row, which no two rows share."""
    compound = np.zeros(ROWS, COMPOUND)
    compound["id"] = np.arange(ROWS) + 1
    compound["vertex"]["x"] = np.arange(ROWS) + 0.5
    compound["vertex"]["cov"] = np.arange(4 * ROWS).reshape(ROWS, 2, 2)
    for row in range(ROWS):
        compound["name"][row] = f"é{row}"
        compound["hits"][row] = np.arange(row + 1, dtype="i2")
    ragged = np.empty(ROWS, object)
    ragged[:] = [np.arange(row + 1, dtype="f4") for row in range(ROWS)]
    return {
        "number": (None, np.arange(3 * ROWS, dtype=">i4").reshape(ROWS, 3) + 1),
        "time": (
            h5py.opaque_dtype(np.dtype("M8[h]")),
            np.arange(1, ROWS + 1).astype("M8[h]").astype(h5py.opaque_dtype(np.dtype("M8[h]"))),
        ),
        "word": (h5py.string_dtype(), np.array([f"wörd {row}" for row in range(ROWS)], object)),
        "raw": (None, np.array([b"\xff%d" % row for row in range(ROWS)])),
        "ragged": (h5py.vlen_dtype(np.dtype("f4")), ragged),
        "event": (COMPOUND, compound),
    }


def expected(name, row):
    """The value of a field by the stupidest means; None for a row that is not there."""
    there = row is not None
    row = row if there else 0
    if name == "number":
        return torch.arange(3 * row + 1, 3 * row + 4, dtype=torch.int32) * there
    if name == "time":
        return torch.tensor((row + 1) * there)
    if name == "word":
        return f"wörd {row}" if there else ""
    if name == "raw":
        return b"\xff%d" % row if there else b""
    if name == "ragged":
        return torch.arange(row + 1.0) if there else torch.empty(0)
    return {
        "id": torch.tensor((row + 1) * there, dtype=torch.uint16),
        "vertex": {
            "x": torch.tensor((row + 0.5) * there, dtype=torch.float32),
            "cov": torch.arange(4.0 * row, 4.0 * row + 4, dtype=torch.float64).reshape(2, 2)
            * there,
        },
        "name": f"é{row}" if there else "",
        "hits": torch.arange((row + 1) * there, dtype=torch.int16),
    }


def stacked(name, rows):
    """The value of a field in a window: a tensor of several, or a list."""
    parts = [expected(name, row) for row in rows]
    if isinstance(parts[0], dict):
        return {
            key: together([part[key] for part in parts], is_list=key in ("name", "hits"))
            for key in parts[0]
        }
    return together(parts, is_list=name in ("word", "raw", "ragged"))


def together(parts, *, is_list):
    if isinstance(parts[0], dict):
        return {key: together([part[key] for part in parts], is_list=False) for key in parts[0]}
    return parts if is_list else torch.stack(parts)


def same(given, wanted):
    if isinstance(wanted, dict):
        return list(given) == list(wanted) and all(same(given[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return len(given) == len(wanted) and all(map(same, given, wanted))
    if isinstance(wanted, torch.Tensor):
        return given.dtype == wanted.dtype and torch.equal(given, wanted)
    return type(given) is type(wanted) and given == wanted


@pytest.fixture(params=["contiguous", "chunked"])
def path(request, tmp_path):
    """All kinds in one file."""
    options = {"chunks": (3,), "compression": "gzip"} if request.param == "chunked" else {}
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, (dtype, stored) in fields().items():
            chunks = {"chunks": (3, *stored.shape[1:])} if options else {}
            file.create_dataset(
                name, data=stored, dtype=dtype or stored.dtype, **(options | chunks)
            )
    return tmp_path / "a.h5"


NAMES = list(fields())


def test_each_kind_is_given_as_what_it_is(path):
    """In a dict with the others, and alone."""
    dataset = FileCacheDataset(GlobalIndexManager(path, key=NAMES))
    for id, sample in zip([4, 0, 4], dataset.__getitems__([4, 0, 4]), strict=True):
        for name in NAMES:
            assert same(sample[name], expected(name, id)), name
    for name in NAMES:
        alone = FileCacheDataset(GlobalIndexManager(path, key=name))
        assert same(alone[2], expected(name, 2)), name


def test_dtypes_tell_the_unit_of_times(path):
    """And whatever else a tensor does not say."""
    dataset = FileCacheDataset(GlobalIndexManager(path, key=NAMES))
    assert dataset.dtypes["time"] == "datetime64[h]" and dataset.dtypes["number"] == "int32"
    assert dataset.dtypes["word"] == "text" and dataset.dtypes["ragged"] == "ragged float32"


def test_members_are_picked_and_read_alone(path):
    """By their names in the key; the compound array is read once for all of them."""
    manager = GlobalIndexManager(path, key="event/{id,vertex/cov,name}")
    dataset = FileCacheDataset(manager)
    whole = expected("event", 3)
    wanted = {
        "event/id": whole["id"],
        "event/vertex/cov": whole["vertex"]["cov"],
        "event/name": whole["name"],
    }
    assert same(dataset[3], wanted)
    renamed = GlobalIndexManager(path, key={"truth/pos": "event/vertex", "n": "event/id"})
    assert same(FileCacheDataset(renamed)[3], {"truth": {"pos": whole["vertex"]}, "n": whole["id"]})


@pytest.mark.parametrize("pad", ["edge", "zero"])
def test_windows_over_every_kind(path, pad):
    """Several rows of what is no number are a list; padding repeats a row, or is nothing of its kind."""
    offsets = (-2, 0, 1)
    manager = GlobalIndexManager(path, key=NAMES, sequences="file", window=Window(offsets, pad=pad))
    dataset = FileCacheDataset(manager)
    ids = [0, 3, ROWS - 1, 0]
    for id, sample in zip(ids, dataset.__getitems__(ids), strict=True):
        rows = [id + offset for offset in offsets]
        if pad == "edge":
            rows = [min(max(row, 0), ROWS - 1) for row in rows]
        else:
            rows = [row if 0 <= row < ROWS else None for row in rows]
        wanted = {name: stacked(name, rows) for name in NAMES}
        assert all(same(sample[name], wanted[name]) for name in NAMES), (id, sample, wanted)


def test_a_window_that_is_all_padding_has_its_kinds(path):
    """Nothing is read for it."""
    window = Window((-2, -1), pad="zero", before=2)
    dataset = FileCacheDataset(GlobalIndexManager(path, key=NAMES, sequences="file", window=window))
    first = dataset[0]
    assert all(same(first[name], stacked(name, [None, None])) for name in NAMES)


def spoil(value):
    """Change everything in a sample that can be changed."""
    if isinstance(value, dict):
        for one in value.values():
            spoil(one)
        value.clear()
    elif isinstance(value, list):
        for one in value:
            spoil(one)
        value.clear()
    elif isinstance(value, torch.Tensor):
        value.zero_()


@pytest.mark.parametrize("window", [None, Window(range(-1, 2), pad="edge")])
def test_samples_own_their_values(path, window):
    """Changing one changes no other of its batch, though they take the same rows, and none of the next."""
    options = {} if window is None else {"sequences": "file", "window": window}
    dataset = FileCacheDataset(GlobalIndexManager(path, key=NAMES, **options))

    def wanted(id):
        if window is None:
            return {name: expected(name, id) for name in NAMES}
        rows = [min(max(id + offset, 0), ROWS - 1) for offset in (-1, 0, 1)]
        return {name: stacked(name, rows) for name in NAMES}

    for _ in range(2):
        samples = dataset.__getitems__([1, 1, 2])
        spoil(samples[0])
        assert same(samples[1], wanted(1)) and same(samples[2], wanted(2))
        spoil(samples[1])
        assert same(samples[2], wanted(2))


def test_fields_that_are_one_member_have_a_value_each(path):
    """By two names, and as part of the whole array."""
    keys = {"all": "event", "id": "event/id", "number": "event/id"}
    sample = FileCacheDataset(GlobalIndexManager(path, key=keys))[3]
    sample["all"]["id"].zero_()
    sample["id"].zero_()
    assert sample["number"] == 4


@pytest.mark.parametrize("path", ["chunked"], indirect=True)
@pytest.mark.parametrize("method", [None, "fork", "spawn"])
def test_batches_through_workers(path, method):
    """torch's collate makes a tensor of tensors, a list of text and bytes, and dicts of members."""
    keys = ["number", "word", "raw", "time", "event/id", "event/vertex"]
    dataset = FileCacheDataset(GlobalIndexManager(path, key=keys))
    sampler = ResumableDistributedSampler(dataset, 1, 0, shuffle=False)
    options = {"num_workers": 1, "multiprocessing_context": method} if method else {}
    for loader in (
        globidx.DataLoader(dataset, batch_size=ROWS, sampler=sampler, **options),
        DataLoader(dataset, batch_size=ROWS, **options),
    ):
        (batch,) = loader
        for id in range(ROWS):
            assert torch.equal(batch["number"][id], expected("number", id))
            assert batch["word"][id] == expected("word", id)
            assert batch["raw"][id] == expected("raw", id)
            assert batch["time"][id] == expected("time", id)
            event = expected("event", id)
            assert torch.equal(batch["event/vertex"]["cov"][id], event["vertex"]["cov"])
        assert isinstance(batch["word"], list) and isinstance(batch["raw"], list)


@pytest.mark.parametrize("name", sorted(dtypes.SMALL))
def test_small_floats_are_the_bits_that_were_stored(name):
    """As torch's dtype of the name, of any shape; an older torch that has none says so."""
    dtype = dtypes.parse(name)
    if not hasattr(torch, name):
        with pytest.raises(TypeError, match=f"{name}, which torch .* does not have"):
            values.giver(dtype)
        return
    bits = np.arange(1, 7, dtype=dtype.memory).reshape(2, 3)
    given = values.giver(dtype)(bits.copy())
    assert given.dtype == getattr(torch, name) and given.shape == (2, 3)
    assert given.view(torch.uint8).numpy().tobytes() == bits.tobytes()


def test_what_decode_returned_is_stacked_as_it_is():
    """Arrays and tensors of one shape; others stay a list."""
    objects = np.empty(3, object)
    objects[:] = [np.arange(2, dtype=">i2"), None, torch.ones(2, dtype=torch.int16)]
    assert values.decoded(objects).tolist() == [[0, 1], [0, 0], [1, 1]]
    objects[:] = ["a", None, "b"]
    assert values.decoded(objects) == ["a", None, "b"]
    objects[:] = [np.arange(2), np.arange(3), np.arange(2)]
    with pytest.raises(ValueError, match=r"the shapes \(2,\), \(3,\); give all the same"):
        values.decoded(objects)


def test_numbers_that_decode_returned_are_tensors(tmp_path):
    """Those of numpy are arrays without an axis: stacked in a window, zeros where no row is."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(1, 4, dtype=np.longdouble)
    options = {"sequences": "file", "window": Window((-1, 0), pad="zero")}
    windows = GlobalIndexManager(tmp_path, **options)
    dataset = FileCacheDataset(windows, decode={"x": np.float64})
    assert [dataset[id].tolist() for id in range(3)] == [[0, 1], [1, 2], [2, 3]]
    one = FileCacheDataset(GlobalIndexManager(tmp_path), decode={"x": np.float32})[2]
    assert one.dtype == torch.float32 and one.shape == () and one == 3


@pytest.mark.parametrize("made", [np.array(["a"]), np.array(["2026"], "M8[Y]"), np.array([None])])
def test_arrays_that_torch_does_not_have_are_told_by_field_and_sample(tmp_path, made):
    """Whatever decode returns; the error of torch says neither."""
    write_zarr(tmp_path / "a.zarr", {"x": np.arange(3), "y": np.arange(3)})
    manager = GlobalIndexManager(tmp_path, key=["x", "y"])
    dataset = FileCacheDataset(manager, decode={"x": lambda row: made})
    with pytest.raises(
        TypeError, match=r"decode of field 'x' gave an array of dtype .* torch"
    ) as e:
        dataset[2]
    assert e.value.__notes__ == ["of sample id 2"]


def test_text_of_zarr_in_every_format(tmp_path):
    """Fixed, of any length, and bytes, of both formats."""
    for zarr_format in (2, 3):
        for number, dtype in enumerate(["<U4", ">U4", "string", "S4"]):
            path = tmp_path / f"{zarr_format}{number}.zarr"
            data = np.array(["a", "é漢"] if dtype != "S4" else ["a", "bc"]).astype(
                object if dtype == "string" else dtype
            )
            # some data types of zarr 3 have no specification yet
            with warnings.catch_warnings(action="ignore"):
                zarr.create_array(
                    path, shape=(2,), dtype=dtype, chunks=(1,), zarr_format=zarr_format
                )[...] = data
            given = [FileCacheDataset(GlobalIndexManager(path))[id] for id in range(2)]
            assert given == ([b"a", b"bc"] if dtype == "S4" else ["a", "é漢"])


def test_plain_arrays_share_the_memory_that_they_were_read_into(tmp_path):
    """Kinds cost numbers nothing: no copy is made of them."""
    write_zarr(tmp_path / "a.zarr", np.arange(24, dtype="f4").reshape(6, 4))
    samples = FileCacheDataset(GlobalIndexManager(tmp_path / "a.zarr")).__getitems__([0, 1])
    first, second = (one.untyped_storage().data_ptr() for one in samples)
    assert second - first == 16
