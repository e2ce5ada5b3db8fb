"""Values by netCDF's conventions are xarray's, to the bit and with its dtype: arrays, and files that libraries write."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.core.values.packing import Packing

xarray = pytest.importorskip("xarray")

INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]
FLOATS = ["f2", "f4", "f8"]
#: Numbers of JSON, as zarr has them, and those that a file stores with a type.
TYPES = [float, int, *(np.dtype(name).type for name in ("f4", "f8", "i2", "i4", "u1", "f2"))]


def numbers(dtype):
    """Numbers of a dtype: its bounds and common fill values, and for floats what is no number."""
    if dtype.kind == "f":
        top = float(np.finfo(dtype).max)
        return st.sampled_from([0.0, 1.0, -9999.0, top, -top, np.nan, np.inf, 0.1])
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return st.sampled_from([low, low + 1, 0, 1, high - 1, high]) | st.integers(low, high)


@st.composite
def variables(draw):
    """Stored numbers and their attributes, of any types that go together or do not."""
    dtype = np.dtype(draw(st.sampled_from(INTEGERS + FLOATS)))
    stored = np.array(draw(st.lists(numbers(dtype), max_size=12)), dtype)
    attributes = {}
    for name, values in {
        "scale_factor": [0.5, 0.1, 2, 1, 1e-3, 3],
        "add_offset": [230.0, 0, -7, 100, 0.3],
    }.items():
        if draw(st.booleans()):
            attributes[name] = draw(st.sampled_from(TYPES))(abs(draw(st.sampled_from(values))))
    for name in ("_FillValue", "missing_value"):
        kind = draw(st.sampled_from(["none", "none", "own", "other", "nan", "several"]))
        if kind == "own" or (kind == "several" and name == "missing_value"):
            count = 1 if kind == "own" else draw(st.integers(1, 3))
            some = np.array([draw(numbers(dtype)) for _ in range(count)], dtype)
            attributes[name] = some[0] if kind == "own" else some
        elif kind == "other":
            other = np.dtype(draw(st.sampled_from(["f4", "f8", "i2", "i4", "i8"])))
            attributes[name] = other.type(draw(st.sampled_from([-1, 0, 1, 127, -9999, 9999])))
        elif kind == "nan":
            attributes[name] = draw(st.sampled_from([np.float32, np.float64]))(np.nan)
    if draw(st.booleans()):
        attributes["_Unsigned"] = draw(st.sampled_from(["true", "false", "other"]))
    if draw(st.integers(0, 9)) == 0:
        attributes["dtype"] = "bool"
    return stored, attributes


def theirs(stored, attributes):
    """What xarray makes of a variable; None where it cannot."""
    variable = xarray.Variable(tuple("xyz")[: stored.ndim], stored, attributes)
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            return xarray.conventions.decode_cf_variable("v", variable, decode_times=False).values
        except (TypeError, ValueError, KeyError, OverflowError):
            return None


def assert_equal(ours, expected):
    assert (ours.dtype, ours.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(ours, expected)
    # zeros have a sign
    present = ~np.isnan(expected) if expected.dtype.kind in "fc" else np.ones(ours.shape, bool)
    assert ours[present].tobytes() == expected[present].tobytes()


@settings(max_examples=1000)
@given(variables())
def test_arrays_are_decoded_as_by_xarray(variable):
    """Any types of numbers, scale, offset, fill values and signs; out of attributes, and out of an index."""
    stored, attributes = variable
    expected = theirs(stored, attributes)
    packing = Packing.of(attributes.get, stored.dtype)
    again = Packing.parse(packing.spelled)
    assert again.spelled == packing.spelled
    if expected is None:
        return
    for one in (packing, again):
        assert one.decoded(stored.dtype) == expected.dtype
        assert_equal(one.decode(stored), expected)


def era5(seed, shape=(5, 3, 4)):
    """A month as ERA5 is downloaded: each variable packed into int16 by a scale of its own, fill values in it."""
    rng = np.random.default_rng(seed)
    packed = {}
    for name, (low, high) in {"t2m": (220 + seed, 310), "tp": (0, 0.01 * (seed + 1))}.items():
        scale, offset = (high - low) / 65532, (high + low) / 2
        stored = rng.integers(-32766, 32767, shape).astype("i2")
        stored[rng.random(shape) < 0.2] = -32767
        packed[name] = (
            stored,
            {
                "scale_factor": scale,
                "add_offset": offset,
                "_FillValue": np.int16(-32767),
                "missing_value": np.int16(-32767),
                "units": "K",
            },
        )
    return packed


def more(seed, shape=(5, 3, 4)):
    """Variables as others write them: no packing, other fill values, other types, signs, bools."""
    rng = np.random.default_rng(seed)
    small = rng.integers(-128, 128, shape)
    ocean = np.where(rng.random(shape) < 0.3, 1e20, rng.normal(size=shape))
    return {
        "plain": (rng.normal(size=shape).astype("f4"), {}),
        "nan": (rng.normal(size=shape).astype("f4"), {"_FillValue": np.float32(np.nan)}),
        "sst": (ocean.astype("f4"), {"missing_value": np.float32(1e20)}),
        "wide": (ocean.astype("f4"), {"missing_value": 1e20}),
        "count": (small.astype("i4"), {"_FillValue": np.int32(seed)}),
        "byte": (small.astype("i1"), {"_Unsigned": "true", "_FillValue": np.int8(-1)}),
        "scaled": (
            small.astype("i1"),
            {"_Unsigned": "true", "_FillValue": np.int8(-1), "scale_factor": np.float32(0.5)},
        ),
        "mixed": (
            small.astype("i2"),
            {"scale_factor": np.float32(0.1), "add_offset": np.float64(seed)},
        ),
        "whole": (small.astype("i2"), {"scale_factor": np.int16(3)}),
        "float": (ocean.astype("f4"), {"_FillValue": np.float32(np.nan), "scale_factor": 0.1}),
        "flag": ((small > 0).astype("i1"), {"dtype": "bool"}),
        "time": (np.arange(shape[0]) + 10 * seed, {"units": "hours since 1900-01-01"}),
    }


def write_netcdf4(path, variables):
    netcdf = pytest.importorskip("netCDF4")
    with netcdf.Dataset(path, "w") as file:
        for name, (stored, attributes) in variables.items():
            dimensions = [f"{name}_{axis}" for axis in range(stored.ndim)]
            for dimension, size in zip(dimensions, stored.shape, strict=True):
                file.createDimension(dimension, size)
            attributes = dict(attributes)
            fill = attributes.pop("_FillValue", None)
            variable = file.createVariable(name, stored.dtype, dimensions, fill_value=fill)
            variable.set_auto_maskandscale(False)
            variable.setncatts(attributes)
            variable[...] = stored


def write_h5netcdf(path, variables):
    h5netcdf = pytest.importorskip("h5netcdf")
    with h5netcdf.File(path, "w") as file:
        for name, (stored, attributes) in variables.items():
            dimensions = tuple(f"{name}_{axis}" for axis in range(stored.ndim))
            for dimension, size in zip(dimensions, stored.shape, strict=True):
                file.dimensions[dimension] = size
            fill = attributes.get("_FillValue")
            variable = file.create_variable(
                name, dimensions, stored.dtype, data=stored, fillvalue=fill
            )
            variable.attrs.update({k: v for k, v in attributes.items() if k != "_FillValue"})


def write_zarr(path, variables, zarr_format):
    """As xarray writes what it has not decoded: fill values where each format has them."""
    dataset = xarray.Dataset(
        {
            name: xarray.Variable([f"{name}_{axis}" for axis in range(stored.ndim)], stored, given)
            for name, (stored, given) in variables.items()
        }
    )
    dataset.to_zarr(path, zarr_format=zarr_format, consolidated=False)


WRITERS = {
    "netcdf4": (".nc", write_netcdf4),
    "h5netcdf": (".nc", write_h5netcdf),
    "zarr2": (".zarr", lambda path, variables: write_zarr(path, variables, 2)),
    "zarr3": (".zarr", lambda path, variables: write_zarr(path, variables, 3)),
}


def opened_by_xarray(path, writer):
    engine = "zarr" if writer.startswith("zarr") else writer
    options = {"consolidated": False} if engine == "zarr" else {}
    return xarray.open_dataset(path, engine=engine, decode_times=False, **options)


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("make", [era5, more])
def test_files_are_decoded_as_by_xarray(tmp_path, writer, make):
    """Three files that are packed differently: each sample is a row of ``xarray.concat``, in value and dtype."""
    suffix, write = WRITERS[writer]
    paths = [tmp_path / f"{month}{suffix}" for month in range(3)]
    for month, path in enumerate(paths):
        write(path, make(month))
    names = [*make(0)]
    manager = GlobalIndexManager(paths, key=names, cache_dir=tmp_path / "cache")
    dataset = FileCacheDataset(manager, decode="cf")
    every = [opened_by_xarray(path, writer) for path in paths]
    for name in names:
        rows = np.concatenate([one[name].values for one in every])
        ids = np.random.default_rng(0).permutation(len(dataset)).tolist()
        for sample_id, sample in zip(ids, dataset.__getitems__(ids), strict=True):
            assert_equal(sample[name].numpy(), np.asarray(rows[sample_id]))


@pytest.mark.parametrize("writer", WRITERS)
def test_windows_over_months_that_are_packed_differently(tmp_path, writer):
    """ERA5 as downloaded: windows that begin in one month and end in the next."""
    suffix, write = WRITERS[writer]
    for month in range(3):
        write(tmp_path / f"{month}{suffix}", era5(month))
    manager = GlobalIndexManager(
        tmp_path / f"*{suffix}",
        key=["t2m", "tp"],
        sequences="chain",
        window=Window((0, 1, 4)),
        cache_dir=tmp_path / "cache",
    )
    with pytest.raises(ValueError, match="decode='cf'"):
        FileCacheDataset(manager)
    dataset = FileCacheDataset(manager, decode="cf")
    whole = [opened_by_xarray(tmp_path / f"{month}{suffix}", writer) for month in range(3)]
    for name in ("t2m", "tp"):
        rows = np.concatenate([one[name].values for one in whole])
        for first, sample in enumerate(dataset.__getitems__(range(len(dataset)))):
            assert_equal(sample[name].numpy(), rows[first + np.array([0, 1, 4])])
    assert len(dataset) == 11


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("fill", [0, None, np.nan, 3])
def test_fill_values_of_zarr_count_as_for_xarray(tmp_path, zarr_format, fill):
    """Arrays that zarr itself wrote: of format 2 their fill value is a missing one, of format 3 it is not."""
    zarr = pytest.importorskip("zarr")
    root = zarr.create_group(tmp_path / "a.zarr", zarr_format=zarr_format)
    for dtype in ("f4", "f8", "i2", "u1", "i8"):
        if np.dtype(dtype).kind != "f" and fill is not None and np.isnan(fill):
            continue
        given = {} if fill is None and zarr_format == 3 else {"fill_value": fill}
        array = root.create_array(
            dtype,
            shape=(6,),
            dtype=dtype,
            **given,
            **({"dimension_names": ["x"]} if zarr_format == 3 else {}),
        )
        array[...] = np.arange(6)
        if zarr_format == 2:
            array.attrs["_ARRAY_DIMENSIONS"] = ["x"]
    names = sorted(root)
    manager = GlobalIndexManager(tmp_path / "a.zarr", key=names, cache_dir=tmp_path / "cache")
    dataset = FileCacheDataset(manager, decode="cf", on_missing="fill")
    theirs = opened_by_xarray(tmp_path / "a.zarr", "zarr")
    for sample_id, sample in enumerate(dataset):
        for name in names:
            assert_equal(sample[name].numpy(), np.asarray(theirs[name].values[sample_id]))
