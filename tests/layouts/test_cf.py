"""Values by netCDF's conventions are xarray's, to the bit and with its dtype: arrays, and files that libraries write."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.packing import Packing

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
