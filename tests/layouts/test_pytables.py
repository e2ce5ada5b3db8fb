"""Tables of pandas and PyTables: each row is what pandas or PyTables itself reads."""

import pickle

import numpy as np
import pytest
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.errors import BadFilesError

pandas = pytest.importorskip("pandas")
tables = pytest.importorskip("tables")

ROWS = 203


def frame(seed):
    """Columns of all kinds that pandas' table format keeps."""
    rng = np.random.default_rng(seed)
    return pandas.DataFrame(
        {
            "x": rng.normal(size=ROWS),
            "y": rng.normal(size=ROWS),
            "half": rng.normal(size=ROWS).astype("f4"),
            "n": rng.integers(0, 9, ROWS),
            "flag": rng.integers(0, 2, ROWS).astype(bool),
            "at": pandas.date_range("2020-01-01", periods=ROWS, freq="37min"),
            "kind": [f"kïnd {number % 7}" for number in range(ROWS)],
        },
        index=np.arange(ROWS) * 3 + seed,
    )


def opened(path, cache_dir, key, **options):
    return FileCacheDataset(GlobalIndexManager(path, key=key, cache_dir=cache_dir), **options)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two stores, each with a table that was appended to and a frame and a series in fixed format."""
    folder = tmp_path_factory.mktemp("frames")
    for seed in range(2):
        path = folder / f"part_{seed}.h5"
        with pandas.HDFStore(path, "w", complevel=5, complib=["zlib", "blosc"][seed]) as store:
            whole = frame(seed)
            store.append("df", whole[:100], data_columns=["n", "at"])
            store.append("df", whole[100:])
            store.put("numbers", whole[["x", "y", "n"]], format="fixed", track_times=False)
            store.put("series", whole["half"], format="fixed", track_times=False)
    return [str(path) for path in sorted(folder.iterdir())]


def frames_of(stores, name):
    return [pandas.read_hdf(path, name) for path in stores]


def blocks_of(path):
    """The names of a table's blocks, and the columns in each, as pandas keeps them in attributes."""
    with tables.open_file(path) as file:
        attributes = file.root.df.table.attrs
        names = [name for name in file.root.df.table.colnames if name.startswith("values_block")]
        return {name: attributes[f"{name}_kind"] for name in names}


def test_rows_of_pandas_tables(stores, tmp_path):
    """Columns of one dtype are one block, others are columns of their own; bits, times and text as they are stored."""
    columns = ["index", "n", "at", *blocks_of(stores[0])]
    key = {name: f"df/table/{name}" for name in columns}
    assert sorted(map(tuple, blocks_of(stores[0]).values())) == [
        ("flag",),
        ("half",),
        ("kind",),
        ("x", "y"),
    ]
    expected = []
    for path, read in zip(stores, frames_of(stores, "df"), strict=True):
        parts = {"index": read.index.values, "n": read["n"].values}
        parts["at"] = read["at"].values.astype(np.int64)
        for block, names in blocks_of(path).items():
            parts[block] = _as_stored(read[names])
        expected += [{name: part[row] for name, part in parts.items()} for row in range(ROWS)]
    assert_all_same(opened(stores, tmp_path, key, transform=with_arrays_of_bytes), expected)


def _as_stored(block):
    (dtype,) = set(block.dtypes)
    if dtype.kind == "b":
        return block.values.astype("u1")
    if dtype.kind == "f":
        return block.values
    return block.apply(lambda column: column.str.encode("utf-8")).values.astype("S")


def with_arrays_of_bytes(sample):
    """Bytes of a row are a list of Python's; numpy has an array of the longest."""
    longest = max(len(f"kïnd {number}".encode()) for number in range(7))
    return {
        name: np.array(value, f"S{longest}") if isinstance(value, list) else value
        for name, value in sample.items()
    }


def test_a_whole_table_is_a_dict_of_its_blocks(stores, tmp_path):
    """``key="df/table"``: each row as PyTables reads it."""
    expected = []
    for path in stores:
        with tables.open_file(path) as file:
            rows = file.root.df.table[:]
        expected += [{name: _bits(row[name]) for name in rows.dtype.names} for row in rows]
    assert_all_same(opened(stores, tmp_path, "df/table", transform=with_arrays_of_bytes), expected)


def _bits(value):
    """HDF5 has no bool of its own, and PyTables takes eight bits for one."""
    return value.view("u1") if value.dtype == bool else value


def test_fixed_format_is_plain_arrays(stores, tmp_path):
    """A block of each dtype, and the index beside them."""
    key = {
        "index": "numbers/axis1",
        "floats": "numbers/block0_values",
        "n": "numbers/block1_values",
    }
    key["half"] = "series/values"
    expected = []
    for numbers, series in zip(
        frames_of(stores, "numbers"), frames_of(stores, "series"), strict=True
    ):
        expected += [
            {
                "index": numbers.index.values[row],
                "floats": numbers[["x", "y"]].values[row],
                "n": numbers[["n"]].values[row],
                "half": series.values[row],
            }
            for row in range(ROWS)
        ]
    assert_all_same(opened(stores, tmp_path, key), expected)


class Event(tables.IsDescription):
    """A description of PyTables with nested columns, and columns of many dtypes and shapes."""

    name = tables.StringCol(8)
    pixels = tables.Float32Col(shape=(3, 2))
    number = tables.UInt16Col()
    wave = tables.ComplexCol(itemsize=16)
    is_good = tables.BoolCol()
    colour = tables.EnumCol(["red", "green"], "red", base="uint8")

    class vertex(tables.IsDescription):  # noqa: N801, it is the name of a column
        x = tables.Float64Col()
        track = tables.Int8Col(shape=4)


@pytest.fixture(scope="module")
def events(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("events") / "events.h5")
    rng = np.random.default_rng(0)
    with tables.open_file(path, "w") as file:
        table = file.create_table("/", "events", Event, filters=tables.Filters(5, "blosc:zstd"))
        for number in range(ROWS):
            row = table.row
            row["name"], row["number"] = f"n{number}", number
            row["pixels"], row["wave"] = rng.normal(size=(3, 2)), complex(*rng.normal(size=2))
            row["is_good"], row["colour"] = number % 3 == 0, number % 2
            row["vertex/x"], row["vertex/track"] = rng.normal(), rng.integers(-9, 9, 4)
            row.append()
        ragged = file.create_vlarray("/", "ragged", tables.Float64Atom())
        objects = file.create_vlarray("/", "objects", tables.ObjectAtom())
        text = file.create_vlarray("/", "text", tables.VLUnicodeAtom())
        for number in range(ROWS):
            ragged.append(rng.normal(size=number % 5))
            objects.append({"number": number})
            text.append(f"dîm {number}")
        file.create_earray("/", "images", obj=rng.normal(size=(ROWS, 4, 3)))
        file.create_carray("/", "flags", obj=rng.integers(0, 2, ROWS).astype(bool))

        class Late(tables.IsDescription):
            at = tables.Time64Col()
            x = tables.Float64Col()

        file.create_table("/", "late", Late).append([(1.5, 2.0)])
    return path


def test_rows_of_pytables_are_its_own(events, tmp_path):
    """Nested columns are nested dicts; bits and enumerations are the numbers that they are stored as."""
    with tables.open_file(events) as file:
        rows, images = file.root.events[:], file.root.images[:]
        flags, ragged = file.root.flags[:], file.root.ragged[:]
    expected = [
        {
            "events": _as_dict(rows[row]),
            "images": images[row],
            "flags": _bits(flags[row]),
            "ragged": ragged[row],
        }
        for row in range(ROWS)
    ]
    key = {name: name for name in ("events", "images", "flags", "ragged")}

    assert_all_same(opened(events, tmp_path, key), expected)


def _as_dict(row):
    if row.dtype.names is None:
        return _bits(row)
    return {name: _as_dict(row[name]) for name in row.dtype.names}


def test_objects_and_text_of_pytables_are_what_decode_makes_of_their_bytes(events, tmp_path):
    """Pickled objects are bytes, text is a row of code points."""
    with tables.open_file(events) as file:
        expected = [
            {"objects": one, "text": str(two)}
            for one, two in zip(file.root.objects[:], file.root.text[:], strict=True)
        ]
    decode = {
        "objects": lambda row: pickle.loads(row.tobytes()),
        "text": lambda row: "".join(map(chr, row.tolist())),
    }
    ours = opened(events, tmp_path, {"objects": "objects", "text": "text"}, decode=decode)
    assert_all_same(ours, expected)


def test_times_of_hdf5_itself_are_refused_by_name(events, tmp_path):
    """PyTables' Time64Col has a type that h5py cannot read; no other array of the file suffers from it."""
    with pytest.raises(BadFilesError, match="array 'late' .*No NumPy equivalent for TypeTimeID"):
        opened(events, tmp_path, "late")
    assert len(opened(events, tmp_path, "images")) == ROWS
