"""Spelled dtypes: a spelling is the dtype, whatever its byte order and padding, and members are found by their names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.values import dtypes

NUMBERS = "? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 c8 c16 M8[ns] M8[D] m8[10us]".split()
#: What numpy cannot say is in metadata, as h5py leaves it.
OBJECTS = {
    "text": np.dtype(object, metadata={"vlen": str}),
    "bytes": np.dtype(object, metadata={"vlen": bytes}),
    "ragged int16": np.dtype(object, metadata={"vlen": np.dtype(">i2")}),
    "ragged ragged float32": np.dtype(
        object, metadata={"vlen": np.dtype(object, metadata={"vlen": np.dtype("f4")})}
    ),
    "reference": np.dtype(object, metadata={"ref": object}),
    "bfloat16": np.dtype("u2", metadata={"small": "bfloat16"}),
}
NAMES = st.text("ab/é \"{'", min_size=1, max_size=4)


@st.composite
def leaves(draw):
    """A numpy dtype that is not compound, and its spelling."""
    kind = draw(st.sampled_from(["number", "object", "S", "U", "V"]))
    if kind == "object":
        spelling = draw(st.sampled_from(sorted(OBJECTS)))
        return OBJECTS[spelling], spelling
    if kind != "number":
        size = draw(st.integers(1, 9))
        return np.dtype(f"{kind}{size}"), {"S": "bytes", "U": "text", "V": f"opaque[{size}]"}[kind]
    one = np.dtype(draw(st.sampled_from(NUMBERS)))
    return one.newbyteorder(draw(st.sampled_from("<>"))), one.name


@st.composite
def compounds(draw, inside):
    """A compound numpy dtype, packed, aligned or with gaps, and its members: a name, what it is, its shape."""
    members = draw(
        st.lists(
            st.tuples(NAMES, inside, st.lists(st.integers(1, 3), max_size=2).map(tuple)),
            min_size=1,
            max_size=4,
            unique_by=lambda member: member[0],
        )
    )
    formats = [np.dtype((one, shape)) if shape else one for _, (one, _), shape in members]
    names = [name for name, _, _ in members]
    told = tuple((name, spelling, shape) for name, (_, spelling), shape in members)
    # numpy aligns objects only in places of their own
    how = draw(st.sampled_from(["packed", "aligned", "gaps"]))
    if how != "gaps":
        return np.dtype(list(zip(names, formats, strict=True)), align=how == "aligned"), told
    offsets, end = [], 0
    for one in formats:
        offsets.append(-(-(end + draw(st.integers(0, 9))) // 8) * 8)
        end = offsets[-1] + one.itemsize
    layout = {"names": names, "formats": formats, "offsets": offsets, "itemsize": end + 8}
    return np.dtype(layout), told


ANY = st.recursive(leaves(), lambda inside: compounds(inside), max_leaves=6)


def members_of(dtype):
    """What a spelled dtype is, as ``compounds`` tells it."""
    if dtype.kind != "compound":
        return dtype.name
    return tuple((name, members_of(one.dtype), one.shape) for name, one in dtype.members.items())


@given(ANY)
def test_a_spelling_is_parsed_back_to_the_same_members(made):
    """Names, nesting, shapes and kinds come back; byte order and padding do not matter."""
    numpy_dtype, told = made
    name = dtypes.spelled(numpy_dtype)
    assert members_of(dtypes.parse(name)) == told
    assert dtypes.parse(name).name == name


@given(ANY, ANY)
def test_two_dtypes_have_one_spelling_only_if_they_are_the_same(one, other):
    """No quote, brace or slash in a name makes one dtype look like another."""
    assert (dtypes.spelled(one[0]) == dtypes.spelled(other[0])) == (one[1] == other[1])


@given(ANY)
def test_memory_is_native_and_without_padding(made):
    """In memory a compound is as large as its members."""
    memory = dtypes.parse(dtypes.spelled(made[0])).memory

    def size(dtype):
        if dtype.subdtype is not None:
            return size(dtype.base) * int(np.prod(dtype.shape))
        if dtype.names is None:
            assert dtype.isnative
            return dtype.itemsize
        return sum(size(dtype[name]) for name in dtype.names)

    assert memory.itemsize == size(memory)


@given(ANY, st.data())
def test_a_member_is_found_by_the_names_that_lead_to_it(made, data):
    """Joined by slashes, also where a name has a slash itself; what is none is told apart."""
    dtype = dtypes.parse(dtypes.spelled(made[0]))
    paths = dtype.leaves()
    path = data.draw(st.sampled_from(paths))
    found = dtype.path_to("/".join(path))
    assert found is not None and "/".join(found) == "/".join(path)
    assert dtype.path_to("/".join([*path, "none"])) is None or "/" in str(made[1])
    shape, one = (), dtype
    for name in path:
        shape, one = shape + one.members[name].shape, one.members[name].dtype
    assert dtype.at(path) == (one, shape)


def test_of_two_members_that_a_path_may_mean_the_longer_name_is_meant():
    """A name with a slash is an exception, which whoever writes it means."""
    dtype = dtypes.parse('{"a": {"b": "int8"}, "a/b": "int16"}')
    assert dtype.path_to("a/b") == ("a/b",) and dtype.path_to("a") == ("a",)


@given(ANY, st.data())
def test_only_keeps_some_members_in_the_sequence_that_is_asked_for(made, data):
    """As a list of leaves, those of one member together where the first of them is."""
    dtype = dtypes.parse(dtypes.spelled(made[0]))
    wanted = data.draw(st.lists(st.sampled_from(dtype.leaves()), min_size=1, unique=True))

    def first_of_each_prefix(path):
        starts = [path[:depth] for depth in range(1, len(path) + 1)]
        return [[one[: len(start)] for one in wanted].index(start) for start in starts]

    kept = sorted(wanted, key=first_of_each_prefix)
    assert dtype.only(wanted).leaves() == kept
    assert all(dtype.only(wanted).at(path) == dtype.at(path) for path in kept)


def test_put_goes_by_names_and_not_by_places():
    """Some members of padded, big-endian elements, nested ones too; a complex number from its two parts."""
    stored = np.zeros(
        3,
        {
            "names": ["a", "b", "z"],
            "formats": [
                ">i4",
                [("x", ">f8", (2,)), ("y", "S3")],
                [("real", ">f4"), ("imag", ">f4")],
            ],
            "offsets": [8, 16, 40],
            "itemsize": 64,
        },
    )
    stored["a"], stored["b"]["y"] = [1, 2, 3], [b"p", b"qqq", b""]
    stored["b"]["x"] = np.arange(6).reshape(3, 2)
    stored["z"]["real"], stored["z"]["imag"] = [1, 2, 3], [4, 5, 6]
    dtype = dtypes.parse(dtypes.spelled(stored.dtype)).only([("z",), ("b", "y"), ("b", "x")])
    out = np.empty(3, dtype.memory)
    dtypes.put(out, stored)
    assert out.dtype.names == ("z", "b")
    assert out["b"]["y"].tolist() == [b"p", b"qqq", b""]
    assert out["b"]["x"].tolist() == [[0, 1], [2, 3], [4, 5]]
    assert out["z"].tolist() == [1 + 4j, 2 + 5j, 3 + 6j]


def test_put_gives_times_the_unit_of_their_array():
    """h5py leaves it out within rows of their own lengths; a unit that is there is converted."""
    out = np.empty(2, "M8[h]")
    dtypes.put(out, np.array([1, 2], ">i8").view(">M8"))
    assert out.astype(np.int64).tolist() == [1, 2]
    dtypes.put(out, np.array([1, 2], "M8[D]"))
    assert out.astype(np.int64).tolist() == [24, 48]


def test_complex_parts_that_stand_otherwise_are_no_complex_number():
    """The imaginary part first, a gap between them, or two kinds of floats: a compound of two members."""
    pair = {"names": ["real", "imag"], "formats": ["f4", "f4"]}
    for layout in (
        pair | {"offsets": [4, 0]},
        pair | {"offsets": [0, 8], "itemsize": 16},
        pair | {"formats": ["f4", "i4"]},
        pair | {"names": ["re", "im"]},
    ):
        assert dtypes.as_complex(np.dtype(layout)) == np.dtype(layout)
        assert dtypes.parse(dtypes.spelled(np.dtype(layout))).kind == "compound"
    assert dtypes.spelled(np.dtype(pair)) == "complex64"


def test_plain_text_can_be_had_back_whatever_its_bytes_are():
    """Bytes that are no UTF-8 become lone surrogates, as in names of files; bytes stay bytes."""
    odd = b"caf\xe9"
    text = dtypes.plain(np.array(odd, object), dtypes.parse("text"))
    assert isinstance(text, str) and text.encode("utf-8", "surrogateescape") == odd
    assert dtypes.plain(np.array(odd, object), dtypes.parse("bytes")) == odd
    assert dtypes.plain(np.array([["é".encode()], [b""]], object), dtypes.parse("text")) == [
        ["é"],
        [""],
    ]


def test_plain_arrays_are_no_others():
    """Each is a copy, at any depth: what was read may be kept for others."""
    inside = np.arange(3, dtype=">i2")
    row = np.empty((), object)
    row[()] = inside
    given_ = dtypes.plain(row, dtypes.parse("ragged int16"))
    given_ += 1
    assert inside.tolist() == [0, 1, 2] and given_.dtype == np.dtype("i2")
    outer = np.empty(2, object)
    outer[0], outer[1] = np.arange(2.0), np.arange(1.0)
    row[()] = outer
    first, second = dtypes.plain(row, dtypes.parse("ragged ragged float64"))
    first += 1
    assert outer[0].tolist() == [0, 1] and second.tolist() == [0]


def test_nothing_is_what_padding_is_made_of():
    """Zero, no text, an empty array."""
    assert dtypes.parse("text").nothing == "" and dtypes.parse("bytes").nothing == b""
    empty = dtypes.parse("ragged int8").nothing
    assert empty.shape == (0,) and empty.dtype == np.int8
    assert dtypes.parse("complex64").nothing == 0 and dtypes.parse("bool").nothing == np.False_


@pytest.mark.parametrize(
    "name",
    [
        *"O <f4 i4 V3 3f4 S3 U { {} []".split(),
        *["", "text ", "ragged ", "ragged O"],
        *['{"": "int8"}', '{"a": 3}', '{"a": null}', '{"a": ["int8", [-1]]}', '{"a": ["int8"]}'],
        *['{"a":' * 5000, "ragged " * 5000 + "int8"],
    ],
    ids=lambda name: name[:12],
)
def test_what_is_no_spelling_is_a_value_error(name):
    """Also what numpy would take for a dtype: one dtype has one spelling."""
    with pytest.raises(ValueError):  # noqa: PT011 - each has a reason of its own
        dtypes.parse(name)
