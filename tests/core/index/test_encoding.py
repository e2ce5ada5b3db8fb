"""The bytes of a cache file: pinned, and refused where they are damaged, forged or of a later version."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index import encoding
from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import Inner
from globidx.core.index.table import ArrayInfo, Entry, Table
from globidx.core.json import strict
from globidx.errors import RecordVersionError
from tests.core.index.test_table import rows

GOLDEN = Path(__file__).parents[2] / "golden" / "index-1.bin"


def resealed(header, body):
    """A cache file whose digest is right, whatever it says."""
    header = {name: value for name, value in header.items() if name != "blake2b"}
    sealed = {name: value for name, value in header.items() if name not in ("format", "version")}
    said = hashlib.blake2b(strict.canonical(sealed), digest_size=32)
    said.update(body)
    text = (
        json.dumps(header | {"blake2b": said.hexdigest()}, separators=(",", ":")).encode() + b"\n"
    )
    start = b"globidx.index\n" + b"%d\n" % len(text) + text
    return start + b"\0" * (-len(start) % 64) + body


def opened(data):
    """Header and body of a cache file."""
    line = data.index(b"\n") + 1
    end = data.index(b"\n", line)
    size = int(data[line:end])
    start = end + 1 + size
    return json.loads(data[end + 1 : start]), data[start + -start % 64 :]


SMALL = Table.of(
    ["a", "b"],
    [
        Entry("zarr3", n, (ArrayInfo("x", (3,), "uint16", 4, "x"),), bytes(16), ((1, 2, 3, 4),))
        for n in (3, 4)
    ],
)
#: The same, with two sequences and a missing row in each file.
INNER = Table.of(
    ["a", "b"],
    [
        replace(
            SMALL.entry(row),
            inner=Inner("ends", ("ends",), "only", "gone"),
            episodes=Episodes.of([0, 1], [1, 2], listed=np.array([True, False])),
            missing=Missing.of([2]),
        )
        for row in range(2)
    ],
)


#: The same, with names of codes in each file.
NAMED = Table.of(
    ["a", "b"],
    [
        replace(SMALL.entry(row), categories=(names,))
        for row, names in enumerate(('["B", "T"]', '["T"]'))
    ],
)


def test_a_resealed_cache_is_read():
    """The helper makes what the library makes."""
    for table in (SMALL, INNER, NAMED):
        data = encoding.encode(table)
        assert resealed(*opened(data)) == data


@settings(max_examples=400)
@given(st.data())
def test_a_cache_that_lies_under_a_right_digest_is_refused_or_harmless(data):
    """Whoever can write a cache can seal one: it is a ValueError, or a table that can be used like any."""
    header, body = opened(encoding.encode(data.draw(st.sampled_from([SMALL, INNER, NAMED]))))
    body = bytearray(body)
    if data.draw(st.booleans()):
        column = header["columns"][data.draw(st.sampled_from(sorted(header["columns"])))]
        shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 16, 2**40]), min_size=1, max_size=4)
        column.update(
            data.draw(
                st.fixed_dictionaries({}, optional={"shape": shapes, "offset": st.integers(0, 600)})
            )
        )
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(
            st.sampled_from([0, 1, 3, 127, 128, 255])
        )
    if data.draw(st.booleans()):
        header["bytes"] = data.draw(st.integers(0, 2**40))
    try:
        table = encoding.decode(resealed(header, bytes(body)))
    except ValueError:
        return
    assert len(rows(table)) == len(table) == len(list(table.names)) == 2
    assert (table.lengths >= 0).all() and len(table.fingerprint()) == 32


@pytest.mark.parametrize(
    "change",
    [
        {"columns": None},
        {"arrays": []},
        {"arrays": [{"name": "x"}]},
        {"inner": None},
        {"inner": {"kind": "file"}},
        {"columns": {}},
        {"bytes": -1},
        {"extra": 1},
        {"format": "globidx.record"},
        {"version": 0},
        {"version": True},
    ],
)
def test_a_header_of_another_form_is_a_value_error(change):
    """Named or not, whatever is no index cache of this version is refused, never taken in part."""
    header, body = opened(encoding.encode(SMALL))
    with pytest.raises(ValueError):  # noqa: PT011 - each change has a reason of its own
        encoding.decode(resealed(header | change, body))


@pytest.mark.parametrize("version", [2, 99, 2**31])
def test_a_later_version_is_told_apart(version):
    """It is no damage: RecordVersionError, also where the later one has other fields."""
    header, body = opened(encoding.encode(SMALL))
    for later in (
        header | {"version": version},
        {"format": "globidx.index", "version": version, "new": [1]},
    ):
        with pytest.raises(RecordVersionError, match=str(version)):
            encoding.decode(resealed(later, body))


def test_categories_are_read_back():
    """The names that codes have in each file; a table without any has no columns of them."""
    table = encoding.decode(encoding.encode(NAMED))
    assert table.categories.joined_names(0) == ("B", "T")
    assert [table.categories.codes(file, 0).tolist() for file in (0, 1)] == [[0, 1], [1]]
    assert encoding.decode(encoding.encode(SMALL)).categories is None
    assert not any("category" in name for name in opened(encoding.encode(SMALL))[0]["columns"])


@pytest.mark.parametrize(
    ("numbers", "told"),
    [
        ([[0, 1], [1, 0]], "not one list for each array and file"),
        ([[2], [0]], "categories that are not there"),
        ([[0], [-2]], "categories that are not there"),
    ],
)
def test_categories_that_no_index_has_are_refused(numbers, told):
    """Under a right digest, too."""
    odd = replace(NAMED.categories, numbers=np.array(numbers))
    with pytest.raises(ValueError, match=told):
        encoding.decode(encoding.encode(replace(NAMED, categories=odd)))


def test_columns_are_the_bytes_that_were_given():
    """Nothing is copied, so that a mapped file stays on the disk; and nobody can write to it."""
    data = encoding.encode(SMALL)
    table = encoding.decode(data)
    for column in (table.lengths, table.stamps, table.names.arrays()[0]):
        assert not column.flags.owndata and not column.flags.writeable
        assert np.shares_memory(column, np.frombuffer(data, np.uint8))


def golden_table():
    """Three arrays and sequences in files of three kinds, one without a stamp, with a name outside ASCII."""

    def entry(kind, length, chunk, *stamps):
        packing = "add_offset float 0.5" if chunk == 8 else "_FillValue int64 -1"
        arrays = (
            ArrayInfo("images", (2, 3), "uint16", chunk, "entry/data"),
            ArrayInfo("labels", (), "int64", 0, "labels", form="tokens", packing=packing),
            ArrayInfo("pt", (3,), '{"p": {"t\u00e9": ["bfloat16", [2]]}}', 0, "jets", member="p"),
        )
        return Entry(kind, length, arrays, bytes(range(16)), stamps)

    stamp = (2**40, 1_700_000_000_000_000_000, -1, 2**63 - 1)
    every = [
        entry("hdf5", 7, 4, stamp),
        entry("zarr2", 0, 8, stamp, (0, 0, 0, 0)),
        entry("zarr3", 2**40, 4),
    ]
    runs = [([0, 3], [3, 4]), ([], []), ([5], [2**39])]
    inside = [Episodes.of(starts, lengths, arrays=3) for starts, lengths in runs]
    every = [
        replace(
            entry,
            inner=Inner("ends", ("meta/ends",), None, "gone"),
            episodes=episodes,
            missing=Missing.of([2] if entry.length == 7 else []),
        )
        for entry, episodes in zip(every, inside, strict=True)
    ]
    return Table.of(["a.h5", "g/\u00e9.zarr", "g/z.zarr"], every)


@pytest.mark.parametrize(
    "dtype", ["", "O", "<f4", "V3", "{", "{}", '{"a": 3}', '{"a": ["int8", [-1]]}']
)
def test_a_cache_of_a_dtype_that_is_none_is_a_value_error(dtype):
    """An index that spells a dtype otherwise than this library is no cache of it."""
    header, body = opened(encoding.encode(SMALL))
    header["arrays"][0]["dtype"] = dtype
    with pytest.raises(ValueError, match="dtype"):
        encoding.decode(resealed(header, body))


def test_golden_bytes():
    """A cache of version 1 is the same bytes on every platform, header and columns, and is read back whole."""
    data = GOLDEN.read_bytes()
    assert encoding.encode(golden_table()) == data
    assert encoding.encode(encoding.decode(data)) == data
    assert rows(encoding.decode(data)) == rows(golden_table())
