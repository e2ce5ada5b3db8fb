"""Files whose stored numbers are not their values: never read as if one number meant one thing, and decoded by file."""

from __future__ import annotations

import os
from contextlib import nullcontext

import h5py
import numpy as np
import pytest
import zarr
from files import numbers, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.disk.reading import packings
from globidx.errors import ReadError

KINDS = ["hdf5", "zarr2", "zarr3"]


def write_packed(path, kind, *, key="x", data=None, **attributes):
    """A file of three items with these attributes."""
    data = numbers(3, dtype="i2") if data is None else data
    if kind == "hdf5":
        write_hdf5(path, data, key=key)
        with h5py.File(path, "a") as file:
            file[key].attrs.update(attributes)
    else:
        write_zarr(path, data, key=key, zarr_format=2 if kind == "zarr2" else 3, fill_value=0)
        zarr.open_array(path, path=key, mode="r+").attrs.update(
            {name: np.ravel(value)[0].item() for name, value in attributes.items()}
        )


def write_all(folder, kind, *every):
    """A file for each of these attributes."""
    for name, attributes in zip("abcdef", every, strict=False):
        write_packed(folder / f"{name}.{'nc' if kind == 'hdf5' else 'zarr'}", kind, **attributes)


def manager_of(folder, **options):
    return GlobalIndexManager(folder, cache_dir=folder / "cache", **{"key": "x", **options})


DIFFERENT = [
    ({"scale_factor": 0.001}, {"scale_factor": 0.002}),
    (
        {"scale_factor": 0.5, "add_offset": 230.0},
        {"scale_factor": 0.5, "add_offset": np.float32(290)},
    ),
    ({"add_offset": np.array([5.0])}, {}),
    ({"missing_value": np.int16(5)}, {"missing_value": np.int16(6)}),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["x", None])
@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_stored_numbers_of_files_that_are_packed_differently_are_refused(
    tmp_path, kind, key, one, other
):
    """By both names, with both packings and what to do; scans by metadata and by libraries agree, and so does a cache."""
    write_all(tmp_path, kind, one, one, other)
    for _ in range(2):
        manager = manager_of(tmp_path, key=key)
        with pytest.raises(ValueError, match="another value") as raised:
            FileCacheDataset(manager)
        said = str(raised.value)
        names = ("a.nc", "c.nc") if kind == "hdf5" else ("a.zarr", "c.zarr")
        assert all(str(tmp_path / name) in said for name in names) and "decode='cf'" in said
        assert all(str(np.ravel(value)[0].item()) in said for value in one.values())


def test_fields_that_are_left_out_may_be_packed_in_any_way(tmp_path):
    """``fields=`` of the others reads on."""
    for name, scale in {"a": 0.5, "b": 0.25}.items():
        write_hdf5(tmp_path / f"{name}.h5", {"x": numbers(3), "y": numbers(3)})
        with h5py.File(tmp_path / f"{name}.h5", "a") as file:
            file["x"].attrs["scale_factor"] = scale
    manager = manager_of(tmp_path, key=["x", "y"])
    assert len(FileCacheDataset(manager, fields="y")) == 6
    with pytest.raises(ValueError, match="x is packed by scale_factor 0.5"):
        FileCacheDataset(manager, fields="x")


@pytest.mark.parametrize("kind", KINDS)
def test_stored_numbers_that_mean_the_same_are_told_of_once(tmp_path, kind, caplog):
    """A warning a process; whatever the types of attributes, and not where values are read."""
    packings._tell.cache_clear()
    write_all(
        tmp_path,
        kind,
        {"scale_factor": np.float64(0.25), "add_offset": np.float64(10)},
        {"scale_factor": np.float32(0.25), "add_offset": np.float64(10)},
    )
    manager = manager_of(tmp_path)
    FileCacheDataset(manager, decode="cf")
    assert "packed" not in caplog.text
    for _ in range(2):
        dataset = FileCacheDataset(manager)
    assert caplog.text.count("packed by scale_factor 0.25, add_offset 10.0") == 1
    assert dataset[3].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"scale_factor": 1.0, "add_offset": 0.0}, {}),
        ({"scale_factor": 1}, {"add_offset": np.float32(0)}),
        ({}, {}),
    ],
)
def test_what_changes_no_value_is_no_packing(tmp_path, one, other, caplog):
    """Some writers always write both attributes."""
    packings._tell.cache_clear()
    write_all(tmp_path, "hdf5", one, other)
    assert len(FileCacheDataset(manager_of(tmp_path))) == 6
    assert "packed" not in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_is_decoded_by_its_own_attributes(tmp_path, kind):
    """Batches over several files, in any sequence, with repeats: the formula by hand, of one dtype for all."""
    every = [
        {"scale_factor": np.float64(0.5), "add_offset": np.float64(100)},
        {"scale_factor": np.float64(2), "missing_value": np.int16(4)},
        {},
    ]
    write_all(tmp_path, kind, *every)
    dataset = FileCacheDataset(manager_of(tmp_path), decode="cf")
    stored = numbers(3, dtype="i2").astype("f8")
    values = np.concatenate([stored * 0.5 + 100, np.where(stored == 4, np.nan, stored * 2), stored])
    ids = [8, 0, 4, 3, 0, 5, 7]
    for sample_id, sample in zip(ids, dataset.__getitems__(ids), strict=True):
        assert sample.numpy().dtype == np.float64 and dataset.dtypes == {"x": "float64"}
        np.testing.assert_array_equal(sample.numpy(), values[sample_id])


def test_samples_of_a_refresh_are_decoded_by_the_new_attributes(tmp_path):
    """A file of another packing is appended: decoded by its own; who reads stored numbers is told at the next batch."""
    write_all(tmp_path, "hdf5", {"scale_factor": np.float32(0.5)})
    manager = manager_of(tmp_path)
    raw, decoded = FileCacheDataset(manager), FileCacheDataset(manager, decode={"x": "cf"})
    assert decoded[0].tolist() == [0.5, 1.0, 1.5] and raw[0].tolist() == [1, 2, 3]
    write_packed(tmp_path / "b.nc", "hdf5", scale_factor=0.25)
    manager.refresh()
    assert decoded[3].tolist() == [0.25, 0.5, 0.75] and decoded[0].tolist() == [0.5, 1.0, 1.5]
    assert str(decoded[0].dtype) == "torch.float64"
    with pytest.raises(ValueError, match="another value"):
        raw[0]


@pytest.mark.parametrize("kind", KINDS)
def test_attributes_that_changed_since_are_noticed_when_a_file_is_opened(tmp_path, kind):
    """Also those of zarr 2, which lie in a file of their own: values are never computed by the old ones."""
    write_all(tmp_path, kind, {"scale_factor": 0.5})
    # so that stamps prove something at once
    dataset = FileCacheDataset(manager_of(tmp_path, settled_after=0), decode="cf")
    assert dataset[0].tolist() == [0.5, 1.0, 1.5]
    dataset.close()
    if kind == "hdf5":
        with h5py.File(tmp_path / "a.nc", "a") as file:
            file["x"].attrs["scale_factor"] = 0.25
    elif kind == "zarr2":
        # zarr would write all metadata anew
        (tmp_path / "a.zarr" / "x" / ".zattrs").write_text('{"scale_factor": 0.25}')
    else:
        zarr.open_array(tmp_path / "a.zarr", path="x", mode="r+").attrs["scale_factor"] = 0.25
    with pytest.raises(ReadError, match="changed since it was indexed"):
        dataset[0]
    if kind == "zarr2":
        # no stamp watches the file of attributes
        os.utime(tmp_path / "a.zarr" / "x" / ".zarray")
    dataset.index_manager.refresh()
    assert dataset[0].tolist() == [0.25, 0.5, 0.75]


def test_padding_is_zero_as_a_value(tmp_path):
    """Before and behind a sequence: 0 of the decoded values, not of the stored numbers; NaN stays where it is missing."""
    write_all(tmp_path, "hdf5", {"add_offset": 100.0, "_FillValue": np.int16(5)})
    manager = manager_of(tmp_path, sequences="file", window=Window((-1, 0), pad="zero", before=1))
    first, second, _ = FileCacheDataset(manager, decode="cf")
    assert first.tolist() == [[0, 0, 0], [101, 102, 103]]
    np.testing.assert_array_equal(second.numpy(), [[101, 102, 103], [104, np.nan, 106]])


def test_what_cannot_be_decoded_is_refused_with_the_file(tmp_path):
    """When the dataset is made; as stored numbers it can be read."""
    write_all(tmp_path, "hdf5", {"scale_factor": "half"}, {"scale_factor": "half"})
    manager = manager_of(tmp_path)
    with pytest.raises(ValueError, match=r"x of .*a\.nc cannot be decoded: scale_factor is 'half'"):
        FileCacheDataset(manager, decode="cf")
    assert FileCacheDataset(manager)[0].tolist() == [1, 2, 3]


def test_what_is_not_packed_is_given_as_it_is(tmp_path):
    """``decode="cf"``, by field or for all, leaves numbers alone that are values."""
    write_all(tmp_path, "hdf5", {"units": "hours since 1900-01-01"})
    for decode in ("cf", {"x": "cf"}):
        dataset = FileCacheDataset(manager_of(tmp_path), decode=decode)
        assert dataset[1].tolist() == [4, 5, 6] and dataset.dtypes == {"x": "int16"}
    with pytest.raises(TypeError, match="'cf'"):
        FileCacheDataset(manager_of(tmp_path), decode="CF")
    with pytest.raises(TypeError, match="'cf'"):
        FileCacheDataset(manager_of(tmp_path), decode={"x": "xarray"})


@pytest.mark.parametrize("kind", KINDS)
def test_matches_of_one_file_are_packed_alike(tmp_path, kind):
    """Groups whose numbers mean different values are refused when they are indexed; others read as stored numbers."""
    path = tmp_path / ("a.h5" if kind == "hdf5" else "a.zarr")

    def write(*every):
        if kind == "hdf5":
            root = h5py.File(path, "w")
        else:
            root = zarr.create_group(path, zarr_format=int(kind[-1]), overwrite=True)
        for number, attributes in enumerate(every):
            group = root.create_group(f"g{number}")
            array = (
                group.create_dataset("x", data=numbers(3, dtype="i2"))
                if kind == "hdf5"
                else group.create_array("x", data=numbers(3, dtype="i2"))
            )
            array.attrs.update(attributes)
        if kind == "hdf5":
            root.close()

    options = {"key": "*/x", "sequences": "match", "window": [0]}
    write({"scale_factor": 0.5}, {"scale_factor": 0.25})
    with pytest.raises(ValueError, match="packed by scale_factor 0.25"):
        manager_of(tmp_path, **options)
    write({"scale_factor": 1.0}, {}, {"scale_factor": 1.0}, {"add_offset": 0.0})
    manager = manager_of(tmp_path, **options)
    dataset = FileCacheDataset(manager)
    assert dataset[4].tolist() == [[4, 5, 6]]
    dataset.close()
    with pytest.raises(ValueError, match="matches of one file differ"):
        FileCacheDataset(manager, decode="cf")
    write({"scale_factor": 0.5}, {"scale_factor": 0.5})
    manager.refresh()
    values = FileCacheDataset(manager, decode="cf")[4].tolist()
    assert values == [[2.0, 2.5, 3.0]]


@pytest.mark.parametrize("nothing", [np.array([], "i2"), h5py.Empty("f4")])
@pytest.mark.parametrize("name", ["_FillValue", "scale_factor"])
def test_an_attribute_that_holds_nothing_is_no_packing(tmp_path, nothing, name):
    """The array is read as it is stored, and cannot be decoded."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(3, dtype="i2")
        file["x"].attrs[name] = nothing
    assert FileCacheDataset(manager_of(tmp_path))[2] == 2
    with pytest.raises(ValueError, match=rf"a\.h5 cannot be decoded: {name} is '', and no number"):
        FileCacheDataset(manager_of(tmp_path), decode="cf")


def test_whole_files_are_not_left_undecoded_without_a_word(tmp_path):
    """Their arrays are given as they are stored; the error says how rows of a file are one sample."""
    for number, scale in enumerate((0.5, 2.0)):
        with h5py.File(tmp_path / f"{number}.h5", "w") as file:
            file["x"] = np.arange(3 + number, dtype="i2")
            file["x"].attrs["scale_factor"] = scale
    whole = GlobalIndexManager(tmp_path, key="x", sequences="file", window="all")
    for decode in ("cf", {"x": "cf"}):
        with pytest.raises(
            ValueError, match="decode='cf' decodes rows.*sequences='chain', chain_by=str"
        ):
            FileCacheDataset(whole, decode=decode)
    rows = GlobalIndexManager(tmp_path, key="x", sequences="chain", chain_by=str, window="all")
    dataset = FileCacheDataset(rows, decode="cf")
    assert [dataset[id].tolist() for id in range(2)] == [[0, 0.5, 1], [0, 2, 4, 6]]


def write_unlike(path, kind, arrays, **attributes):
    """A file of arrays that all have these attributes."""
    opened = h5py.File(path, "w") if kind == "hdf5" else zarr.open_group(path, mode="w")
    for name, values in arrays.items():
        create = opened.create_dataset if kind == "hdf5" else opened.create_array
        told = {key: value if kind == "hdf5" else value.item() for key, value in attributes.items()}
        create(name, data=values).attrs.update(told)
    if kind == "hdf5":
        opened.close()


@pytest.mark.parametrize("kind", ["hdf5", "zarr3"])
def test_rows_of_their_own_shapes_are_decoded_by_their_file(tmp_path, kind):
    """Of items of any shape, and of runs of rows; padding is an empty array of the same dtype."""
    files = [tmp_path / f"{number}.{kind[:4]}" for number in range(2)]
    wide = [np.arange(2, 2 + 3 * size, dtype="i2").reshape(3, size) for size in (2, 4)]
    flat, ends, scales = np.arange(1, 7, dtype="i2"), np.array([2, 2, 6]), (0.5, 2.0)
    for path, values, scale in zip(files, wide, scales, strict=True):
        attributes = {"scale_factor": np.float64(scale), "missing_value": np.int16(3)}
        write_unlike(path, kind, {"x": values, "y": flat}, **attributes)
        with h5py.File(path, "a") if kind == "hdf5" else nullcontext(zarr.open_group(path)) as file:
            file["n"] = ends
    keys = {"x": "x[...]", "y": "y[:n]"}
    dataset = FileCacheDataset(manager_of(tmp_path, key=keys), decode="cf")
    assert dataset.dtypes == {"x": "ragged float64", "y": "ragged float64"}
    wanted = [
        np.where(row == 3, np.nan, row * scale)
        for values, scale in zip(wide, scales, strict=True)
        for row in values
    ]
    runs = [
        np.where(row == 3, np.nan, row * scale)
        for scale in scales
        for row in np.split(flat, ends[:-1])
    ]
    order = [4, 0, 5, 2, 0]
    samples = dataset.__getitems__(order)
    for id, sample in zip(order, samples, strict=True):
        assert np.array_equal(sample["x"].numpy(), wanted[id], equal_nan=True)
        assert np.array_equal(sample["y"].numpy(), runs[id], equal_nan=True)
    samples[1]["x"][:] = -1
    assert np.array_equal(samples[4]["x"].numpy(), wanted[0], equal_nan=True)
    padded = Window((-1, 0), pad="zero")
    windows = manager_of(tmp_path, key=keys, sequences="file", window=padded)
    empty, first = FileCacheDataset(windows, decode="cf")[0]["x"]
    assert empty.shape == (0,) and empty.dtype == first.dtype
    assert np.array_equal(first.numpy(), wanted[0], equal_nan=True)


def test_a_number_beyond_64_bits_is_no_packing(tmp_path):
    """JSON has integers of any size, numpy has none to multiply by."""
    write_packed(tmp_path / "a.zarr", "zarr3")
    array = zarr.open_array(tmp_path / "a.zarr", path="x", mode="r+")
    array.attrs["scale_factor"] = 2**70
    assert FileCacheDataset(manager_of(tmp_path)).dtypes == {"x": "int16"}
    with pytest.raises(ValueError, match=r"a\.zarr cannot be decoded: .* beyond 64 bits"):
        FileCacheDataset(manager_of(tmp_path), decode="cf")
