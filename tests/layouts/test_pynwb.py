"""NWB files of neurophysiology: each row is what pynwb reads, of series, tables and columns in runs."""

import datetime
from pathlib import Path

import numpy as np
import pytest
from equality import assert_all_same, read_all

from globidx import FileCacheDataset, GlobalIndexManager, Window
from globidx.errors import BadFilesError

pynwb = pytest.importorskip("pynwb")
ecephys = pytest.importorskip("pynwb.ecephys")
H5DataIO = pytest.importorskip("hdmf.backends.hdf5").H5DataIO

TIMES, TRIALS, UNITS = 257, 11, 6
RAW = "acquisition/raw/data"
TRIAL = "intervals/trials"


def write(path, seed):
    """A session: a compressed electrical series, a position by timestamps, units of spikes and a table of trials."""
    rng = np.random.default_rng(seed)
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    session = pynwb.NWBFile(
        session_description=f"session {seed}", identifier=str(seed), session_start_time=start
    )
    device = session.create_device("probe")
    group = session.create_electrode_group("shank", "a shank", "CA1", device)
    for number in range(5):
        session.add_electrode(location=f"CA{number % 3}", group=group, x=float(number))
    region = session.create_electrode_table_region(list(range(5)), "all")
    volts = rng.integers(-999, 999, (TIMES, 5)).astype("i2")
    packed = H5DataIO(volts, compression="gzip", shuffle=True, fletcher32=True, chunks=(50, 2))
    session.add_acquisition(
        ecephys.ElectricalSeries(name="raw", data=packed, electrodes=region, rate=1000.0)
    )
    session.add_acquisition(
        pynwb.TimeSeries(
            name="position",
            data=rng.normal(size=(TIMES, 2)),
            unit="m",
            timestamps=np.cumsum(rng.uniform(size=TIMES)),
        )
    )
    session.add_unit_column("quality", "how well it was sorted")
    for number in range(UNITS):
        # the first has no spike at all
        spikes = np.sort(rng.uniform(0, 9, 3 * number if seed else number + 2))
        session.add_unit(spike_times=spikes, quality=["good", "mua"][number % 2])
    session.add_trial_column("tag", "what was shown")
    session.add_trial_column("licks", "times of licks", index=True)
    session.add_trial_column("frames", "images, two numbers each", index=True)
    session.add_trial_column("nested", "runs of runs", index=2)
    for number in range(TRIALS):
        session.add_trial(
            start_time=float(number),
            stop_time=number + rng.uniform(),
            tag=f"bild {number} ü",
            licks=rng.uniform(size=rng.integers(0, 4)),
            frames=rng.normal(size=(rng.integers(1, 4), 2)),
            nested=[[1.0] * (1 + number % 2), [2.0]],
        )
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(session)


@pytest.fixture(scope="module")
def sessions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sessions")
    for seed in range(3):
        write(folder / f"session_{seed}.nwb", seed)
    return [str(path) for path in sorted(folder.iterdir())]


def read(paths, rows):
    """What ``rows`` makes of each session as pynwb gives it."""
    found = []
    for path in paths:
        with pynwb.NWBHDF5IO(path, "r") as io:
            found += rows(io.read())
    return found


def opened(paths, cache_dir, key, **options):
    return FileCacheDataset(GlobalIndexManager(paths, key=key, cache_dir=cache_dir, **options))


def test_rows_of_series_are_pynwbs(sessions, tmp_path):
    """Compressed volts, positions and their times, row by row through all sessions of a folder."""
    key = {"volts": RAW, "at": "acquisition/position/{data,timestamps}"}

    def rows(session):
        volts = session.acquisition["raw"].data[:]
        position = session.acquisition["position"]
        data, times = position.data[:], position.timestamps[:]
        return [
            {"volts": volts[row], "at": {"data": data[row], "timestamps": times[row]}}
            for row in range(TIMES)
        ]

    folder = str(Path(sessions[0]).parent)
    assert_all_same(opened(folder, tmp_path, key), read(sessions, rows))


def test_windows_over_a_series(sessions, tmp_path):
    """Samples of time around an anchor stay in their session."""

    def rows(session):
        volts = session.acquisition["raw"].data[:]
        return [volts[first : first + 10] for first in range(0, TIMES - 9, 7)]

    window = Window(range(10), stride=7)
    ours = opened(sessions, tmp_path, RAW, sequences="file", window=window)
    assert_all_same(ours, read(sessions, rows))


def test_rows_of_tables_with_their_runs_are_pynwbs(sessions, tmp_path):
    """Numbers, text, and columns of any number of rows, by their ends."""
    key = {
        "start": f"{TRIAL}/start_time",
        "id": f"{TRIAL}/id",
        "tag": f"{TRIAL}/tag",
        "licks": f"{TRIAL}/licks[:{TRIAL}/licks_index]",
        "frames": f"{TRIAL}/frames[:{TRIAL}/frames_index]",
    }

    def rows(session):
        trials = session.trials
        return [
            {
                "start": trials["start_time"].data[row],
                "id": trials.id.data[row],
                "tag": trials["tag"].data[row],
                "licks": np.asarray(trials["licks"][row]),
                "frames": np.asarray(trials["frames"][row]),
            }
            for row in range(TRIALS)
        ]

    assert_all_same(opened(sessions, tmp_path, key), read(sessions, rows))


def test_spikes_of_units_are_pynwbs(sessions, tmp_path):
    """A unit without a spike is a sample, first in its session or not."""
    key = {"spikes": "units/spike_times[:units/spike_times_index]", "quality": "units/quality"}

    def rows(session):
        units = session.units
        return [
            {
                "spikes": np.asarray(units.get_unit_spike_times(row)),
                "quality": units["quality"].data[row],
            }
            for row in range(UNITS)
        ]

    expected = read(sessions, rows)
    assert len(expected[UNITS]["spikes"]) == 0 < len(expected[0]["spikes"])
    assert_all_same(opened(sessions, tmp_path, key), expected)


@pytest.mark.parametrize("session", [0, 1])
def test_an_index_of_nwb_is_not_taken_for_offsets(sessions, tmp_path, session):
    """Whether its first run is empty, as in session 1, or not: the error has the key that is right."""
    with pytest.raises(BadFilesError, match=r"VectorIndex of NWB.*'units/spike_times\[:units/sp"):
        opened(sessions[session], tmp_path, "units/spike_times[units/spike_times_index]")


def test_runs_of_runs_are_read_level_by_level(sessions, tmp_path):
    """Each index is a field of its own; a transform puts them together."""
    inner = f"{TRIAL}/nested[:{TRIAL}/nested_index]"
    outer = f"{TRIAL}/nested_index[:{TRIAL}/nested_index_index]"

    def rows(session):
        nested = session.trials["nested"].target
        return [np.asarray(nested[run]) for run in range(len(nested.data))]

    expected = read(sessions, rows)
    assert_all_same(opened(sessions, tmp_path / "inner", inner), expected)
    ends = read_all(opened(sessions, tmp_path / "outer", outer))
    assert [len(one) for one in ends] == [2] * TRIALS * len(sessions)


def test_references_are_refused_by_name(sessions, tmp_path):
    """The group of an electrode is a reference, which nothing outside the file can follow; its name is text."""
    table = "general/extracellular_ephys/electrodes"
    with pytest.raises(ValueError, match=f"'{table}/group' has dtype reference"):
        opened(sessions, tmp_path, f"{table}/group")

    def rows(session):
        electrodes = session.electrodes
        return [
            {"group_name": electrodes["group_name"].data[row], "x": electrodes["x"].data[row]}
            for row in range(5)
        ]

    key = {"group_name": f"{table}/group_name", "x": f"{table}/x"}
    assert_all_same(opened(sessions, tmp_path, key), read(sessions, rows))
