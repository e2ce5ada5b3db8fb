"""What the index keeps of a file: arrays as they are, and an identity of all that samples depend on."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index.episodes import Episodes
from globidx.core.index.layout import PLAIN
from globidx.disk.stores.find_arrays import Field
from globidx.disk.stores.index_entries import (
    Inside,
    array_info,
    counted_axis,
    make_entry,
    packing_of,
    parts_of,
    require_aligned,
)

shapes = st.lists(st.integers(1, 9), min_size=1, max_size=4)


@settings(max_examples=80)
@given(shape=shapes, data=st.data(), form=st.sampled_from(["plain", "stacked"]))
def test_items_have_all_axes_but_those_that_count_them(shape, data, form):
    """Counted from either end; of many sequences in an array, that of these has no part in an item either."""
    if form == "stacked":
        shape = [3, *shape]
    first = int(form == "stacked")
    axis = data.draw(st.integers(first, len(shape) - 1))
    chunks = data.draw(st.none() | st.just([max(1, size // 2) for size in shape]))
    given_axis = axis - len(shape) if data.draw(st.booleans()) else axis
    field = Field("x", "a/x", form, given_axis)
    info, count = array_info(field, shape, np.dtype("f4"), chunks)
    left = [size for at, size in enumerate(shape) if at not in (axis, 0 if first else axis)]
    assert (info.item_shape, count, info.axis) == (tuple(left), shape[axis], axis)
    assert info.chunk_length == (chunks[axis] if chunks else 0) and info.path == "a/x"
    assert counted_axis(given_axis, len(shape)) == axis


@pytest.mark.parametrize(
    ("field", "shape", "chunks", "told"),
    [
        (Field("x", "x", "plain", 0), (), None, "a single value"),
        (Field("x", "x", "plain", 2), (3, 4), None, "no axis 2; axis must be in"),
        (Field("x", "x", "stacked", 0), (3, 4), None, "no axis 0 of rows beside axis 0"),
        (Field("x", "x", "tokens", 0), (3, 4), None, "cut from one-dimensional arrays"),
        (Field("x", "x", "loose", 0), (3, 0), None, "whose items hold nothing"),
        (Field("x", "x", "plain", 0), (2**63, 4), None, "which nothing can hold"),
        (Field("x", "x", "plain", 0), (3, 4), (0, 4), "which nothing can hold"),
    ],
)
def test_what_no_sample_can_be_made_of_is_told(field, shape, chunks, told):
    """By the name of the array, and its shape."""
    with pytest.raises(ValueError, match=f"array 'x' .*{told}"):
        array_info(field, shape, np.dtype("f4"), chunks)


def test_arrays_of_other_lengths_are_no_file():
    """The lengths are told."""
    one, other = (
        array_info(Field(name, name, "plain", 0), (length, 2), np.dtype("f4"), None)
        for name, length in (("a", 3), ("b", 4))
    )
    require_aligned([one, one])
    with pytest.raises(ValueError, match="'a' has 3 items, 'b' has 4 items"):
        make_entry("zarr3", [one, other], b"")


def test_an_entry_is_another_one_where_anything_that_samples_depend_on_is():
    """Metadata, and the sequences inside it; not what merely tells where they are."""
    arrays = [array_info(Field("x", "x", "plain", 0), (6, 2), np.dtype("f4"), (2, 2))]
    made = [make_entry("zarr3", arrays, metadata) for metadata in (b"one", b"one", b"two")]
    assert made[0] == made[1] and made[0].digest != made[2].digest
    assert make_entry("zarr3", arrays, b"one", sources=(("b.h5", "x"),)).is_foreign
    cut = [
        Inside(6, PLAIN, Episodes.of(starts=[0, first], lengths=[first, 6 - first]), None)
        for first in (2, 3)
    ]
    digests = {make_entry("zarr3", arrays, b"one", inside=one).digest for one in cut}
    assert len(digests | {made[0].digest}) == 3


def test_numbers_of_netcdf_are_packed_and_no_others():
    """What numpy has no number for has no packing either."""
    attributes = {"scale_factor": 0.5, "add_offset": 2.0}.get
    spelled = packing_of(attributes, np.dtype("i2"))
    assert "scale_factor float 0.5" in spelled and "add_offset float 2.0" in spelled
    assert packing_of(attributes, np.dtype("u1", metadata={"small": "float8"})) == ""
    assert packing_of(attributes, object()) == "" == packing_of({}.get, np.dtype("f4"))
    assert parts_of("X", "csc") == ("X/indptr", "X/indices", "X/data")
