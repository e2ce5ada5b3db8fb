"""Chunks of zarr arrays are counted as a reader finds them, by one listing a folder."""

from __future__ import annotations

import itertools
import os

import numpy as np
import pytest
import zarr
from files import run_python

from globidx.disk.stores import base as stores
from globidx.disk.stores.base import Looking
from globidx.disk.stores.zarr.presence import place_of

SHAPE, CHUNKS = (23, 6), (4, 3)
#: How chunks are named, how they are stored, and whether zarr has to be asked.
WRITERS = {
    "zarr2 dots": {"zarr_format": 2},
    "zarr2 folders": {
        "zarr_format": 2,
        "chunk_key_encoding": {"name": "v2", "separator": "/"},
    },
    "zarr3 folders": {},
    "zarr3 dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
    "zarr3 as zarr2": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "text": {"dtype": "U3", "fill_value": ""},
    "text in shards": {"dtype": "U3", "fill_value": "", "shards": (8, 6)},
}


def written(path, rows, **options):
    """An array of which the chunks that hold any of ``rows`` are written, but for one more."""
    settings = {"shape": SHAPE, "chunks": CHUNKS, "dtype": "u2", "fill_value": 0, **options}
    array = zarr.create_array(path, config={"write_empty_chunks": True}, **settings)
    for row in rows:
        array[row : row + 1] = np.full((1, SHAPE[1]), "x" if array.dtype.kind == "U" else 1)
    return array


def expected(path, array, axis):
    """Chunks, absent ones, and rows in them: each file is asked for by the name that zarr gives it."""
    units = array.shards or array.chunks
    grid = [range(-(-size // unit)) for size, unit in zip(array.shape, units, strict=True)]
    chunks, absent, rows = 0, 0, set()
    for place in itertools.product(*grid):
        chunks += 1
        if not os.path.isfile(f"{path}/{array.metadata.encode_chunk_key(place)}"):
            absent += 1
            first = place[axis] * units[axis]
            rows.update(range(first, min(first + units[axis], array.shape[axis])))
    return chunks, absent, len(rows)


@pytest.mark.filterwarnings("ignore:The data type")
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_absent_is_what_has_no_file(tmp_path, name, sizes, axis):
    """Chunks and rows, against a question for each file; along any axis."""
    array = written(tmp_path / "s.zarr", [0, 9, 22], **WRITERS[name])
    key = array.metadata.encode_chunk_key((0, 0))
    (tmp_path / "s.zarr" / key).unlink()
    kind = f"zarr{array.metadata.zarr_format}"
    with stores.auditor(tmp_path / "s.zarr", kind, looking=Looking(sizes=sizes)) as look:
        audit = look("", axis)
    assert (audit.chunks, audit.absent, audit.rows) == expected(tmp_path / "s.zarr", array, axis)
    assert audit.shape == SHAPE and audit.fill == str(array.fill_value)


def test_chunks_in_shards_are_counted_one_by_one(tmp_path):
    """Those that are left out of a shard, and those of a shard that is not there; rows are of chunks, not of shards."""
    path = tmp_path / "s.zarr"
    array = zarr.create_array(
        path, shape=(14, 3), chunks=(2, 2), shards=(4, 4), dtype="u2", fill_value=0
    )
    array[:2], array[4:8], array[12:] = 1, 1, 1
    # the grid of chunks is 7 x 2, of which rows 1, 4 and 5 are absent
    audit = stores.audit(path, "zarr3", "")
    assert (audit.chunks, audit.absent, audit.rows) == (14, 6, 6)


def test_only_files_that_are_named_as_chunks_count(tmp_path):
    """Other spellings, places beyond the grid, folders and links that lead nowhere are no chunks."""
    array = written(tmp_path / "s.zarr", [0], zarr_format=2)
    for name in ("01.0", "6.0", "1.2", "1", "1.0.0", "-1.0", "1.+1", "1.0.tmp", "٣.0"):
        (tmp_path / "s.zarr" / name).write_bytes(b"x")
    (tmp_path / "s.zarr/2.0").mkdir()
    (tmp_path / "s.zarr/2.1").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "s.zarr/3.0")
    assert expected(tmp_path / "s.zarr", array, 0)[:2] == (12, 10)
    assert stores.audit(tmp_path / "s.zarr", "zarr2", "").absent == 10
    assert place_of("c/1/2", "c/", "/", (2, 3)) == (1, 2)
    assert place_of("d/1/2", "c/", "/", (2, 3)) is None


def test_a_file_without_bytes_is_absent_where_sizes_are_asked_for(tmp_path):
    """As it is for a reader; by its name alone it is there."""
    written(tmp_path / "s.zarr", range(23))
    (tmp_path / "s.zarr/c/1/1").write_bytes(b"")
    found = {}
    for sizes in (False, True):
        with stores.auditor(tmp_path / "s.zarr", "zarr3", looking=Looking(sizes=sizes)) as look:
            found[sizes] = look("", 0).absent
    assert found == {False: 0, True: 1}


# A process of its own: a hook is never taken back, and before Python 3.12 no thread can be traced while one runs.
COUNTED = """
import sys
from globidx.disk.stores import base as stores
from globidx.disk.stores.base import Looking
path, kind = sys.argv[1:]
stores.audit(path, kind, "")  # modules are imported
events = []
sys.addaudithook(lambda event, args: events.append(event))
with stores.auditor(path, kind, looking=Looking(sizes=False)) as look:
    audit = look("", 0)
scanned, opened = map(events.count, ("os.scandir", "open"))
print(audit.absent, scanned, opened)
"""


@pytest.mark.parametrize(("name", "folders"), [("zarr2 dots", 1), ("zarr3 folders", 7)])
def test_each_folder_is_listed_once_and_no_chunk_is_asked_for(tmp_path, name, folders):
    """Listing is what costs: counted by Python's own audit events, opened files too."""
    array = written(tmp_path / "s.zarr", range(23), **WRITERS[name])
    kind = f"zarr{array.metadata.zarr_format}"
    told = run_python(COUNTED, tmp_path / "s.zarr", kind).stdout
    assert told.split() == ["0", str(folders), "1"]


def test_an_array_with_almost_nothing_written_is_counted_at_once(tmp_path):
    """Of 10^15 chunks, the few that are there are looked at."""
    for zarr_format in (2, 3):
        path = tmp_path / f"{zarr_format}.zarr"
        array = zarr.create_array(
            path, shape=(10**15,), chunks=(1,), dtype="u1", fill_value=9, zarr_format=zarr_format
        )
        array[7] = 1
        audit = stores.audit(path, f"zarr{zarr_format}", "")
        assert (audit.chunks, audit.absent, audit.rows) == (10**15, 10**15 - 1, 10**15 - 1)


def test_metadata_that_is_a_fifo_is_not_waited_for(tmp_path):
    """Of a plain array, and of one that zarr would open."""
    written(tmp_path / "s.zarr", [0])
    (tmp_path / "s.zarr/zarr.json").unlink()
    os.mkfifo(tmp_path / "s.zarr/zarr.json")
    with pytest.raises(ValueError, match="no regular file"):
        stores.audit(tmp_path / "s.zarr", "zarr3", "")
    written(tmp_path / "t.zarr", [0], dtype="U3", fill_value="", zarr_format=2)
    (tmp_path / "t.zarr/.zattrs").unlink(missing_ok=True)
    os.mkfifo(tmp_path / "t.zarr/.zattrs")
    with pytest.raises(ValueError, match="no regular file"):
        stores.audit(tmp_path / "t.zarr", "zarr2", "")


def test_what_a_step_raises_ends_the_listing(tmp_path):
    """In a folder with many files, too."""
    written(tmp_path / "s.zarr", range(23), zarr_format=2, chunks=(1, 1))
    steps = iter([None, None])

    def step():
        if next(steps, "over") == "over":
            raise TimeoutError

    with (
        pytest.raises(TimeoutError),
        stores.auditor(tmp_path / "s.zarr", "zarr2", looking=Looking(step=step)) as look,
    ):
        look("", 0)
    assert next(steps, "over") == "over"
