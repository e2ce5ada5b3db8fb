"""anemoi: samples are those of ``open_dataset`` at the dates that anemoi's training finds usable, gaps left out."""

import datetime

import numpy as np
import pytest
from equality import assert_all_same

from globidx import FileCacheDataset, GlobalIndexManager, Window

# its own call of its own function
pytestmark = pytest.mark.filterwarnings(
    "ignore:Loading the settings config file with load_config:DeprecationWarning"
)

anemoi = pytest.importorskip("anemoi.datasets")
compat = pytest.importorskip("anemoi.datasets.compat")
usable_indices = pytest.importorskip("anemoi.training.data.usable_indices")

VARIABLES = ["2t", "10u", "10v", "tp"]
DATES, GRID, HOURS = 40, 24, 6
MISSING = {"none": [], "inside": [7, 8, 20], "also at the ends": [0, 13, DATES - 1]}
OFFSETS = [(0,), (-1, 0), (0, 1), (-1, 0, 1, 2), (-4, 0, 4), (0, 3, 7), (-9, 0, 1)]


def write_store(path, missing, zarr_format):
    """Writes a store as anemoi's creator leaves it: a chunk a date, missing dates as NaN and as texts in an attribute."""
    start = datetime.datetime(2020, 2, 27)
    dates = [start + datetime.timedelta(hours=HOURS * step) for step in range(DATES)]
    data = np.random.default_rng(0).normal(size=(DATES, len(VARIABLES), 2, GRID)).astype("f4")
    data[missing] = np.nan
    root = compat.zarr_open(str(path), "w", zarr_format=zarr_format)
    root.attrs.update(
        {
            "frequency": f"{HOURS}h",
            "variables": VARIABLES,
            "resolution": "o2",
            "field_shape": [GRID],
            "missing_dates": [dates[step].isoformat() for step in missing],
        }
    )
    blosc = compat.blosc_compressor(zarr_format=zarr_format)
    root.create_array("data", data=data, chunks=(1, *data.shape[1:]), compressors=blosc)
    arrays = {
        "dates": np.array(dates, "datetime64[s]"),
        "latitudes": np.linspace(90, -90, GRID),
        "longitudes": np.linspace(0, 345, GRID),
        # not anemoi's: the same gaps as arrays
        "is_missing": np.isin(np.arange(DATES), missing),
        "missing_rows": np.array(missing, "i8"),
    }
    for name, values in arrays.items():
        root.create_array(name, data=values, compressors=None)
    return path


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """The peer reports each store that it opens, by a process of its own, and has files at home; here it does not."""
    monkeypatch.setattr("anemoi.datasets.usage.store.collect_analytics", lambda *_, **__: None)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(params=[2, 3], ids=["zarr2", "zarr3"], scope="module")
def stores(request, tmp_path_factory):
    """A store for each of ``MISSING``."""
    folder = tmp_path_factory.mktemp("anemoi")
    return {
        name: write_store(folder / f"{name}.zarr", missing, request.param)
        for name, missing in MISSING.items()
    }


def opened(path, cache_dir, window, missing):
    index = GlobalIndexManager(
        [str(path)],
        key="data",
        sequences="file",
        window=window,
        missing=missing,
        cache_dir=cache_dir,
    )
    return FileCacheDataset(index)


def usable(theirs, offsets):
    return usable_indices.get_usable_indices(theirs.missing, len(theirs), list(offsets))


def samples(theirs, offsets):
    """What anemoi's training reads: the dates around each usable one."""
    return [
        np.stack([theirs[int(date + offset)] for offset in offsets])
        for date in usable(theirs, offsets)
    ]


@pytest.mark.parametrize("missing", [name for name in MISSING if MISSING[name]])
@pytest.mark.parametrize("offsets", OFFSETS)
def test_windows_that_touch_a_missing_date_are_left_out(stores, tmp_path, missing, offsets):
    """For each set of offsets, samples are those of the usable dates, numbered without gaps."""
    theirs = anemoi.open_dataset(str(stores[missing]))
    ours = opened(stores[missing], tmp_path, Window(offsets), sorted(theirs.missing))
    assert_all_same(ours, samples(theirs, offsets))


@pytest.mark.parametrize("array", ["is_missing", "missing_rows"])
def test_an_array_says_what_is_missing(stores, tmp_path, array):
    """A flag a row, or the numbers of the rows, in an array of the file: the same samples as with a list."""
    for missing in MISSING:
        theirs = anemoi.open_dataset(str(stores[missing]))
        ours = opened(stores[missing], tmp_path / missing, Window((-1, 0, 1)), array)
        assert_all_same(ours, samples(theirs, (-1, 0, 1)))


def test_anchors_are_anemois_dates(stores, tmp_path):
    """The anchor of an id is the usable date that it is the sample of; a date that is not usable has no id."""
    offsets = (-1, 0, 2)
    theirs = anemoi.open_dataset(str(stores["also at the ends"]))
    index = opened(
        stores["also at the ends"], tmp_path, Window(offsets), sorted(theirs.missing)
    ).index_manager
    dates = usable(theirs, offsets).tolist()
    assert [index.where(sample_id).anchor for sample_id in range(len(index))] == dates
    assert [index.sample_id(0, date) for date in dates] == [*range(len(index))]
    for date in set(range(len(theirs))) - set(dates):
        with pytest.raises((ValueError, LookupError)):
            index.sample_id(0, date)


def test_strides_count_anchors_before_gaps_are_left_out(stores, tmp_path):
    """Every third date from the first on, less those that are not usable: what anemoi's ``frequency`` leaves."""
    theirs = anemoi.open_dataset(str(stores["inside"]))
    dates = [date for date in range(0, len(theirs) - 1, 3) if not {date, date + 1} & theirs.missing]
    expected = [np.stack([theirs[date], theirs[date + 1]]) for date in dates]
    ours = opened(stores["inside"], tmp_path, Window((0, 1), stride=3), sorted(theirs.missing))
    assert_all_same(ours, expected)
