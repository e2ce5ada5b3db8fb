"""What select= and part= mean, by numpy and torch, and what is refused."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processes import clean_environment

from globidx.core.index.table import ArrayInfo
from globidx.core.reading.selection import Selection, cuts

FIELD = ArrayInfo("x", (4, 6, 5), "float32", 2, "x")
LABEL = ArrayInfo("label", (), "int64", 2, "label")
LATER = ArrayInfo("x", (4, 6, 5), "float32", 2, "x", axis=2)
STACKED = ArrayInfo("x", (4, 5), "float32", 2, "x", form="stacked", axis=2)
RAGGED = ArrayInfo("x", (), "ragged float32", 0, "x", form="ragged")
TOKENS = ArrayInfo("x", (16,), "int64", 64, "x", form="tokens")


def cut(info, select=None, part=None):
    """The one selection of a field."""
    (found,) = cuts([info], select, part)
    return found and found.of()


@given(st.integers(1, 12), st.integers(1, 14), st.booleans())
def test_parts_are_those_of_tensor_split(size, of, negative):
    """Of any length in any number of parts; a rank may be left with nothing."""
    info = ArrayInfo("x", (3, size), "float32", 2, "x")
    whole = torch.arange(3 * size).reshape(1, 3, size)
    for number, expected in enumerate(torch.tensor_split(whole, of, dim=2)):
        found = cut(info, part={-1 if negative else 2: (number, of)})
        mine = whole.numpy() if found is None else found.of(whole.numpy())
        np.testing.assert_array_equal(mine, expected.numpy())
        assert cut(info, part=(number, of)) == found


@given(st.data())
def test_a_part_is_of_what_was_selected(data):
    """First select, then part, along any axis, both ways of numbering it."""
    item = FIELD.item_shape
    axis = data.draw(st.integers(0, 2))
    elements = data.draw(st.lists(st.integers(-item[axis], item[axis] - 1), min_size=1, max_size=7))
    of = data.draw(st.integers(1, 8))
    number = data.draw(st.integers(0, of - 1))
    key = data.draw(st.sampled_from([axis + 1, axis - 3]))
    rows = np.arange(2 * np.prod(item)).reshape(2, *item)
    selected = rows.take(elements, axis=axis + 1)
    expected = torch.tensor_split(torch.from_numpy(selected), of, dim=axis + 1)[number]
    found = cut(FIELD, {key: elements}, {axis + 1: (number, of)})
    mine = rows if found is None else found.of(rows)
    np.testing.assert_array_equal(mine, expected.numpy())
    assert found is None or (len(rows), *found.shape) == tuple(expected.shape)


@pytest.mark.parametrize(
    ("info", "select", "shape"),
    [
        (LATER, {0: 1, 1: slice(1, 4), 3: [0]}, (3, 1)),
        (STACKED, {1: slice(2), 3: [4, 0, 0]}, (2, 3)),
        (STACKED, {-1: 2}, (4,)),
        (FIELD, {-3: np.array([0, 2]), -2: np.int64(5), -1: range(1, 5, 2)}, (2, 2)),
        (FIELD, {1: (3, -1)}, (2, 6, 5)),
    ],
)
def test_axes_are_those_of_the_stored_array(info, select, shape):
    """The axis of the items counts, wherever it lies."""
    assert cut(info, select).shape == shape


def test_all_of_an_item_is_no_selection():
    """So that it is read, and kept, as if nothing had been asked for."""
    assert cut(FIELD, {1: slice(None), 2: [0, 1, 2, 3, 4, 5]}) is None
    assert cuts([FIELD, LABEL], {"x": {}}, {"x": (0, 1)}) == [None, None]


def test_equal_selections_are_one_key_in_any_process():
    """A list and a slice of the same elements share what was read, also in a worker that is spawned."""
    one, same = cut(FIELD, {1: slice(1, 3)}), cut(FIELD, {1: [1, 2]})
    assert one == same and hash(one) == hash(same) and len({one, same}) == 1
    assert one != cut(FIELD, {1: [2, 1]}) and one != cut(FIELD, {2: slice(1, 3)})
    code = (
        "import pickle, sys; one = pickle.loads(sys.stdin.buffer.read());"
        "from globidx.core.reading.selection import Selection;"
        "assert {one: 1}[Selection(one.item_shape, one.taken)] == 1"
    )
    hash(one)
    subprocess.run(
        [sys.executable, "-c", code],
        input=pickle.dumps(one),
        check=True,
        env=clean_environment(),
    )
    assert isinstance(one, Selection)


REFUSED = [
    (FIELD, {0: 1}, None, ValueError, "axis 0 of array 'x' is that of its items"),
    (FIELD, {-4: 1}, None, ValueError, r"axis 0 .* choose among axes \[1, 2, 3\]"),
    (LATER, {2: 1}, None, ValueError, r"axis 2 .* choose among axes \[0, 1, 3\]"),
    (STACKED, {0: 1}, None, ValueError, r"axis 0 .* choose among axes \[1, 3\]"),
    (STACKED, {2: 1}, None, ValueError, "axis 2 .* is that of its items"),
    (TOKENS, {0: 1}, None, ValueError, "it has no other axis"),
    (FIELD, {4: 1}, None, ValueError, r"stored with 4 axes, and 4 is none of them, \[-4, 4\)"),
    (FIELD, {1: 0, -3: 1}, None, ValueError, "axis 1 of array 'x' twice, also as -3"),
    (FIELD, {1: slice(3, None, -1)}, None, ValueError, "positive step"),
    (FIELD, {1: slice(4, 9)}, None, ValueError, "takes nothing of an axis of 4"),
    (FIELD, {1: []}, None, ValueError, "takes nothing"),
    (FIELD, {1: slice(0.5)}, None, TypeError, "no slice of integers"),
    (FIELD, {1: [0, 4]}, None, IndexError, r"element 4 is outside \[-4, 4\)"),
    (FIELD, {1: -5}, None, IndexError, r"select\[1\]: element -5 is outside \[-4, 4\)"),
    (FIELD, {1: [True, False]}, None, TypeError, "must be an integer, got True"),
    (FIELD, {1: np.ones(4, bool)}, None, TypeError, "must be integers, got an array of bool"),
    (FIELD, {1: [0.5]}, None, TypeError, "must be an integer, got 0.5"),
    (FIELD, {1: "all"}, None, TypeError, "must be a slice, a list of integers or an integer"),
    (FIELD, {1: True}, None, TypeError, "must be an integer, got True"),
    (FIELD, {1.0: 1}, None, TypeError, "an axis of select must be an integer"),
    (FIELD, [3, 7], None, TypeError, "select must be {axis: slice, list or int}"),
    (
        FIELD,
        {"y": {1: 0}},
        None,
        ValueError,
        "field 'y', which the dataset does not read; it reads 'x'",
    ),
    (FIELD, {"x": [3]}, None, TypeError, r"select\['x'\] must be {axis: slice"),
    (FIELD, {"x": {1: 0}, 1: 0}, None, TypeError, "or a dict of these by field"),
    (FIELD, None, (2, 2), ValueError, r"number must be in \[0, 2\), got 2; parts count from 0"),
    (FIELD, None, (0, 0), ValueError, r"of in part must be in \[1, "),
    (FIELD, None, (-1, 2), ValueError, "number in part must be in"),
    (FIELD, None, (0, 1, 2), TypeError, r"part must be \(number, of\), two integers"),
    (FIELD, None, 3, TypeError, r"part must be \(number, of\) or"),
    (FIELD, None, {0: (0, 2)}, ValueError, r"part\[0\]: axis 0 of array 'x' is that of its items"),
    (FIELD, None, {"x": {1: 2}}, TypeError, r"part\[1\] must be \(number, of\)"),
    (FIELD, {2: 0}, {2: (0, 2)}, ValueError, "along axis 2, of which select= takes one element"),
    (FIELD, {1: 0, 2: 0, 3: 0}, (0, 2), ValueError, "have no axis to take a part of"),
    (RAGGED, {1: 0}, None, ValueError, "are of any shape"),
    (RAGGED, None, (0, 2), ValueError, "are of any shape"),
    (TOKENS, None, (0, 2), ValueError, "have no axis to take a part of"),
]


@pytest.mark.parametrize(("info", "select", "part", "kind", "words"), REFUSED)
def test_what_cannot_be_meant_is_one_clear_error(info, select, part, kind, words):
    """What, which value, and which rule, before anything is read."""
    with pytest.raises(kind, match=words):
        cuts([info], select, part)


def test_of_several_fields_those_that_have_the_axis_are_named():
    """A label has no part: the error says to name fields, and naming one is the remedy."""
    with pytest.raises(
        ValueError, match="samples of array 'label' have no axis .* name the fields"
    ):
        cuts([FIELD, LABEL], part=(0, 2))
    found, none = cuts([FIELD, LABEL], part={"x": (0, 2)})
    assert found.of().shape == (4, 6, 3) and none is None
    with pytest.raises(ValueError, match="select must name the fields, {'x': ...}.* 'x', 'label'"):
        cuts([FIELD, LABEL], {1: 0})


def test_a_crop_is_told_the_shape_in_the_arrays_own_axes():
    """One item long where its items lie; what it returns is checked as what is written down."""
    shapes = []

    def left(rng, shape):
        shapes.append(shape)
        return {3: slice(0, 2)}

    (found,) = cuts([LATER], left, {1: (1, 2)})
    assert found.is_crop and found.of(np.random.default_rng(0)).shape == (4, 3, 2)
    assert shapes == [(4, 6, 1, 5)]
    (found,) = cuts([LATER], {"x": lambda rng, shape: 3})
    with pytest.raises(TypeError, match=r"select must return a dict of axes, .* got 3"):
        found.of(np.random.default_rng(0))
    (found,) = cuts([LATER], {"x": lambda rng, shape: {2: slice(1)}})
    with pytest.raises(ValueError, match="axis 2 of array 'x' is that of its items"):
        found.of(np.random.default_rng(0))
