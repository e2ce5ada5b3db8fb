"""The index over real files: right, refused, cached, and the same for everybody."""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from files import environment, numbers, run_python, settled_manager, write_hdf5, write_zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.core.index import encoding
from globidx.errors import BadFilesError, NoFilesError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def folder(tmp_path):
    """Three files, a, b and c, with 3, 0 and 4 items."""
    for name, length in (("a.h5", 3), ("b.zarr", 0), ("c.h5", 4)):
        (write_hdf5 if name.endswith("h5") else write_zarr)(
            tmp_path / name, numbers(length), key="x"
        )
    return tmp_path


def taken(scans):
    seen = sorted(scans)
    scans.clear()
    return seen


# -- ids


@settings(max_examples=30)
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=6), data=st.data())
def test_ids_run_through_the_items_of_the_files_in_order(lengths, data):
    """``locate``, ``locate_many`` and ``sample_id`` agree with a list of all (path, item), empty files and all."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [
            write_hdf5(f"{folder}/{place}.h5", numbers(n, (2,))) for place, n in enumerate(lengths)
        ]
        manager = GlobalIndexManager(paths)
        oracle = [(path, item) for path, n in zip(paths, lengths, strict=True) for item in range(n)]
        assert len(manager) == len(oracle) and manager.lengths.tolist() == lengths
        assert [tuple(manager.locate(id)) for id in range(len(oracle))] == oracle
        assert [manager.sample_id(path, item) for path, item in oracle] == list(range(len(oracle)))
        for bad in (-1, len(oracle)):
            with pytest.raises(IndexError):
                manager.locate(bad)
        ids = data.draw(st.lists(st.integers(0, len(oracle) - 1))) if oracle else []
        files, items = manager.locate_many(ids)
        assert [(manager.paths[f], int(i)) for f, i in zip(files, items, strict=True)] == [
            oracle[id] for id in ids
        ]
        assert files.dtype == items.dtype == np.int64


def test_items_of_no_file_are_refused(folder):
    """Another file is a ValueError, another item an IndexError."""
    manager = GlobalIndexManager(folder)
    assert manager.sample_id(2, 3) == manager.sample_id(folder / "c.h5", 3) == 6
    with pytest.raises(ValueError, match="not one of the 3 files"):
        manager.sample_id(folder / "d.h5", 0)
    for file, item in (("b.zarr", 0), ("a.h5", 3), ("a.h5", -1)):
        with pytest.raises(IndexError, match="item"):
            manager.sample_id(folder / file, item)
    with pytest.raises(IndexError, match="file index 3"):
        manager.sample_id(3, 0)


def test_several_aligned_arrays_are_one_index(tmp_path):
    """Each key is an array of its own shape and dtype, in the sequence asked for, from both kinds of file."""
    for name, write, n in (("a.h5", write_hdf5, 3), ("b.zarr", write_zarr, 5)):
        write(
            tmp_path / name,
            {"g/x": numbers(n, (2, 2)), "y": numbers(n, (), "f4"), "z": numbers(n + 1)},
        )
    manager = GlobalIndexManager(tmp_path, key=["y", "/g/x"])
    assert len(manager) == 8
    assert [(a.name, a.item_shape, a.dtype) for a in manager.arrays] == [
        ("y", (), "float32"),
        ("g/x", (2, 2), "uint16"),
    ]


@pytest.mark.parametrize("write", [write_hdf5, write_zarr])
def test_arrays_that_are_not_aligned_are_refused(tmp_path, write):
    """Two keys of different lengths name no samples: both lengths are told."""
    path = write(
        tmp_path / "a.h5" if write is write_hdf5 else tmp_path / "a.zarr",
        {"x": numbers(3), "y": numbers(4)},
    )
    with pytest.raises(BadFilesError, match="not aligned: 'x' has 3 items, 'y' has 4 items"):
        GlobalIndexManager(path, key=["x", "y"])


@pytest.mark.parametrize("key", ["", "/", [], ["x", ""], ["x", "x"], ["x", "/x"], [5], b"x"])
def test_keys_that_name_nothing_are_refused(folder, key):
    """An empty, repeated or wrong key is a ValueError, before any file is opened."""
    with pytest.raises(ValueError, match="key (must name|names) an array"):
        GlobalIndexManager(folder, key=key)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"axis": -65}, ValueError),
        ({"axis": 1.0}, TypeError),
        ({"on_bad": "ignore"}, ValueError),
        ({"settled_after": -1}, ValueError),
        ({"settled_after": float("nan")}, ValueError),
    ],
)
def test_options_are_checked_at_the_door(folder, options, error):
    """A wrong option is refused by name."""
    with pytest.raises(error, match=next(iter(options))):
        GlobalIndexManager(folder, **options)


@pytest.mark.parametrize("files", [None, 5, b"data", {"a.h5": 1}, [5]])
def test_files_that_are_no_paths_are_a_type_error(files):
    """Bytes, numbers and dicts are refused in words."""
    with pytest.raises(TypeError, match="files must be"):
        GlobalIndexManager(files)


def test_items_may_lie_along_any_axis(tmp_path):
    """With ``axis=1`` the second dimension is the item's number."""
    write_zarr(tmp_path / "a.zarr", numbers(5, (3, 2)), axis=1)
    write_hdf5(tmp_path / "b.h5", numbers(4, (3, 2)), axis=1, key="x")
    assert GlobalIndexManager(tmp_path / "a.zarr", axis=1).arrays[0].item_shape == (3, 2)
    assert GlobalIndexManager(tmp_path / "b.h5", axis=1).lengths.tolist() == [4]


# -- files that cannot be indexed


def test_all_bad_files_are_told_ten_of_them_in_the_message(tmp_path):
    """``failures`` lists every one; the message names the first ten and counts the rest."""
    write_hdf5(tmp_path / "good.h5", numbers(2))
    for number in range(13):
        (tmp_path / f"bad{number:02}.h5").write_bytes(b"no HDF5")
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(tmp_path)
    assert [os.path.basename(path) for path, _ in error.value.failures] == [
        f"bad{n:02}.h5" for n in range(13)
    ]
    assert all(f"bad{n:02}.h5" in str(error.value) for n in range(10)) and "bad10.h5" not in str(
        error.value
    )
    assert "13 files cannot be indexed" in str(error.value) and "and 3 more" in str(error.value)
    assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_bad_files_can_be_left_out_by_name(tmp_path, caplog):
    """With on_bad="skip" they are in ``skipped`` and in the log; the index is that of the others alone."""
    for place in ("good/a.h5", "good/b.h5"):
        (tmp_path / "good").mkdir(exist_ok=True)
        write_hdf5(tmp_path / place, numbers(2))
    (tmp_path / "bad.h5").write_bytes(b"")
    manager = GlobalIndexManager(tmp_path, on_bad="skip")
    alone = GlobalIndexManager(tmp_path / "good")
    assert [os.path.basename(path) for path, _ in manager.skipped] == [
        "bad.h5"
    ] and "left out 1 of 3" in caplog.text
    assert (
        manager.paths == alone.paths
        and manager.fingerprint == alone.fingerprint
        and len(manager) == 4
    )
    again = GlobalIndexManager(tmp_path, on_bad="skip")
    assert again.skipped == manager.skipped and again.fingerprint == manager.fingerprint
    with pytest.raises(BadFilesError):
        GlobalIndexManager(tmp_path / "bad.h5", on_bad="skip")


def test_a_wrong_key_names_the_keys_there_are(folder):
    """The message says what could have been meant."""
    with pytest.raises(BadFilesError, match=r"a\.h5: it has no array 'y'; there is 'x'"):
        GlobalIndexManager(folder, key="y")


def test_a_wrong_key_in_all_files_is_one_line(tmp_path):
    """How many, why, what is there, and what was probably meant; no advice to skip all of them."""
    for number in range(30):
        write_hdf5(tmp_path / f"{number:02}.h5", numbers(number + 1), key="images")
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(tmp_path, key="image")
    said = str(error.value)
    assert said == (
        f"none of the 30 files can be indexed, all for the reason of the first: {tmp_path}/00.h5: "
        "it has no array 'image' (did you mean 'images'?); there is 'images' of (1, 3)"
    )
    assert len(error.value.failures) == 30


def test_files_that_differ_in_numbers_only_share_a_line(tmp_path):
    """Of other lengths, and no key; or of other shapes: one of them is told, and that the others are alike."""
    for number in range(12):
        arrays = {"x": numbers(number + 2, (number // 2 + 1,)), "y": numbers(number + 9)}
        write_hdf5(tmp_path / f"{number:02}.h5", arrays)
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(tmp_path)
    assert str(error.value) == (
        f"none of the 12 files can be indexed, all for the reason of the first: {tmp_path}/00.h5: "
        "it holds 2 arrays ('x' of (2, 1), 'y' of (9, 3)); choose with key= (--key), one or several of equal length"
    )
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(tmp_path, key="x")
    first, line = str(error.value).split("\n")
    assert first.startswith("10 files cannot be indexed")
    assert line.count("it has x of (2,)") == line.count("it has x of") == 1
    assert line.endswith("(the first of them; the others differ in numbers)")


def test_what_files_have_in_common_is_said_once(tmp_path):
    """Files that fail alike share a line, with their names; others have their own, and a name is never a line."""
    write_hdf5(tmp_path / "good.h5", numbers(2))
    for name in ("n1.h5", "n2.h5", "n3\nforged.h5"):
        write_hdf5(tmp_path / name, numbers(2), key="y")
    (tmp_path / "empty.h5").write_bytes(b"")
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(tmp_path, key="x")
    first, *lines = str(error.value).split("\n")
    assert first.startswith("4 files cannot be indexed") and len(lines) == 2
    (shared,) = (line for line in lines if "it has no array" in line)
    assert shared.count("it has no array") == 1
    assert all(name in shared for name in ("n1.h5", "n2.h5", "n3\\nforged.h5"))


@pytest.mark.parametrize("one", ["", "/*.h5", "/*", "/**/*.h5"])
@pytest.mark.parametrize("other", ["/", "/[ab]*.h5", "/*.*"])
@pytest.mark.parametrize("place", [None, "cache"])
def test_files_named_in_another_way_are_not_looked_at_again(tmp_path, scans, one, other, place):
    """A build over ``data/`` serves ``data/*.h5``: what was learnt of a file counts, however it is named."""
    data, cache = tmp_path / "data", place and tmp_path / place
    data.mkdir()
    for name, count in (("a.h5", 2), ("b.h5", 3)):
        write_hdf5(data / name, numbers(count), key="x")
    built = settled_manager(f"{data}{one}", key="x", cache_dir=cache)
    assert sorted(scans) == ["a.h5", "b.h5"]
    scans.clear()
    again = settled_manager(f"{data}{other}", key="x", cache_dir=cache)
    assert (
        scans == [] and again.fingerprint == built.fingerprint and again.lengths.tolist() == [2, 3]
    )


def test_what_is_cached_of_other_arrays_is_no_help(tmp_path, scans):
    """Another key, axis or layout is another index, of the same files."""
    for name in ("a.h5", "b.h5"):
        write_hdf5(tmp_path / name, {"x": numbers(4, (3,)), "y": numbers(2, (5,))})
    assert settled_manager(tmp_path, key="x").lengths.tolist() == [4, 4]
    for options, lengths in (({"key": "y"}, [2, 2]), ({"key": "x", "axis": 1}, [3, 3])):
        scans.clear()
        assert settled_manager(f"{tmp_path}/*.h5", **options).lengths.tolist() == lengths
        assert sorted(scans) == ["a.h5", "b.h5"]


@pytest.mark.parametrize("other", [numbers(2, (4,)), numbers(2, (3,), "i4"), numbers(2, (3, 1))])
def test_files_of_another_shape_or_dtype_are_refused_by_both_names(tmp_path, other):
    """One index has one item shape and dtype: the file that differs and the first are named, with what they hold."""
    write_hdf5(tmp_path / "a.h5", numbers(2))
    write_hdf5(tmp_path / "b.h5", other)
    with pytest.raises(
        BadFilesError, match=r"b\.h5: it has x of .*, while in .*a\.h5 there is x of \(3,\) uint16"
    ):
        GlobalIndexManager(tmp_path)
    assert GlobalIndexManager(tmp_path, on_bad="skip").num_files == 1


def test_byte_order_and_chunking_may_differ(tmp_path):
    """What is the same once read is the same item."""
    write_hdf5(tmp_path / "a.h5", numbers(2, dtype=">u2"))
    write_hdf5(tmp_path / "b.h5", numbers(3), chunk=2)
    manager = GlobalIndexManager(tmp_path)
    assert [manager.now.table.chunk_lengths[file, 0] for file in range(2)] == [0, 2]


def _json(path, **changes):
    return json.dumps(json.loads((path / "zarr.json").read_text()) | changes)


GARBAGE = {
    "list": lambda path: "[]",
    "empty": lambda path: "",
    "null": lambda path: "null",
    "object": lambda path: "{}",
    "deep": lambda path: "[" * 100_000,
    "deep-object": lambda path: '{"a":' * 100_000,
    "future": lambda path: _json(path, zarr_format=4),
    "huge": lambda path: _json(path, shape=[2**63 + 5, 3]),
    "huger": lambda path: _json(path, shape=[4, 2**70]),
    "negative": lambda path: _json(path, shape=[-4, 3]),
    "float": lambda path: _json(path, shape=[4.5, 3]),
    "rank": lambda path: _json(path, shape=[4]),
    "codec": lambda path: _json(path, codecs=[{"name": "nonesuch"}]),
    "dtype": lambda path: _json(path, data_type="nonesuch"),
    "no-chunks": lambda path: _json(
        path, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0, 3]}}
    ),
    "huge-chunks": lambda path: _json(
        path, chunk_grid={"name": "regular", "configuration": {"chunk_shape": [2**70, 3]}}
    ),
    "node": lambda path: _json(path, node_type="tree"),
    "bytes": lambda path: "\udcff\udcfe",
}


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("key", [None, "x"])
def test_garbage_for_metadata_is_a_named_error(tmp_path, garbage, key):
    """Whatever stands in zarr.json, of an array or in a group: BadFilesError with the file, never another error."""
    path = tmp_path / "bad.zarr"
    write_zarr(path, numbers(4), key=key)
    target = path / key if key else path
    (target / "zarr.json").write_text(GARBAGE[garbage](target), errors="surrogateescape")
    with pytest.raises(BadFilesError, match=r"1 file cannot be indexed.*\n  .*bad\.zarr: "):
        GlobalIndexManager(path, key=key)


@pytest.mark.parametrize("key", [None, "x"])
def test_metadata_that_is_no_json_is_told_from_damaged_data(tmp_path, key):
    """The error says that it is the metadata, and where in it the parser stopped."""
    path = tmp_path / "bad.zarr"
    write_zarr(path, numbers(4), key=key)
    ((path / key if key else path) / "zarr.json").write_text("{ x")
    with pytest.raises(BadFilesError, match=r"its metadata .* is damaged: it is no JSON: .*char 2"):
        GlobalIndexManager(path, key=key)


def test_a_damaged_hdf5_file_is_a_named_error_never_an_empty_one(tmp_path):
    """Cut anywhere, the file is either refused by name or still says its whole length."""
    path = Path(write_hdf5(tmp_path / "bad.h5", numbers(50), chunk=4))
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 300), len(whole) - 1]:
        path.write_bytes(whole[:length])
        try:
            found = len(GlobalIndexManager([path]))
        except BadFilesError as error:
            if "bad.h5: " not in str(error):
                raise
        else:
            assert found == 50


def test_missing_files_folders_links_and_devices_are_named(tmp_path):
    """What cannot be data is told with the system's own words, all of it at once."""
    write_hdf5(tmp_path / "good.h5", numbers(1))
    (tmp_path / "dangling.h5").symlink_to("nowhere")
    (tmp_path / "loop.h5").symlink_to("loop.h5")
    (tmp_path / "folder").mkdir()
    names = ["good.h5", "gone.h5", "dangling.h5", "loop.h5", "folder", "good.h5/x"]
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager([tmp_path / name for name in names] + ["/dev/zero"])
    reasons = {os.path.basename(path): reason for path, reason in error.value.failures}
    assert list(reasons) == ["gone.h5", "dangling.h5", "loop.h5", "folder", "x", "zero"]
    for name, word in zip(
        reasons, ["No such", "No such", "symbolic", "no zarr", "Not a dir", "regular"], strict=True
    ):
        assert word in reasons[name]


def test_running_out_of_descriptors_is_no_bad_file(tmp_path):
    """EMFILE says nothing about a file: even on_bad="skip" must not leave it out."""
    write_hdf5(tmp_path / "a.h5", numbers(3))
    code = """
import os, resource, sys
import h5py
from globidx.core.index.layout import Layout
from globidx.disk.index import scan as scanning
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
except OSError:
    pass
try:
    print(scanning.examine(sys.argv[1], layout=Layout(), axis=0))
except OSError as error:
    print(error.errno)
"""
    # the module is imported by a first look, while there are descriptors
    code = code.replace(
        "resource.setrlimit",
        "scanning.examine(sys.argv[1], layout=Layout(), axis=0)\nresource.setrlimit",
    )
    assert run_python(code, tmp_path / "a.h5").stdout == "24\n"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_stale_consolidated_metadata_is_not_believed(tmp_path, zarr_format):
    """A store that grew after it was consolidated has the items that its arrays have."""
    path = tmp_path / "a.zarr"
    write_zarr(path, numbers(10), key="x", zarr_format=zarr_format)
    with (
        pytest.warns(UserWarning, match="onsolidated metadata")
        if zarr_format == 3
        else nullcontext()
    ):
        zarr.consolidate_metadata(path)
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    group["x"].resize((20, 3))
    group["x"][10:] = numbers(10)
    assert len(GlobalIndexManager(path)) == len(GlobalIndexManager(path, key="x")) == 20


def test_counts_beyond_int64_are_an_overflow(tmp_path):
    """Claimed lengths whose sum is no int64 are refused, not wrapped."""
    for name in ("a.zarr", "b.zarr"):
        write_zarr(tmp_path / name, numbers(4))
        (tmp_path / name / "zarr.json").write_text(_json(tmp_path / name, shape=[2**62, 3]))
    with pytest.raises(OverflowError, match="9223372036854775808 samples"):
        GlobalIndexManager(tmp_path)
    assert len(GlobalIndexManager(tmp_path / "a.zarr")) == 2**62


def test_odd_names_are_found_kept_and_told_escaped(tmp_path):
    """Newlines, bytes that are no UTF-8, spaces, a leading dash, emoji, 200 letters: in index, cache and messages."""
    odd = [
        b"new\nline.h5",
        b"\xff\xfe.h5",
        b" sp ace .h5",
        b"-dash.h5",
        "🦆é.h5".encode(),
        b"x" * 200 + b".h5",
    ]
    for name in odd:
        write_hdf5(os.fsdecode(os.fsencode(tmp_path) + b"/" + name), numbers(2))
    for manager in (GlobalIndexManager(tmp_path), GlobalIndexManager(tmp_path)):
        assert {os.path.basename(os.fsencode(path)) for path in manager.paths} == set(odd)
        assert [manager.sample_id(path, 1) for path in manager.paths] == [1, 3, 5, 7, 9, 11]
    Path(tmp_path, "new\nline.h5").write_bytes(b"")
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(tmp_path)
    assert r"new\nline.h5" in str(error.value)


# -- the cache


def test_files_that_did_not_change_are_not_opened_again(folder, scans):
    """The second index opens no file and is the first one."""
    first = settled_manager(folder)
    assert taken(scans) == ["a.h5", "b.zarr", "c.h5"]
    second = settled_manager(folder)
    second.refresh()
    assert taken(scans) == []
    assert second.fingerprint == first.fingerprint and second.arrays == first.arrays
    assert second.paths == first.paths and second.index == first.index


def _grow(path):
    with h5py.File(path, "r+") as file:
        items = file["x"][:]
        del file["x"]
        file["x"] = np.concatenate([items, items])


def _replace(path):
    write_hdf5(path.with_suffix(".new"), numbers(6))
    os.replace(path.with_suffix(".new"), path)


def _rewrite_within_its_stamp(path):
    before = path.stat()
    path.write_bytes(Path(write_hdf5(path.with_suffix(".tmp"), numbers(6))).read_bytes())
    path.with_suffix(".tmp").unlink()
    os.truncate(path, before.st_size)
    os.utime(
        path, ns=(before.st_atime_ns, before.st_mtime_ns)
    )  # as rsync -t does: only ctime tells


@pytest.mark.parametrize("change", [_grow, _replace, _rewrite_within_its_stamp])
def test_a_file_that_changed_is_looked_at_again_and_no_other(folder, scans, change):
    """Grown, replaced, or rewritten with its old mtime: its new length counts, and only that file was opened."""
    os.truncate(folder / "a.h5", 2**14)  # room for other content in the same size
    manager = settled_manager(folder)
    before = manager.fingerprint
    taken(scans)
    change(folder / "a.h5")
    again = settled_manager(folder)
    assert again.lengths.tolist() == [6, 0, 4] and taken(scans) == ["a.h5"]
    assert again.fingerprint != before
    manager.refresh()
    assert manager.fingerprint == again.fingerprint and taken(scans) == []


def test_a_zarr_array_that_grew_is_looked_at_again(tmp_path, scans):
    """The stamp is that of the array's own metadata, deep in the store."""
    write_zarr(tmp_path / "a.zarr", {"g/x": numbers(3), "y": numbers(3)})
    assert len(settled_manager(tmp_path, key=["g/x", "y"])) == 3
    for name in ("g/x", "y"):
        zarr.open_array(tmp_path / "a.zarr" / name, mode="r+").resize((5, 3))
    assert len(settled_manager(tmp_path, key=["g/x", "y"])) == 5 and len(taken(scans)) == 2


def test_added_and_removed_files_are_noticed(folder, scans):
    """A refresh opens what is new and forgets what is gone."""
    manager = settled_manager(folder)
    taken(scans)
    write_hdf5(folder / "aa.h5", numbers(2))
    (folder / "c.h5").unlink()
    manager.refresh()
    assert manager.lengths.tolist() == [3, 2, 0] and taken(scans) == ["aa.h5"]


@pytest.mark.parametrize("offset", [0, 10**12], ids=["now", "future"])
def test_a_stamp_too_young_proves_nothing(folder, scans, offset):
    """A file changed in the last two seconds, or in the future, may change again unseen: it is opened each time."""
    for name in ("a.h5", "c.h5"):
        status = os.stat(folder / name)
        os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns + offset))
    GlobalIndexManager(folder)
    GlobalIndexManager(folder, settled_after=2**20)
    assert taken(scans) == sorted(2 * ["a.h5", "b.zarr", "c.h5"])
    settled_manager(folder)
    taken(scans)
    settled_manager(folder)
    assert taken(scans) == (["a.h5", "c.h5"] if offset else [])


@pytest.mark.parametrize("mtime", [-(2**31) * 10**9, -1, 0, 2**33 * 10**9])
def test_times_before_1970_and_far_ahead_break_nothing(folder, scans, mtime):
    """A file of 1901, 1969 or 2242 is indexed and found again."""
    os.utime(folder / "a.h5", ns=(mtime, mtime))
    assert settled_manager(folder).fingerprint == settled_manager(folder).fingerprint


def test_a_damaged_cache_is_never_used_and_written_anew(folder, scans, caplog):
    """With any byte changed or cut off, the index is right; the next one reads a whole cache again."""
    manager = settled_manager(folder)
    expected = manager.fingerprint
    whole = manager.cache_path.read_bytes()
    random = np.random.default_rng(3)
    damages = [b"", b"\0" * len(whole), b"globidx.index\n", b"[]", b"x" * 70, whole + b"x"]
    damages += [whole[:n] for n in random.integers(1, len(whole), 20)]
    version = whole.index(b'"version":1') + len(b'"version":')
    for place in [*range(0, 80, 3), *random.integers(0, len(whole), 150).tolist()]:
        damaged = bytearray(whole)
        damaged[place] ^= int(random.integers(1, 256))
        if place != version:  # the one byte that makes it a newer globidx's
            damages.append(bytes(damaged))
    for damaged in damages:
        manager.cache_path.write_bytes(damaged)
        again = settled_manager(folder)
        assert again.fingerprint == expected and again.lengths.tolist() == [3, 0, 4]
        assert again.arrays == manager.arrays and again.now.entry(0) == manager.now.entry(0)
        if taken(scans):
            assert manager.cache_path.read_bytes() == whole
        else:
            encoding.decode(damaged)  # harmless: the bytes between header and columns
    assert "damaged" in caplog.text


def test_every_byte_of_a_cache_is_under_its_digest(folder):
    """A flipped bit either does not decode, or stands in the padding: then the table is the same to the last row."""
    manager = GlobalIndexManager(folder)
    whole = manager.cache_path.read_bytes()
    good = encoding.encode(encoding.decode(whole))
    assert good == whole
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        try:
            table = encoding.decode(bytes(damaged))
        except ValueError:
            continue
        assert encoding.encode(table) == good


def test_a_newer_cache_is_left_alone(folder, scans, caplog):
    """A later globidx's cache is neither used nor overwritten; the log says so."""
    manager = settled_manager(folder)
    newer = manager.cache_path.read_bytes().replace(b'"version":1', b'"version":2')
    manager.cache_path.write_bytes(newer)
    taken(scans)
    assert settled_manager(folder).fingerprint == manager.fingerprint
    assert len(taken(scans)) == 3 and "left alone" in caplog.text
    assert manager.cache_path.read_bytes() == newer


def test_a_cache_moves_with_its_data(folder, scans, tmp_path_factory):
    """A renamed folder opens no file again: beside the data, the cache does not know where it is."""
    before = settled_manager(folder).fingerprint
    taken(scans)
    moved = tmp_path_factory.mktemp("elsewhere") / "moved"
    os.rename(folder, moved)
    manager = settled_manager(moved)
    assert manager.fingerprint == before and manager.paths[0] == str(moved / "a.h5")
    assert taken(scans) == []


def test_copied_data_is_looked_at_again(folder, scans, tmp_path_factory):
    """Copies have stamps of their own: a copied cache proves nothing about them."""
    settled_manager(folder)
    taken(scans)
    copy = tmp_path_factory.mktemp("copy")
    subprocess.run(["cp", "-r", f"{folder}/.", copy], env=environment(), check=True)
    assert len(settled_manager(copy)) == 7 and len(taken(scans)) == 3


@pytest.mark.parametrize("how", ["argument", "environment"])
def test_the_cache_can_be_kept_elsewhere(folder, scans, tmp_path_factory, monkeypatch, how):
    """In ``cache_dir`` or $GLOBIDX_CACHE_DIR, made if need be, a file a set of files; nothing beside the data."""
    place = tmp_path_factory.mktemp("cache") / "new/deeper"
    options = {"cache_dir": place} if how == "argument" else {}
    if how == "environment":
        monkeypatch.setenv("GLOBIDX_CACHE_DIR", str(place))
    before = sorted(os.listdir(folder))
    manager = settled_manager(folder, **options)
    assert manager.cache_path.parent == place and manager.cache_path.exists()
    assert sorted(os.listdir(folder)) == before
    taken(scans)
    assert settled_manager(folder, **options).fingerprint == manager.fingerprint and not taken(
        scans
    )
    others = [
        settled_manager(folder, key="x", **options),
        settled_manager([folder / "c.h5", folder / "a.h5"], **options),
        settled_manager([folder / "a.h5", folder / "c.h5"], **options),
    ]
    assert len({manager.cache_path, *(other.cache_path for other in others)}) == 4


@as_root
def test_a_read_only_folder_gets_its_cache_elsewhere(folder, scans, tmp_path_factory, monkeypatch):
    """Data on a read-only mount is indexed, and its cache kept in the user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
    mounted = subprocess.run(
        ["mount", "--bind", folder, folder], env=environment(), capture_output=True
    )
    if mounted.returncode:
        pytest.skip("cannot mount here")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", folder], env=environment(), check=True)
        manager = settled_manager(folder)
        assert manager.cache_path.is_relative_to(os.environ["XDG_CACHE_HOME"]) and len(manager) == 7
        taken(scans)
        assert settled_manager(folder).fingerprint == manager.fingerprint and not taken(scans)
        told = settled_manager(
            folder, cache_dir=folder
        )  # the user insists: it works, without a cache
        assert len(told) == 7 and not told.cache_path.exists()
    finally:
        subprocess.run(["umount", folder], env=environment(), check=True)


def test_a_cache_that_cannot_be_written_is_a_line_in_the_log(folder, caplog):
    """A file in place of the cache folder, or a folder in place of the cache: the index is whole all the same."""
    (folder / "file").write_text("")
    assert len(GlobalIndexManager(folder, cache_dir=folder / "file")) == 7
    assert "cannot be written" in caplog.text
    caplog.clear()
    manager = GlobalIndexManager(folder)
    manager.cache_path.unlink()
    manager.cache_path.mkdir()
    assert len(GlobalIndexManager(folder)) == 7 and "cannot be read" in caplog.text


# -- content identity


def test_the_fingerprint_knows_neither_place_nor_age(folder, tmp_path_factory):
    """Moved, copied, touched, rechunked, named one by one: the same data is the same index."""
    before = GlobalIndexManager(folder).fingerprint
    os.utime(folder / "a.h5", ns=(1, 1))
    assert GlobalIndexManager(folder).fingerprint == before
    copy = tmp_path_factory.mktemp("copy")
    for name, length in (("a.h5", 3), ("b.zarr", 0), ("c.h5", 4)):
        write = write_hdf5 if name.endswith("h5") else write_zarr
        write(copy / name, numbers(length, start=50), key="x", chunk=2)
    assert GlobalIndexManager(copy).fingerprint == before
    assert (
        GlobalIndexManager([copy / "a.h5", copy / "b.zarr", copy / "c.h5"], key="x").fingerprint
        == before
    )


@pytest.mark.parametrize(
    "items",
    [
        {"a.h5": numbers(3), "b.h5": numbers(4)},
        {"a.h5": numbers(4), "b.h5": numbers(3)},
        {"a.h5": numbers(3), "c.h5": numbers(3)},
        {"a.h5": numbers(3, (4,)), "b.h5": numbers(3, (4,))},
        {"a.h5": numbers(3, dtype="i2"), "b.h5": numbers(3, dtype="i2")},
        {"a.h5": numbers(3)},
        {"a.h5": numbers(3), "b.h5": numbers(3), "c.h5": numbers(0)},
    ],
    ids=["longer", "shifted", "renamed", "shape", "dtype", "fewer", "more"],
)
def test_the_fingerprint_tells_other_data(tmp_path, items):
    """Names, lengths, item shape, dtype, key, and order each change it."""
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    for name in ("a.h5", "b.h5"):
        write_hdf5(tmp_path / "one" / name, numbers(3))
    for name, data in items.items():
        write_hdf5(tmp_path / "other" / name, data)
    one, other = GlobalIndexManager(tmp_path / "one"), GlobalIndexManager(tmp_path / "other")
    assert one.fingerprint != other.fingerprint
    assert GlobalIndexManager(one.paths[::-1]).fingerprint != one.fingerprint
    write_hdf5(tmp_path / "one/a.h5", numbers(3), key="y")
    write_hdf5(tmp_path / "one/b.h5", numbers(3), key="y")
    assert GlobalIndexManager(tmp_path / "one").fingerprint != one.fingerprint


def test_a_fingerprint_is_pinned(tmp_path):
    """This value stands in records that were written: it must never change."""
    (tmp_path / "sub").mkdir()
    write_hdf5(tmp_path / "a.h5", numbers(3))
    write_zarr(tmp_path / "sub/b.zarr", numbers(4), key="x")
    assert GlobalIndexManager(tmp_path).fingerprint == "71ad4cb81708252181036cfba1aed089"


@settings(max_examples=20)
@given(st.lists(st.sampled_from(["a", "a/b", "a/b/c", "d", ""]), min_size=1, max_size=5))
def test_the_fingerprint_of_the_first_files_is_that_of_their_own_index(folders):
    """For every k, ``fingerprint_of(k)`` equals the fingerprint of an index over the first k files, however deep."""
    with tempfile.TemporaryDirectory() as root:
        paths = []
        for number, name in enumerate(folders):
            os.makedirs(f"{root}/{name}", exist_ok=True)
            paths.append(write_hdf5(os.path.join(root, name, f"{number}.h5"), numbers(number)))
        manager = GlobalIndexManager(paths)
        for count in range(1, len(paths) + 1):
            assert manager.fingerprint_of(count) == GlobalIndexManager(paths[:count]).fingerprint
        assert manager.fingerprint_of(len(paths)) == manager.fingerprint
        for bad in (-1, len(paths) + 1):
            with pytest.raises(ValueError, match="num_files"):
                manager.fingerprint_of(bad)


# -- many at once

# Waits for a line on stdin, so that all start together; then builds, and says what it found.
BUILDER = """
import sys
if sys.argv[2] == "no lock":
    import fcntl
    fcntl.flock = lambda *_: None
from globidx.disk.index.manager import GlobalIndexManager
import h5py, zarr
print("ready", flush=True)
sys.stdin.readline()
manager = GlobalIndexManager(sys.argv[1])
print(manager.fingerprint, len(manager), flush=True)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
    )


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["lock", "no lock"])
def test_sixteen_processes_build_one_index(tmp_path, lock):
    """Started at once over files without a cache, also where flock succeeds for everybody, all get the same content."""
    for number in range(30):
        write_hdf5(tmp_path / f"{number:02}.h5", numbers(number))
    builders = [start(BUILDER, tmp_path, lock) for _ in range(16)]
    for builder in builders:
        assert builder.stdout.readline() == "ready\n"
    for builder in builders:
        builder.stdin.write("go\n")
        builder.stdin.flush()
    told = {builder.communicate(timeout=60)[0] for builder in builders}
    assert [builder.returncode for builder in builders] == [0] * 16
    manager = GlobalIndexManager(tmp_path)
    assert told == {f"{manager.fingerprint} {sum(range(30))}\n"}
    assert len(encoding.decode(manager.cache_path.read_bytes())) == 30
    assert [name for name in os.listdir(tmp_path) if name.endswith("globidx-tmp")] == []


def test_a_builder_killed_with_the_lock_leaves_nothing_in_the_way(folder, caplog):
    """SIGKILL while it holds the lock: the next index is there at once, without a word about locks."""
    code = """
import sys
from globidx.disk.stores import base as stores
from globidx.disk.index import manager
def stuck(*_):
    print("holding", flush=True)
    sys.stdin.readline()
stores.scan = stuck
manager.GlobalIndexManager(sys.argv[1])
"""
    builder = start(code, folder)
    assert builder.stdout.readline() == "holding\n"
    builder.send_signal(signal.SIGKILL)
    builder.communicate()
    caplog.set_level(logging.WARNING)
    assert len(GlobalIndexManager(folder)) == 7 and not caplog.records


def test_a_lock_that_is_held_costs_only_its_timeout(folder, caplog):
    """A builder that hangs with the lock is waited for as long as told; then the index is built without."""
    code = """
import sys
from globidx.disk.stores import base as stores
from globidx.disk.index import manager
def stuck(*_):
    print("holding", flush=True)
    sys.stdin.readline()
    raise SystemExit
stores.scan = stuck
manager.GlobalIndexManager(sys.argv[1])
"""
    builder = start(code, folder)
    assert builder.stdout.readline() == "holding\n"
    try:
        assert len(GlobalIndexManager(folder, lock_timeout=0.2)) == 7
        assert "going on without the lock" in caplog.text
    finally:
        builder.communicate("go\n", timeout=60)


def test_a_lock_that_cannot_be_made_is_done_without(folder, caplog):
    """A folder in place of the lock file: a line in the log."""
    lock = GlobalIndexManager(folder).cache_path.with_suffix(".lock")
    lock.unlink(missing_ok=True)
    lock.mkdir()
    assert len(GlobalIndexManager(folder)) == 7 and "without the lock" in caplog.text


@pytest.mark.filterwarnings(
    "ignore:.*multi-threaded.*:DeprecationWarning"
)  # Python 3.12, about fork
def test_an_executor_changes_nothing_but_the_time(folder, scans):
    """Threads and processes find what one thread finds, failures included."""
    expected = settled_manager(folder)
    for make in (ThreadPoolExecutor, ProcessPoolExecutor):
        manager = settled_manager(folder, cache_dir=folder / make.__name__)
        with make(2) as executor:
            pooled = settled_manager(
                folder, cache_dir=folder / f"{make.__name__}2", executor=executor
            )
            pooled.refresh(executor)
            with pytest.raises(BadFilesError) as error:
                settled_manager([folder / "a.h5", folder / "gone.h5"], executor=executor)
        assert [os.path.basename(path) for path, _ in error.value.failures] == ["gone.h5"]
        assert pooled.fingerprint == manager.fingerprint == expected.fingerprint
        assert [pooled.now.entry(n) for n in range(3)] == [manager.now.entry(n) for n in range(3)]


def test_a_pickled_manager_is_the_manager(folder):
    """It opens nothing, answers the same, and can still refresh; a million names are no million objects."""
    manager = GlobalIndexManager([folder / "a.h5", folder / "c.h5"])
    data = pickle.dumps(manager)
    (folder / "a.h5").rename(folder / "aside")
    copy = pickle.loads(data)
    assert (
        copy.fingerprint == manager.fingerprint
        and copy.paths == manager.paths
        and copy.index == manager.index
    )
    assert [copy.locate(id) for id in range(7)] == [manager.locate(id) for id in range(7)]
    (folder / "aside").rename(folder / "a.h5")
    copy.refresh()
    assert copy.fingerprint == manager.fingerprint


def test_a_failed_refresh_leaves_the_index_as_it_was(folder):
    """Files that vanish are an error, and the manager goes on with what it knew."""
    manager = GlobalIndexManager(folder)
    before = manager.fingerprint
    for path in list(folder.iterdir()):
        path.rename(folder.parent / f"{folder.name}-{path.name}")
    with pytest.raises(NoFilesError):
        manager.refresh()
    assert manager.fingerprint == before and len(manager) == 7


def test_a_refresh_after_chdir_looks_at_the_same_files(tmp_path, monkeypatch):
    """Relative names mean what they meant when they were given."""
    for folder, length in (("here", 4), ("there", 9)):
        (tmp_path / folder / "data").mkdir(parents=True)
        write_zarr(tmp_path / folder / "data" / "a.zarr", numbers(length))
    monkeypatch.chdir(tmp_path / "here")
    managers = [GlobalIndexManager(files) for files in ("data", "data/*.zarr", ["data/a.zarr"])]
    monkeypatch.chdir(tmp_path / "there")
    for manager in managers:
        manager.refresh()
        assert len(manager) == 4


@pytest.mark.parametrize("id", [2**63, 2**64, 2**70, -(2**63) - 1, -(2**70)])
def test_an_id_beyond_every_integer_is_outside_as_any_other(tmp_path, id):
    """IndexError, from each way to ask."""
    write_zarr(tmp_path / "a.zarr", numbers(3))
    manager = GlobalIndexManager(tmp_path, cache_dir=tmp_path / "cache")
    dataset = FileCacheDataset(manager)
    asks = [lambda: dataset[id], lambda: manager.locate(id), lambda: manager.locate_many([0, id])]
    for ask in [*asks, lambda: dataset.__getitems__([0, id])]:
        with pytest.raises(IndexError):
            ask()
