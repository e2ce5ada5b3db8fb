"""HCS plates: each sample is what iohub reads at the same time of the same field of view."""

import numpy as np
import pytest
from equality import assert_all_same, assert_same

from globidx import FileCacheDataset, GlobalIndexManager, Window

open_ome_zarr = pytest.importorskip("iohub.ngff").open_ome_zarr

# in the order of a plate on a table; iohub itself lists column 10 before column 2
POSITIONS = [("A", "1", "0"), ("A", "1", "1"), ("A", "2", "0"), ("A", "10", "0"), ("B", "1", "2")]
TIMES = [5, 1, 4, 3, 6]
CHANNELS = ["DAPI", "GFP"]


def write_plate(path, version):
    """Writes a plate with iohub, each field of view of its own number of times, and a second resolution beside it."""
    rng = np.random.default_rng(0)
    sharding = {"shards_ratio": (2, 1, 1, 1, 1)} if version == "0.5" else {}
    with open_ome_zarr(
        path, layout="hcs", mode="w", channel_names=CHANNELS, version=version
    ) as plate:
        for position, times in zip(POSITIONS, TIMES, strict=True):
            field = plate.create_position(*position)
            data = rng.integers(0, 65535, (times, len(CHANNELS), 3, 8, 6), np.uint16)
            field.create_image("0", data, chunks=(1, 1, 3, 8, 6), **sharding)
    return path


@pytest.fixture(params=["0.4", "0.5"], scope="module")
def plate(request, tmp_path_factory):
    return write_plate(tmp_path_factory.mktemp("plate") / "plate.zarr", request.param)


def opened(path, cache_dir, window, **options):
    index = GlobalIndexManager(
        [str(path)],
        key="*/*/*/0",
        sequences="match",
        window=window,
        cache_dir=cache_dir,
        **options,
    )
    return FileCacheDataset(index)


def fields_of(path):
    """Name and values of every field of view, as iohub reads them, in the order of ``POSITIONS``."""
    with open_ome_zarr(path, layout="hcs", mode="r") as plate:
        read = {name: np.asarray(field["0"][:]) for name, field in plate.positions()}
    assert len(read) == len(POSITIONS)
    return {name: read[name] for name in map("/".join, POSITIONS)}


def test_times_of_all_fields_of_view_are_samples(plate, tmp_path):
    """Each time of each field of view, column 2 before column 10."""
    expected = [stack for values in fields_of(plate).values() for stack in values]
    assert_all_same(opened(plate, tmp_path, 0), expected)


def test_the_layout_finds_the_fields_of_view(plate, tmp_path):
    """``layout="ome"`` on a plate: a sequence a field of view, named by row, column and field, as iohub names it."""
    index = GlobalIndexManager([str(plate)], layout="ome", cache_dir=tmp_path)
    assert list(index.sequences.names) == list(fields_of(plate))
    expected = [stack for values in fields_of(plate).values() for stack in values]
    assert_all_same(FileCacheDataset(index), expected)


def test_windows_stay_in_their_field_of_view(plate, tmp_path):
    """Three times in a row, of fields of view that have as many."""
    expected = [
        values[first : first + 3]
        for values in fields_of(plate).values()
        for first in range(len(values) - 2)
    ]
    assert_all_same(opened(plate, tmp_path, Window(range(3))), expected)


def test_every_other_pair_of_times_with_padding(plate, tmp_path):
    """A stride counts from the first time of each field of view; the last pair repeats the last time."""
    expected = [
        values[[first, min(first + 1, len(values) - 1)]]
        for values in fields_of(plate).values()
        for first in range(0, len(values), 2)
    ]
    assert_all_same(opened(plate, tmp_path, Window(range(2), stride=2, pad="edge")), expected)


def test_samples_are_told_which_field_of_view_they_are_of(plate, tmp_path):
    """A sequence is named as iohub names the field of view."""
    fields = fields_of(plate)
    dataset = opened(plate, tmp_path, 0)
    index = dataset.index_manager
    assert list(index.sequences.names) == list(fields)
    for sample_id in range(len(index)):
        where = index.where(sample_id)
        values = fields[index.sequences.names[where.sequence]]
        assert_same(dataset[sample_id], values[where.anchor], f"sample {sample_id}")
        assert index.sample_id(where.sequence, where.anchor) == sample_id
