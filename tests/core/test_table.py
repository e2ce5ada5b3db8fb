"""The table against a plain list of entries, in memory and as the bytes of a cache file."""

import hashlib
import json
import os
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx.core.index import encoding
from globidx.core.index.table import ArrayInfo, Entry, Table, describe
from globidx.core.json import strict
from globidx.errors import RecordVersionError

number = st.integers(-(2**63), 2**63 - 1)
stamp = st.tuples(number, number, number, st.integers(0, 2**63 - 1))
schemas = st.lists(
    st.tuples(
        st.sampled_from(["x", "y", "g/é"]),
        st.lists(st.integers(0, 9), max_size=3),
        st.sampled_from(["uint16", "float32"]),
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda schema: schema[0],
)


@st.composite
def entries(draw, schema, same_places=None):
    """An entry of files that agree in ``schema``; arrays lie where they are called, or anywhere."""
    alike = draw(st.booleans()) if same_places is None else same_places
    kind = draw(st.sampled_from(["hdf5", "zarr2", "zarr3"]))
    arrays = tuple(
        ArrayInfo(
            name,
            tuple(shape),
            dtype,
            draw(st.integers(0, 2**40)),
            name if alike else draw(st.sampled_from(["", "p", "q/r"])),
        )
        for name, shape, dtype in schema
    )
    stamps = tuple(draw(stamp) for _ in range(1 if kind == "hdf5" else len(arrays)))
    return Entry(kind, draw(st.integers(0, 2**40)), arrays, draw(st.binary(min_size=16, max_size=16)), stamps)


@st.composite
def files(draw, *, at_least=1, most=6):
    """Names and entries of some files of one index."""
    schema = draw(schemas)
    count = draw(st.integers(at_least, most))
    same = draw(st.sampled_from([True, False, None]))
    names = [f"{draw(st.sampled_from(['', 'a/', 'b/']))}{place}" for place in range(count)]
    return names, [draw(entries(schema, same)) for _ in range(count)]


def rows(table):
    """What a table says of each file, in plain words; an HDF5 file has one stamp."""
    found = []
    for place in range(len(table)):
        entry = table.entry(place)
        kept = entry.stamps[: 1 if entry.kind == "hdf5" else None]
        found.append((table.names[place], entry.kind, entry.length, entry.arrays, entry.digest, kept))
    return found


def plain(names, every):
    return [(name, e.kind, e.length, e.arrays, e.digest, e.stamps) for name, e in zip(names, every, strict=True)]


@given(files(), st.integers(0, 3))
def test_a_table_gives_back_what_was_put_in(some, axis):
    """Every row, in memory and read back from bytes; equal tables are equal bytes."""
    table = Table.of(*some, axis)
    assert rows(table) == plain(*some) and table.axis == axis
    data = encoding.encode(table)
    again = encoding.decode(data)
    assert rows(again) == plain(*some) and again.axis == axis
    assert encoding.encode(again) == data and again.schema == table.schema == some[1][0].schema
    assert again.fingerprint() == table.fingerprint()


@given(files(at_least=2), st.data())
def test_tables_that_are_joined_are_the_table_of_all(some, data):
    """Cut anywhere, also into many: rows and fingerprint are those of one table."""
    names, every = some
    cuts = sorted(data.draw(st.sets(st.integers(1, len(names) - 1))))
    edges = list(zip([0, *cuts], [*cuts, len(names)], strict=True))
    parts = [Table.of(names[a:b], every[a:b], 0) for a, b in edges]
    whole = Table.of(names, every, 0)
    joined = Table.joined(parts)
    assert rows(joined) == rows(whole) and joined.fingerprint() == whole.fingerprint()
    assert encoding.encode(joined) == encoding.encode(whole)
    assert rows(Table.joined([encoding.decode(encoding.encode(part)) for part in parts])) == rows(whole)


@given(files(), st.data())
def test_take_takes_rows(some, data):
    """Any places in any sequence: the table of those files."""
    names, every = some
    places = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=8))
    taken = Table.of(names, every, 0).take(np.array(places, np.int64))
    chosen = [names[p] for p in places], [every[p] for p in places]
    assert rows(taken) == plain(*chosen)
    assert encoding.encode(taken) == encoding.encode(Table.of(*chosen, 0))


@given(files())
def test_the_fingerprint_is_made_of_names_counts_shapes_and_dtypes(some):
    """Spelled out here once more, for every number of first files; places, stamps, chunks and digests are not in it."""
    names, every = some
    table = Table.of(names, every, 0)
    for count in range(1, len(names) + 1):
        first = names[:count]
        folder = os.path.commonprefix(first).rpartition("/")[0]
        cut = len(folder) + 1 if folder else 0
        parts = [
            json.dumps([0, [[a.name, list(a.item_shape), a.dtype] for a in every[0].arrays]]).encode(),
            struct.pack(f"<{count}q", *(entry.length for entry in every[:count])),
            b"".join(os.fsencode(name[cut:]) + b"\0" for name in first),
        ]
        spelled = b"globidx.index.1" + b"".join(b"%d:%s" % (len(part), part) for part in parts)
        assert table.fingerprint(count) == hashlib.blake2b(spelled, digest_size=16).hexdigest()
    assert table.fingerprint() == table.fingerprint(len(names))


def test_a_description_names_every_array():
    """For messages: what each is called and holds, also where it has no name."""
    arrays = (ArrayInfo("x", (2, 3), "uint16", 4, "x"), ArrayInfo("", (), "int64", 0, ""))
    assert (
        describe(Table.of(["a"], [Entry("zarr3", 1, arrays, b"0" * 16)], 0)) == "x of (2, 3) uint16, array of () int64"
    )


# -- what is no cache file


def resealed(header, body):
    """A cache file whose digest is right, whatever it says."""
    header = {name: value for name, value in header.items() if name != "blake2b"}
    sealed = {name: value for name, value in header.items() if name not in ("format", "version")}
    said = hashlib.blake2b(strict.canonical(sealed), digest_size=32)
    said.update(body)
    text = json.dumps(header | {"blake2b": said.hexdigest()}, separators=(",", ":")).encode() + b"\n"
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
    [Entry("zarr3", n, (ArrayInfo("x", (3,), "uint16", 4, "x"),), bytes(16), ((1, 2, 3, 4),)) for n in (3, 4)],
    0,
)


def test_a_resealed_cache_is_read():
    """The helper makes what the library makes."""
    data = encoding.encode(SMALL)
    assert resealed(*opened(data)) == data


@settings(max_examples=400)
@given(st.data())
def test_a_cache_that_lies_under_a_right_digest_is_refused_or_harmless(data):
    """Whoever can write a cache can seal one: it is a ValueError, or a table that can be used like any."""
    header, body = opened(encoding.encode(SMALL))
    body = bytearray(body)
    if data.draw(st.booleans()):
        column = header["columns"][data.draw(st.sampled_from(sorted(header["columns"])))]
        shapes = st.lists(st.sampled_from([0, 1, 2, 3, 4, 16, 2**40]), min_size=1, max_size=4)
        column.update(data.draw(st.fixed_dictionaries({}, optional={"shape": shapes, "offset": st.integers(0, 600)})))
    for _ in range(data.draw(st.integers(0, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.sampled_from([0, 1, 3, 127, 128, 255]))
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
        {"axis": -1},
        {"axis": 1.5},
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
    for later in (header | {"version": version}, {"format": "globidx.index", "version": version, "new": [1]}):
        with pytest.raises(RecordVersionError, match=str(version)):
            encoding.decode(resealed(later, body))


def test_columns_are_the_bytes_that_were_given():
    """Nothing is copied, so that a mapped file stays on the disk; and nobody can write to it."""
    data = encoding.encode(SMALL)
    table = encoding.decode(data)
    for column in (table.lengths, table.stamps, table.names.arrays()[0]):
        assert not column.flags.owndata and not column.flags.writeable
        assert np.shares_memory(column, np.frombuffer(data, np.uint8))
