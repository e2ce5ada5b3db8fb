"""The table against a plain list of entries, in memory and as the bytes of a cache file."""

import hashlib
import json
import os
import struct
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from globidx.core.index import encoding
from globidx.core.index.episodes import Episodes, Missing
from globidx.core.index.layout import Inner
from globidx.core.index.table import ArrayInfo, Entry, Table, describe

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
    packings = [""] if alike else ["", "add_offset float 1.0", "_FillValue int16 -1"]
    arrays = tuple(
        ArrayInfo(
            name,
            tuple(shape),
            dtype,
            draw(st.integers(0, 2**40)),
            name if alike else draw(st.sampled_from(["", "p", "q/r"])),
            packing=draw(st.sampled_from(packings)),
            axis=len(shape),
        )
        for name, shape, dtype in schema
    )
    stamps = tuple(draw(stamp) for _ in range(1 if kind == "hdf5" else len(arrays)))
    return Entry(
        kind, draw(st.integers(0, 2**40)), arrays, draw(st.binary(min_size=16, max_size=16)), stamps
    )


@st.composite
def with_episodes(draw, entry, *, is_apart, is_named):
    """The entry with sequences inside it, and rows that are missing."""
    lengths = np.array(draw(st.lists(st.integers(0, 4), max_size=4)), np.int64)
    ends = np.cumsum(lengths)
    total = int(lengths.sum())
    chunk_lengths = [[draw(st.integers(0, 9)) for _ in entry.arrays] for _ in lengths]
    episodes = Episodes.of(
        ends - lengths,
        lengths,
        listed=np.array([draw(st.booleans()) for _ in lengths], bool),
        chunk_lengths=chunk_lengths if is_apart else None,
        names=[f"demo_{number}" for number in range(len(lengths))] if is_named else (),
        arrays=len(entry.arrays),
    )
    missing = draw(st.sets(st.integers(0, total - 1))) if total else ()
    return replace(
        entry,
        length=total,
        inner=Inner("match" if is_apart else "ends", () if is_apart else ("ends",), "only"),
        episodes=episodes,
        missing=Missing.of(sorted(missing)),
    )


def inside(episodes):
    """Episodes in plain words."""
    if episodes is None:
        return None
    return [
        (
            episodes.name(row),
            int(episodes.starts[row]),
            int(episodes.lengths[row]),
            bool(episodes.listed[row]),
            episodes.chunk_lengths[row].tolist() if episodes.is_apart else None,
        )
        for row in range(len(episodes))
    ]


@st.composite
def files(draw, *, at_least=1, most=6):
    """Names and entries of some files of one index."""
    schema = draw(schemas)
    count = draw(st.integers(at_least, most))
    same = draw(st.sampled_from([True, False, None]))
    holds = draw(st.sampled_from([None, "apart", "together"]))
    is_named = draw(st.booleans())
    every = [draw(entries(schema, same)) for _ in range(count)]
    if holds:
        every = [
            draw(with_episodes(entry, is_apart=holds == "apart", is_named=is_named))
            for entry in every
        ]
    names = [f"{draw(st.sampled_from(['', 'a/', 'b/']))}{place}" for place in range(count)]
    return names, every


def rows(table):
    """What a table says of each file, in plain words; an HDF5 file has one stamp."""
    found = []
    for place in range(len(table)):
        entry = table.entry(place)
        kept = entry.stamps[: 1 if entry.kind == "hdf5" else None]
        found.append(
            (
                table.names[place],
                entry.kind,
                entry.length,
                entry.arrays,
                entry.digest,
                kept,
                inside(entry.episodes),
                entry.inner,
            )
        )
    return found


def plain(names, every):
    return [
        (name, e.kind, e.length, e.arrays, e.digest, e.stamps, inside(e.episodes), e.inner)
        for name, e in zip(names, every, strict=True)
    ]


@given(files())
def test_a_table_gives_back_what_was_put_in(some):
    """Every row, in memory and read back from bytes; equal tables are equal bytes."""
    table = Table.of(*some)
    assert rows(table) == plain(*some)
    data = encoding.encode(table)
    again = encoding.decode(data)
    assert rows(again) == plain(*some)
    assert encoding.encode(again) == data and again.schema == table.schema == some[1][0].schema
    assert again.fingerprint() == table.fingerprint()


@given(files(at_least=2), st.data())
def test_tables_that_are_joined_are_the_table_of_all(some, data):
    """Cut anywhere, also into many: rows and fingerprint are those of one table."""
    names, every = some
    cuts = sorted(data.draw(st.sets(st.integers(1, len(names) - 1))))
    edges = list(zip([0, *cuts], [*cuts, len(names)], strict=True))
    parts = [Table.of(names[a:b], every[a:b]) for a, b in edges]
    whole = Table.of(names, every)
    joined = Table.joined(parts)
    assert rows(joined) == rows(whole) and joined.fingerprint() == whole.fingerprint()
    assert encoding.encode(joined) == encoding.encode(whole)
    assert rows(Table.joined([encoding.decode(encoding.encode(part)) for part in parts])) == rows(
        whole
    )


@given(files(), st.data())
def test_take_takes_rows(some, data):
    """Any places in any sequence: the table of those files."""
    names, every = some
    places = data.draw(st.lists(st.integers(0, len(names) - 1), min_size=1, max_size=8))
    taken = Table.of(names, every).take(np.array(places, np.int64))
    chosen = [names[p] for p in places], [every[p] for p in places]
    assert rows(taken) == plain(*chosen)
    assert encoding.encode(taken) == encoding.encode(Table.of(*chosen))


@given(files())
def test_the_fingerprint_is_made_of_names_counts_shapes_and_dtypes(some):
    """Spelled out here once more, for every number of first files; places, stamps, chunks and digests are not in it."""
    names, every = some
    table = Table.of(names, every)
    axes = [array.axis for array in every[0].arrays]
    for count in range(1, len(names) + 1):
        first = names[:count]
        folder = os.path.commonprefix(first).rpartition("/")[0]
        cut = len(folder) + 1 if folder else 0
        parts = [
            json.dumps(
                [
                    axes[0] if len(set(axes)) == 1 else axes,
                    [[a.name, list(a.item_shape), a.dtype] for a in every[0].arrays],
                ]
            ).encode(),
            struct.pack(f"<{count}q", *(entry.length for entry in every[:count])),
            b"".join(os.fsencode(name[cut:]) + b"\0" for name in first),
        ]
        spelled = b"globidx.index.1" + b"".join(b"%d:%s" % (len(part), part) for part in parts)
        if every[0].episodes is not None:
            held = [entry.episodes for entry in every[:count]]
            numbers = [len(some) for some in held]
            for name in ("starts", "lengths", "listed"):
                numbers += [int(one) for some in held for one in getattr(some, name)]
            spelled += struct.pack(f"<{len(numbers)}q", *numbers)
            spelled += b"".join(name.encode() + b"\0" for some in held for name in some.names)
        assert table.fingerprint(count) == hashlib.blake2b(spelled, digest_size=16).hexdigest()
    assert table.fingerprint() == table.fingerprint(len(names))


@given(files())
def test_each_packing_is_told_with_the_first_file_that_has_it(some):
    """Of each array, whether all files are packed alike or not; and that of any one file."""
    names, every = some
    table = Table.of(names, every)
    for column in range(len(table.arrays)):
        spelled = [entry.arrays[column].packing for entry in every]
        told = table.packings_of(column)
        assert told == [(spelled.index(one), one) for one in dict.fromkeys(spelled)]
        assert [table.packing(file, column) for file in range(len(table))] == spelled


def test_a_description_names_every_array():
    """For messages: what each is called and holds, also where it has no name."""
    arrays = (ArrayInfo("x", (2, 3), "uint16", 4, "x"), ArrayInfo("", (), "int64", 0, ""))
    assert (
        describe(Table.of(["a"], [Entry("zarr3", 1, arrays, b"0" * 16)]))
        == "x of (2, 3) uint16, array of () int64"
    )
