"""Padding loses nothing: what the mask calls data is the samples, and all else is the value."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from globidx import collate

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64),
]


def numbered(shape, dtype):
    """A tensor of that shape, whose values tell where they were."""
    return torch.arange(1, 1 + int(np.prod(shape, dtype=int))).to(dtype).reshape(shape)


@st.composite
def ragged(draw):
    """(samples, axes along which they differ): 1 to 4 tensors of 1 to 3 axes."""
    ndim = draw(st.integers(1, 3))
    axes = draw(st.lists(st.integers(0, ndim - 1), min_size=1, unique=True))
    common = draw(st.tuples(*[st.integers(0, 3)] * ndim))
    dtype = draw(st.sampled_from(DTYPES))
    samples = []
    for _ in range(draw(st.integers(1, 4))):
        sizes = [draw(st.integers(0, 4)) if axis in axes else common[axis] for axis in range(ndim)]
        samples.append(numbered(sizes, dtype))
    return samples, axes


def padded_by_hand(samples, axes, value, side, multiple):
    """(values, mask) as nested loops over every place make them."""
    ndim = samples[0].ndim
    sizes = [max(one.shape[axis] for one in samples) for axis in range(ndim)]
    for axis in axes:
        while sizes[axis] % multiple:
            sizes[axis] += 1
    values = np.full((len(samples), *sizes), value, dtype=complex)
    mask = np.zeros((len(samples), *(sizes[axis] for axis in axes)), dtype=bool)
    for number, one in enumerate(samples):
        shift = [sizes[axis] - one.shape[axis] if side == "left" else 0 for axis in range(ndim)]
        for place in itertools.product(*map(range, one.shape)):
            to = tuple(at + by for at, by in zip(place, shift, strict=True))
            values[(number, *to)] = complex(one[place].item())
        inside = itertools.product(*(range(one.shape[axis]) for axis in axes))
        for place in inside:
            mask[(number, *(at + shift[axis] for at, axis in zip(place, axes, strict=True)))] = True
    return values, mask


@given(ragged(), st.sampled_from([0, 1, 7]), st.sampled_from(["right", "left"]), st.integers(1, 3))
def test_it_is_what_loops_over_every_place_make(case, value, side, multiple):
    """For any shapes, axes, dtype, side and multiple, values and mask alike."""
    samples, axes = case
    value = bool(value) if samples[0].dtype == torch.bool else value
    fn = collate.pad(axis=axes, value=value, side=side, multiple_of=multiple)
    values, mask = fn(samples)
    expected, inside = padded_by_hand(samples, axes, value, side, multiple)
    assert values.dtype == samples[0].dtype and mask.dtype == torch.bool
    assert np.array_equal(values.to(torch.complex128).numpy(), expected)
    assert np.array_equal(mask.numpy(), inside)


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=5),
    st.lists(st.integers(0, 3), max_size=2),
    st.sampled_from(["right", "left"]),
)
def test_the_mask_gives_the_samples_back(lengths, shape, side):
    """Rows of any shape: those of a batch where the mask is True are the sample's."""
    rows = [numbered((length, *shape), torch.float32) for length in lengths]
    values, mask = collate.pad(side=side)(rows)
    for one, row, inside in zip(rows, values, mask, strict=True):
        assert torch.equal(row[inside], one)


def test_the_mask_is_beside_the_fields_and_nested_as_they_are():
    """As that of a window; the other fields are stacked."""
    samples = [{"obs": {"x": torch.ones(n, 2)}, "y": torch.ones(n), "z": n} for n in (3, 1)]
    batch = collate.pad(["obs/x", "y"])(samples)
    assert batch["obs"]["x"].shape == (2, 3, 2) and batch["z"].tolist() == [3, 1]
    assert batch["mask"]["obs"]["x"].tolist() == [[True] * 3, [True, False, False]]
    assert batch["mask"].keys() == {"obs", "y"}
    named = collate.pad(["obs/x", "y"], mask="padding")(samples)
    assert "mask" not in named and torch.equal(named["padding"]["y"], batch["mask"]["y"])
    assert collate.pad(["obs/x", "y"], mask=False)(samples).keys() == {"obs", "y", "z"}


def test_a_batch_of_equal_sizes_has_its_mask_too():
    """What a batch is made of does not depend on the sizes in it."""
    batch = collate.pad()([{"x": torch.ones(2), "y": 1}] * 3)
    assert batch["mask"]["x"].all() and batch["mask"].keys() == {"x"}


def test_masks_go_where_windows_have_theirs():
    """A sample that has a mask by field keeps it; of the same field there are no two."""
    samples = [
        {"x": torch.ones(n), "w": torch.ones(2), "mask": {"w": torch.ones(2)}} for n in (1, 2)
    ]
    batch = collate.pad("x")(samples)
    assert batch["mask"]["x"].shape == batch["mask"]["w"].shape == (2, 2)
    with pytest.raises(ValueError, match="have a field 'mask/w' already.*mask='padding'"):
        collate.pad(["x", "w"])(samples)


def test_images_of_other_sizes_are_padded_along_two_axes():
    """Counted from the front or from behind."""
    images = [numbered((3, 2, 5), torch.uint8), numbered((3, 4, 1), torch.uint8)]
    for axis in ((1, 2), (-2, -1)):
        values, mask = collate.pad(axis=axis, value=255)(images)
        assert values.shape == (2, 3, 4, 5) and mask.shape == (2, 4, 5)
        assert torch.equal(values[1, :, :, :1], images[1]) and (values[1, :, :, 1:] == 255).all()
    assert collate.pad(axis=(2, 1))(images)[1].shape == (2, 5, 4)


def test_every_batch_has_the_length_that_was_asked_for():
    """One for all axes or one for each, of which None is the largest; rounded up."""
    images = [torch.ones(2, 5), torch.ones(3, 1)]
    assert collate.pad(axis=(0, 1), length=6)(images)[0].shape == (2, 6, 6)
    assert collate.pad(axis=(0, 1), length=(None, 8))(images)[0].shape == (2, 3, 8)
    assert collate.pad(axis=(0, 1), multiple_of=(4, 8))(images)[0].shape == (2, 4, 8)
    assert collate.pad(axis=(0, 1), length=(5, None), multiple_of=2)(images)[0].shape == (2, 6, 6)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((torch.uint8, value) for value in (-1, 256, 0.5, float("nan"), 1j)),
        *((torch.int64, value) for value in (0.5, float("inf"))),
        *((torch.bool, 2), (torch.float16, 1e9), (torch.float32, 1j)),
    ],
)
def test_a_value_that_the_dtype_does_not_have_is_refused(dtype, value):
    """torch would wrap, cut or overflow it."""
    with pytest.raises(ValueError, match="the sample is torch.*which does not have value="):
        collate.pad(value=value)([torch.ones(2, dtype=dtype), torch.ones(1, dtype=dtype)])


@pytest.mark.parametrize(
    ("dtype", "value"),
    [(torch.float16, 0.1), (torch.float32, float("nan")), (torch.int8, -1), (torch.bool, True)],
)
def test_a_value_that_it_has_is_written(dtype, value):
    """Rounded, if it is no integer."""
    values, _ = collate.pad(value=value)([torch.ones(2, dtype=dtype), torch.ones(1, dtype=dtype)])
    expected = torch.tensor([value]).to(dtype)
    assert torch.allclose(values[1, 1:], expected, equal_nan=True) and values.dtype == dtype


@pytest.mark.parametrize(
    ("samples", "options", "words"),
    [
        (
            [(3, 4, 5), (3, 6, 5)],
            {},
            r"\(3, 4, 5\).*\(3, 6, 5\) in sample 1, along axis 1.*axis=\(0, 1\)",
        ),
        ([(3,), (3, 1)], {}, r"\(3,\).*\(3, 1\).*as many axes"),
        ([(3,), (5,)], {"length": 4}, r"\(5,\) in sample 1.*axis 0 than length=4: cut it"),
        ([(3,), (5,)], {"axis": 1, "fields": "x"}, "needs 2 axes"),
        ([(3, 2)] * 2, {"axis": (1, -1)}, "names one of them twice"),
    ],
)
def test_what_cannot_be_padded_is_told_with_field_and_shapes(samples, options, words):
    """And what to do."""
    samples = [{"x": torch.ones(shape)} for shape in samples]
    with pytest.raises(ValueError, match="^field 'x'.*" + words):
        collate.pad(**{"fields": "x", **options})(samples)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"side": "top"}, ValueError, "side must be 'right' or 'left', got 'top'"),
        ({"mask": 1}, TypeError, "mask must be True, False or a name"),
        ({"mask": ""}, ValueError, "mask must be"),
        ({"value": "0"}, TypeError, "value must be a number"),
        ({"axis": ()}, ValueError, "at least one axis"),
        ({"axis": (1, 1)}, ValueError, "each once"),
        ({"axis": 1.0}, TypeError, "axis must be an integer"),
        ({"length": -1}, ValueError, "length must be in"),
        ({"length": (1, 2)}, ValueError, "length must be one number, or 1"),
        ({"multiple_of": 0}, ValueError, "multiple_of must be in"),
        ({"multiple_of": None}, TypeError, "multiple_of must be an integer"),
    ],
)
def test_arguments_are_checked_at_the_door(options, error, words):
    """Before the first batch."""
    with pytest.raises(error, match=words):
        collate.pad(**options)
