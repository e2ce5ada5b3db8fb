"""Packings against the formula in plain Python numbers, and their spelling against themselves."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.values.packing import PLAIN, Packing

scales = st.none() | st.floats(2**-20, 2**20) | st.floats(2**-20, 2**20, width=32).map(np.float32)
fills = st.lists(st.integers(-(2**15), 2**15 - 1).map(np.int16), max_size=3)


@given(scales, scales, fills, fills, st.lists(st.integers(-(2**15), 2**15 - 1)))
def test_values_are_scaled_or_are_no_numbers(scale, offset, fill, missing, stored):
    """Each number by itself: NaN if it is listed, else scaled, exactly where that is done in float64."""
    attributes = {"scale_factor": scale, "add_offset": offset}
    attributes |= {"_FillValue": np.array(fill)} if fill else {}
    attributes |= {"missing_value": np.array(missing)} if missing else {}
    packing = Packing.of(attributes.get, np.dtype("i2"))
    values = packing.decode(np.array(stored, "i2"))
    assert values.dtype == packing.decoded(np.dtype("i2"))
    for number, value in zip(stored, values.tolist(), strict=True):
        if number in fill + missing:
            assert np.isnan(value)
        else:
            expected = number * float(scale or 1) + float(offset or 0)
            assert value == pytest.approx(expected, rel=1e-5, abs=1e-5 * abs(float(offset or 0)))
            if values.dtype == np.float64:
                assert value == expected


@given(
    st.sampled_from(["f2", "f4", "f8"]).flatmap(
        lambda name: st.floats(width=8 * int(name[1])).map(np.dtype(name).type)
    )
    | st.floats()
    | st.sampled_from(["i1", "u2", "i4", "u8"]).flatmap(
        lambda name: st.integers(
            *(int(getattr(np.iinfo(name), end)) for end in ("min", "max"))
        ).map(np.dtype(name).type)
    )
    | st.integers(-(2**63), 2**63 - 1)
)
def test_a_spelling_keeps_types_and_all_bits(number):
    """Of any scale, and as a fill value: what is read back has the same type and the same digits."""
    packing = Packing.of({"scale_factor": number, "missing_value": number}.get, np.dtype("f4"))
    again = Packing.parse(packing.spelled)
    for one, other in [
        (packing.scale, again.scale),
        *zip(packing.missing, again.missing, strict=True),
    ]:
        assert type(one) is type(other)
        assert np.array(one).tobytes() == np.array(other).tobytes() or np.isnan([one, other]).all()


@given(scales, scales, fills, st.sampled_from([None, np.float32(np.nan), np.float64(-1e-7)]))
def test_an_outline_has_the_dtype_of_all_that_have_it(scale, offset, fill, missing):
    """Whatever the numbers are: only their types, and whether they are NaN, are in it."""
    attributes = {"scale_factor": scale, "add_offset": offset, "missing_value": missing}
    attributes |= {"_FillValue": np.array(fill)} if fill else {}
    for dtype in map(np.dtype, ("i2", "f4")):
        packing = Packing.of(attributes.get, dtype)
        outline = Packing.parse(Packing.outline(packing.spelled))
        assert outline.decoded(dtype) == packing.decoded(dtype)
        assert len(outline.fills + outline.missing) == len(packing.fills + packing.missing)
        numbers = [outline.scale, outline.offset, *outline.fills, *outline.missing]
        assert {float(one) for one in numbers if one is not None and one == one} <= {1.0}  # noqa: PLR0124


@pytest.mark.parametrize(
    ("attributes", "dtype"),
    [
        ({}, "i2"),
        ({"_FillValue": np.float32(np.nan)}, "f4"),
        ({"_FillValue": np.float64(np.nan), "missing_value": np.nan}, "f8"),
        ({"missing_value": np.nan}, "i4"),
        ({"_Unsigned": "true"}, "u1"),
        ({"_Unsigned": "true"}, "f4"),
        ({"_FillValue": False}, "?"),
        ({"scale_factor": 0.5}, "M8[ns]"),
        ({"scale_factor": 0.5}, "S3"),
    ],
)
def test_what_changes_no_value_is_no_packing(attributes, dtype):
    """Many writers always write a fill value of NaN, which costs nothing: no column, no copy."""
    packing = Packing.of(attributes.get, np.dtype(dtype))
    assert packing == PLAIN == Packing.parse("") and packing.spelled == ""


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        ({"scale_factor": 0.5}, {"scale_factor": np.float32(0.5)}, True),
        ({"scale_factor": 1.0, "add_offset": 0}, {}, True),
        ({"_FillValue": np.int16(-1)}, {"missing_value": np.array([-1, -1], "i2")}, True),
        ({"scale_factor": 0.5}, {"scale_factor": 0.25}, False),
        ({"add_offset": 0.5}, {}, False),
        ({"_FillValue": np.int16(-1)}, {"_FillValue": np.int16(-2)}, False),
        ({"_FillValue": np.int16(-1)}, {}, False),
        ({"_Unsigned": b"true"}, {}, False),
        ({"dtype": "bool"}, {}, True),
        ({"scale_factor": "x"}, {}, False),
    ],
)
def test_stored_numbers_are_the_same_or_are_not(one, other, are_alike):
    """Whatever the types of attributes, and of the values that would come of them."""
    first, second = (Packing.of(each.get, np.dtype("i2")).meaning for each in (one, other))
    assert (first == second) == are_alike


def test_a_fill_value_of_zarr_says_nothing_alone():
    """Each array of zarr 2 has one; with another attribute somebody chose it."""
    alone = Packing.of({}.get, np.dtype("i2"), own=np.int16(0))
    assert alone.spelled == "fill_value int16 0" and alone.meaning == PLAIN.meaning
    scaled = [
        Packing.of({"scale_factor": 0.5}.get, np.dtype("i2"), own=np.int16(n)) for n in (0, 1)
    ]
    assert scaled[0].meaning != scaled[1].meaning
    assert np.isnan(alone.decode(np.zeros(2, "i2"))).all()


@pytest.mark.parametrize(
    ("attributes", "dtype", "said"),
    [
        ({"scale_factor": "0.5"}, "i2", "scale_factor is '0.5', and no number"),
        ({"add_offset": [1.0, 2.0]}, "i2", "add_offset is .*no number"),
        ({"scale_factor": True}, "i2", "scale_factor is True"),
        ({"_FillValue": "none"}, "f4", "_FillValue is 'none'"),
        ({"missing_value": np.arange(100)}, "i2", "missing_value"),
        ({"scale_factor": 2, "_FillValue": np.int16(0)}, "i2", "int64.*cannot be NaN"),
        ({"scale_factor": 2.0}, "c8", "imaginary"),
    ],
)
def test_what_cannot_be_decoded_is_refused_when_it_is_decoded(attributes, dtype, said):
    """With the reason, which an index keeps; the stored numbers can be read all the same."""
    packing = Packing.parse(Packing.of(attributes.get, np.dtype(dtype)).spelled)
    for attempt in (packing.decoded, lambda dtype: packing.decode(np.zeros(3, dtype))):
        with pytest.raises(ValueError, match=said):
            attempt(np.dtype(dtype))


def test_what_was_stored_stays():
    """The result is an array of its own, also where only the sign changes, or nothing."""
    for attributes in ({}, {"_Unsigned": "true"}, {"scale_factor": 2}, {"_FillValue": np.int16(3)}):
        stored = np.arange(5, dtype="i2")
        values = Packing.of(attributes.get, stored.dtype).decode(stored)
        values[...] = 7
        assert stored.tolist() == [0, 1, 2, 3, 4]


def test_messages_have_names_and_digits_alone():
    """What a user wrote into attributes; the types are for the index."""
    attributes = {"add_offset": np.float32(0.1), "_FillValue": np.int16(-1), "_Unsigned": "true"}
    packing = Packing.of(attributes.get, np.dtype("i2"))
    assert str(packing) == "add_offset 0.1, _FillValue -1, _Unsigned true"


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "scale_factor",
        "scale_factor 0.5",
        "scale_factor float x",
        "scale_factor float 1 2",
        "add_offset int16 99999",
        "_FillValue object 3",
        ", ,",
    ],
)
def test_what_spells_no_packing_is_a_value_error(text):
    """A cache may be damaged, and have a right digest."""
    with pytest.raises(ValueError, match="spells no packing"):
        Packing.parse(text)
