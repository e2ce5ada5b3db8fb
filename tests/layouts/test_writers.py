"""Files as their sciences' libraries write them: each array is what that library, and h5py, read of it."""

from __future__ import annotations

from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager

# its filters are for h5py as well
pytest.importorskip("hdf5plugin")
BACKENDS = ("auto", "library")


def rows_of(path, key, cache, **options):
    """The dataset over one array of a file, absent chunks filled as the writers' libraries fill them."""
    index = GlobalIndexManager([str(path)], key=key, cache_dir=cache, **options)
    return [FileCacheDataset(index, backend=one, on_missing="fill") for one in BACKENDS]


def native(values):
    return values.astype(values.dtype.newbyteorder("="))


def assert_numbers(path, cache, *, least):
    """Every array of numbers of a file is what h5py reads; there are ``least`` at least."""
    arrays = {}

    def note(name, node):
        if isinstance(node, h5py.Dataset) and node.size and node.shape and node.dtype.kind in "iuf":
            arrays[name] = node[()]

    with h5py.File(path) as file:
        file.visititems(note)
    assert len(arrays) >= least
    for name, values in arrays.items():
        for axis in {0, values.ndim - 1}:
            expected = list(native(np.moveaxis(values, axis, 0)))
            for dataset in rows_of(path, name, cache, axis=axis if axis == 0 else -1):
                assert_all_same(dataset, expected)


def test_pytables(tmp_path):
    """Arrays of every kind that PyTables has, filters of its own included, and tables as dicts of their columns."""
    tables = pytest.importorskip("tables")
    rng = np.random.default_rng(0)
    table = np.zeros(20, [("a", "i4"), ("b", "f8", (2,)), ("name", "S3")])
    table["a"], table["b"], table["name"] = range(20), rng.random((20, 2)), b"xyz"
    ragged = [rng.integers(0, 9, size).astype("i4") for size in (2, 0, 5)]
    with tables.open_file(tmp_path / "a.h5", "w") as file:
        file.create_array("/", "array", rng.random((10, 3)))
        file.create_array("/", "half", np.arange(6).astype("f2"))
        file.create_array("/", "big", np.arange(6).astype(">i4"))
        for library in ("zlib", "blosc:lz4", "blosc2", "bzip2"):
            filters = tables.Filters(5, library, shuffle=True, fletcher32=library == "zlib")
            name = library.replace(":", "_")
            values = rng.integers(0, 99, (20, 5)).astype("i2")
            file.create_carray("/", name, obj=values, chunkshape=(8, 5), filters=filters)
        grown = file.create_earray(
            "/group", "ear", tables.Float32Atom((2,)), (3, 0), createparents=True
        )
        grown.append(rng.random((3, 5, 2)).astype("f4"))
        file.create_table("/", "table", table)
        lists = file.create_vlarray("/", "ragged", tables.Int32Atom())
        for one in ragged:
            lists.append(one)
    assert_numbers(tmp_path / "a.h5", tmp_path, least=7)
    for dataset in rows_of(tmp_path / "a.h5", "table", tmp_path):
        for sample, row in zip(dataset, table, strict=True):
            assert sample["a"] == row["a"] and sample["name"] == row["name"]
            assert np.asarray(sample["b"]).tobytes() == row["b"].tobytes()
    for dataset in rows_of(tmp_path / "a.h5", "table/b", tmp_path):
        assert_all_same(dataset, list(table["b"]))
    for dataset in rows_of(tmp_path / "a.h5", "ragged", tmp_path):
        assert_all_same(dataset, ragged)


def test_pandas(tmp_path):
    """A frame as ``to_hdf`` writes it: its columns as members of a table."""
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("tables")
    frame = pandas.DataFrame({"a": np.arange(30), "b": np.random.default_rng(0).random(30)})
    for form in ("fixed", "table"):
        frame.to_hdf(
            tmp_path / f"{form}.h5", key="frame", format=form, data_columns=True, index=False
        )
        assert_numbers(tmp_path / f"{form}.h5", tmp_path, least=form == "fixed")
    for name in frame:
        for dataset in rows_of(tmp_path / "table.h5", f"frame/table/{name}", tmp_path):
            assert_all_same(dataset, list(frame[name].to_numpy()))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_pynwb(tmp_path):
    """Time series, compressed and growing, a table of trials, and spikes in runs that an index tells."""
    pynwb = pytest.importorskip("pynwb")
    rng = np.random.default_rng(0)
    volts = rng.random((50, 4))
    trains = [np.sort(rng.random(size)) for size in (3, 1, 6)]
    file = pynwb.NWBFile("session", "id", datetime(2020, 1, 1, tzinfo=UTC))
    stored = pynwb.H5DataIO(
        volts, compression="gzip", chunks=(16, 4), shuffle=True, fletcher32=True, maxshape=(None, 4)
    )
    file.add_acquisition(pynwb.TimeSeries("volts", data=stored, unit="V", rate=1.0))
    file.add_trial_column("kind", "a number")
    for trial in range(5):
        file.add_trial(start_time=float(trial), stop_time=trial + 0.5, kind=trial)
    for train in trains:
        file.add_unit(spike_times=train)
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(file)
    assert_numbers(tmp_path / "a.nwb", tmp_path, least=5)
    for dataset in rows_of(tmp_path / "a.nwb", "acquisition/volts/data", tmp_path):
        assert_all_same(dataset, list(volts))
    # a VectorIndex has the end of each run, and no 0 in front
    runs = {"sequences": "units/spike_times_index", "window": "all"}
    for dataset in rows_of(tmp_path / "a.nwb", "units/spike_times", tmp_path, **runs):
        assert_all_same(dataset, trains)
    # a file that links to the first
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "r") as io:
        linking = pynwb.NWBFile("other", "id2", datetime(2020, 1, 1, tzinfo=UTC))
        linking.add_acquisition(io.read().acquisition["volts"])
        with pynwb.NWBHDF5IO(tmp_path / "b.nwb", "w", manager=io.manager) as other:
            other.write(linking, link_data=True)
    for dataset in rows_of(tmp_path / "b.nwb", "acquisition/volts/data", tmp_path):
        assert_all_same(dataset, list(volts))


def test_h5netcdf(tmp_path):
    """Unlimited dimensions, variables that were written in part or not at all, groups, big-endian numbers."""
    h5netcdf = pytest.importorskip("h5netcdf")
    with h5netcdf.File(tmp_path / "a.nc", "w") as file:
        file.dimensions = {"time": None, "x": 3}
        file.resize_dimension("time", 7)
        file.create_variable("v", ("time", "x"), "f8")[...] = np.random.default_rng(0).random(
            (7, 3)
        )
        file.create_variable("part", ("time", "x"), "i2", fillvalue=-99)[:3] = 1
        file.create_variable("absent", ("time",), "f4")
        file.create_variable("packed", ("time", "x"), ">f8", compression="gzip", chunks=(2, 3))[
            ...
        ] = 1.5
        file.create_group("group").create_variable("w", ("time", "x"), "u1")[...] = 3
    assert_numbers(tmp_path / "a.nc", tmp_path, least=5)


@pytest.mark.parametrize("format", ["NETCDF4", "NETCDF4_CLASSIC"])
def test_netcdf4(tmp_path, format):
    """Compression of every kind that its library was built with, checksums, rounded digits, fill values."""
    netcdf = pytest.importorskip("netCDF4")
    rng = np.random.default_rng(0)
    with netcdf.Dataset(tmp_path / "a.nc", "w", format=format) as file:
        file.createDimension("time", None)
        file.createDimension("x", 400)
        options = [{"zlib": True, "fletcher32": True}, {"least_significant_digit": 2, "zlib": True}]
        options += [
            {"compression": one} for one in ("zstd", "bzip2", "blosc_lz4") if has(one, file)
        ]
        for number, one in enumerate(options):
            variable = file.createVariable(f"v{number}", "f4", ("time", "x"), **one)
            variable[:] = rng.integers(0, 2, (6, 400))
        file.createVariable("part", "i4", ("time", "x"), fill_value=-9)[3] = 5
        file.createVariable("big", ">f8", ("time", "x"), endian="big")[:] = rng.random((6, 400))
    assert_numbers(tmp_path / "a.nc", tmp_path, least=4)


def has(compression, file):
    return getattr(file, f"has_{compression.split('_')[0]}_filter")()


def test_matlab(tmp_path):
    """MATLAB 7.3: 512 bytes of its own in front, columns first, complex numbers as pairs, structures as groups."""
    hdf5storage = pytest.importorskip("hdf5storage")
    rng = np.random.default_rng(0)
    written = {
        "x": rng.random((4, 3)),
        "cube": rng.integers(0, 9, (2, 3, 4)),
        "z": rng.random((1, 3)) * 1j,
        "s": {"a": rng.random((5, 2)), "text": "words"},
    }
    hdf5storage.savemat(str(tmp_path / "a.mat"), written, format="7.3")
    assert (tmp_path / "a.mat").read_bytes().startswith(b"MATLAB 7.3")
    assert_numbers(tmp_path / "a.mat", tmp_path, least=3)
    read = hdf5storage.loadmat(str(tmp_path / "a.mat"))
    for name in ("x", "cube", "z"):
        # MATLAB's last axis comes first in HDF5
        for dataset in rows_of(tmp_path / "a.mat", name, tmp_path, axis=-1):
            assert_all_same(dataset, [one.T for one in read[name]])
