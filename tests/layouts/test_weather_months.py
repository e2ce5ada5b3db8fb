"""ACE's data: monthly netCDF files are one run of time, so that windows cross from a month into the next.

Their code is on no package index. In words: with T times over all files of a member there are T - n + 1 samples of n
steps; a variable without time comes with each; no window goes from one ensemble member to another.
"""

import numpy as np
import pytest
from equality import assert_all_same, assert_same

from globidx import FileCacheDataset, GlobalIndexManager, Window

netcdf = pytest.importorskip("netCDF4")

LAT, LON = 4, 8
MONTHS = {"2021_9.nc": 5, "2021_10.nc": 1, "2021_11.nc": 7, "2021_12.nc": 4}
KEY = {"T_0": "T_0", "PRESsfc": "PRESsfc", "time": "time"}


def write_months(folder, seed):
    """Writes a file a month with netCDF4, time without limit; returns each variable over all months."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    whole = {name: [] for name in KEY}
    terrain = rng.normal(size=(LAT, LON)).astype("f4")
    begin = 0
    for name, times in MONTHS.items():
        with netcdf.Dataset(folder / name, "w") as file:
            for dimension, size in {"time": None, "lat": LAT, "lon": LON}.items():
                file.createDimension(dimension, size)
            file.createVariable("time", "f8", ("time",))[:] = np.arange(begin, begin + times) * 6.0
            file["time"].units = "hours since 2021-09-01"
            for variable in ("T_0", "PRESsfc"):
                values = rng.normal(size=(times, LAT, LON)).astype("f4")
                chunks = {"chunksizes": (3, LAT, LON), "zlib": True} if variable == "T_0" else {}
                file.createVariable(variable, "f4", ("time", "lat", "lon"), **chunks)[:] = values
                whole[variable].append(values)
            file.createVariable("HGTsfc", "f4", ("lat", "lon"))[:] = terrain
            whole["time"].append(np.arange(begin, begin + times) * 6.0)
        begin += times
    return {name: np.concatenate(parts) for name, parts in whole.items()}, terrain


def windows(whole, terrain, steps, *, offsets=None, stride=1):
    """Samples of the rows ``first + offsets`` of the months laid end to end."""
    offsets = np.arange(steps) if offsets is None else np.array(offsets)
    total = len(whole["time"])
    return [
        {**{name: values[first + offsets] for name, values in whole.items()}, "HGTsfc": terrain}
        for first in range(0, total - int(offsets.max()), stride)
    ]


def opened(files, cache_dir, window, **options):
    index = GlobalIndexManager(
        str(files),
        key=KEY,
        sequences="chain",
        window=window,
        constants={"HGTsfc": "HGTsfc"},
        cache_dir=cache_dir,
        **options,
    )
    return FileCacheDataset(index)


@pytest.mark.parametrize("steps", [1, 2, 5, 12, 17])
def test_windows_cross_from_month_to_month(tmp_path, steps):
    """n steps from every time that n steps follow, over files of 1 to 7 times, September before October."""
    whole, terrain = write_months(tmp_path / "run", seed=0)
    ours = opened(tmp_path / "run" / "*.nc", tmp_path / "cache", Window(range(steps)))
    assert_all_same(ours, windows(whole, terrain, steps))


def test_steps_may_lie_apart_and_samples_too(tmp_path):
    """Every other step over the borders of months, from every third time."""
    whole, terrain = write_months(tmp_path / "run", seed=0)
    window = Window((0, 2, 4), stride=3)
    ours = opened(tmp_path / "run" / "*.nc", tmp_path / "cache", window)
    assert_all_same(ours, windows(whole, terrain, 3, offsets=(0, 2, 4), stride=3))


def test_no_window_goes_from_one_member_to_the_next(tmp_path):
    """``chain_by="parent"``: each folder is a run of its own, with its own variable without time."""
    expected = []
    for member in (2, 10):
        whole, terrain = write_months(tmp_path / "runs" / f"ic_{member}", seed=member)
        expected += windows(whole, terrain, 4)
    ours = opened(
        tmp_path / "runs" / "*" / "*.nc", tmp_path / "cache", Window(range(4)), chain_by="parent"
    )
    assert_all_same(ours, expected)
    by_name = opened(
        tmp_path / "runs" / "*" / "*.nc",
        tmp_path / "cache2",
        Window(range(4)),
        chain_by=lambda path: path.split("/")[-2],
    )
    assert_all_same(by_name, expected)


def test_files_alone_are_sequences_where_windows_may_not_cross(tmp_path):
    """``sequences="file"``: the same files without the samples that cross a border."""
    whole, terrain = write_months(tmp_path / "run", seed=0)
    begins = np.cumsum([0, *MONTHS.values()])
    expected = [
        sample
        for begin, end in zip(begins[:-1], begins[1:], strict=True)
        for sample in windows(
            {name: values[begin:end] for name, values in whole.items()}, terrain, 3
        )
    ]
    index = GlobalIndexManager(
        str(tmp_path / "run" / "*.nc"),
        key=KEY,
        sequences="file",
        window=Window(range(3)),
        constants={"HGTsfc": "HGTsfc"},
        cache_dir=tmp_path / "cache",
    )
    assert_all_same(FileCacheDataset(index), expected)


def test_a_window_over_a_border_names_the_file_of_its_anchor(tmp_path):
    """``where`` gives the chain's row, and the file in which that row lies."""
    whole, _ = write_months(tmp_path / "run", seed=0)
    dataset = opened(tmp_path / "run" / "*.nc", tmp_path / "cache", Window(range(3)))
    index, owners = dataset.index_manager, np.repeat([*MONTHS], [*MONTHS.values()])
    for sample_id in range(len(index)):
        where = index.where(sample_id)
        assert (where.sequence, where.anchor) == (0, sample_id)
        assert where.path == str(tmp_path / "run" / owners[sample_id])
        assert_same(dataset[sample_id]["time"], whole["time"][where.anchor :][:3], f"{where}")
