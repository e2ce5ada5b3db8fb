"""From what a user names to a list of files."""

from __future__ import annotations

import json
import os
import random
from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
import pytest
from files import numbers, run_python, settled_manager, write_hdf5, write_zarr

from globidx import FileCacheDataset, GlobalIndexManager
from globidx.disk.index.discover import find_files
from globidx.errors import BadFilesError, NoFilesError


@pytest.fixture
def folder(tmp_path):
    """A tree of stores with things between them that are none."""
    (tmp_path / "sub/deep").mkdir(parents=True)
    (tmp_path / ".hidden").mkdir()
    write_zarr(tmp_path / "b.zarr", {"x": numbers(2), "y": numbers(2)})
    write_zarr(tmp_path / "sub/array.v3", numbers(2))  # a store by its content, whatever its name
    write_zarr(tmp_path / "sub/old", numbers(2), zarr_format=2)
    for name in ("a.h5", "sub/deep/c.HDF5", ".hidden/d.h5", ".e.h5"):
        write_hdf5(tmp_path / name, numbers(2))
    (tmp_path / "notes.txt").write_text("nothing")
    return tmp_path


FOUND = ["a.h5", "b.zarr", "sub/array.v3", "sub/deep/c.HDF5", "sub/old"]


def names(found, folder):
    return [os.path.relpath(path, folder) for path in found]


def test_a_directory_is_every_store_below_it_sorted(folder):
    """Zarr stores by content or name, HDF5 files by name; nothing hidden, and nothing from inside a store."""
    assert names(find_files(folder), folder) == FOUND
    assert names(find_files(f"{folder}/"), folder) == FOUND


class Entries(ExitStack):
    """What ``os.scandir`` returns: an iterator and a context."""

    def __init__(self, entries):
        super().__init__()
        self.entries = iter(entries)

    def __iter__(self):
        return self.entries

    def __next__(self):
        return next(self.entries)


def test_the_order_does_not_depend_on_the_file_system(folder, monkeypatch):
    """Whatever sequence the system lists a folder in, the files come sorted by their bytes."""
    scandir, generator = os.scandir, random.Random()

    def shuffled(path):
        with scandir(path) as found:
            entries = list(found)
        generator.shuffle(entries)
        return Entries(entries)

    monkeypatch.setattr(os, "scandir", shuffled)
    for seed in range(10):
        generator.seed(seed)
        assert names(find_files(folder), folder) == FOUND


def test_sorting_is_by_bytes(tmp_path):
    """Upper case before lower, and names that are no UTF-8 after those that are ASCII: the same in every locale."""
    for name in (b"b.h5", b"B.h5", b"\xff.h5", b"a.h5", "🦆.h5".encode(), "é.h5".encode()):
        write_hdf5(os.fsdecode(os.fsencode(tmp_path) + b"/" + name), numbers(1))
    found = [os.path.basename(os.fsencode(path)) for path in find_files(tmp_path)]
    assert found == [b"B.h5", b"a.h5", b"b.h5", "é.h5".encode(), "🦆.h5".encode(), b"\xff.h5"]


def test_a_loop_of_links_is_cut(folder):
    """A link to a folder above it adds nothing, by directory or by glob."""
    (folder / "sub/loop").symlink_to(folder)
    (folder / "sub/deep/again").symlink_to("..")
    assert names(find_files(folder), folder) == FOUND
    assert names(find_files(f"{folder}/**/*.h5"), folder) == ["a.h5"]


def test_a_linked_folder_is_followed(folder, tmp_path_factory):
    """Data often lies elsewhere, behind a link."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write_hdf5(elsewhere / "z.h5", numbers(1))
    (folder / "sub/link").symlink_to(elsewhere)
    assert "sub/link/z.h5" in names(find_files(folder), folder)


def test_a_folder_that_cannot_be_listed_is_an_error(folder, monkeypatch):
    """Skipping it would leave out its samples in silence."""
    scandir = os.scandir

    def refusing(path):
        if os.fsdecode(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", os.fsdecode(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(PermissionError, match="deep"):
        find_files(folder)


def test_nothing_found_is_an_error_that_names_what_was_asked(tmp_path):
    """An empty folder, a glob without match and a name that is not there are NoFilesError, also FileNotFoundError."""
    for asked in (tmp_path, tmp_path / "*.h5", tmp_path / "gone.h5", tmp_path / "gone"):
        with pytest.raises(NoFilesError, match=str(asked).replace("*", r"\*")):
            find_files(asked)
    with pytest.raises(FileNotFoundError, match="list of files is empty"):
        find_files([])


def test_a_single_store_is_itself(folder):
    """The path of a store, zarr or HDF5, is a list of one."""
    for name in ("a.h5", "b.zarr", "sub/old"):
        assert names(find_files(folder / name), folder) == [name]


def test_a_glob_comes_sorted(folder):
    """What matches, by its bytes; ``**`` looks below."""
    assert names(find_files(f"{folder}/*.[hz]*"), folder) == ["a.h5", "b.zarr"]
    assert names(find_files(f"{folder}/**/*.HDF5"), folder) == ["sub/deep/c.HDF5"]


def test_a_name_that_exists_is_no_glob(tmp_path):
    """Brackets in the name of a file or folder that is there mean themselves, alone and in lists."""
    write_hdf5(tmp_path / "run[1].h5", numbers(1))
    write_hdf5(tmp_path / "run1.h5", numbers(1))
    (tmp_path / "d[1]").mkdir()
    write_hdf5(tmp_path / "d[1]/x.h5", numbers(1))
    assert names(find_files(tmp_path / "run[1].h5"), tmp_path) == ["run[1].h5"]
    assert names(find_files([tmp_path / "run[1].h5"]), tmp_path) == ["run[1].h5"]
    assert names(find_files(tmp_path / "d[1]"), tmp_path) == ["d[1]/x.h5"]
    assert names(find_files(tmp_path / "run[0-9].h5"), tmp_path) == ["run1.h5"]


def test_a_list_keeps_its_order_and_may_be_any_iterable(folder):
    """Lists are taken as they stand: order, missing files and all; generators and Path objects too."""
    given = ["sub/old", "gone.h5", "a.h5"]
    assert names(find_files([folder / name for name in given]), folder) == given
    assert names(find_files(str(folder / name) for name in given), folder) == given


def test_relative_names_count_from_the_working_directory(folder, monkeypatch):
    """Paths come out absolute and tidy."""
    monkeypatch.chdir(folder / "sub")
    expected = [str(folder / "a.h5"), str(folder / "sub/old")]
    assert find_files(["../a.h5", "./deep/../old"]) == expected
    assert find_files("../a.h5") == expected[:1]


def _link(one, other):
    other.symlink_to(one)


@pytest.mark.parametrize(
    "make", [_link, lambda one, other: os.link(one, other)], ids=["symbolic", "hard"]
)
def test_a_file_under_two_names_is_refused(tmp_path, make):
    """Its samples would be trained on twice: ValueError names both."""
    write_hdf5(tmp_path / "a.h5", numbers(1))
    make(tmp_path / "a.h5", tmp_path / "other.h5")
    for asked in (tmp_path, [tmp_path / "a.h5", tmp_path / "other.h5"], f"{tmp_path}/*.h5"):
        with pytest.raises(ValueError, match=r"other\.h5 and .*a\.h5 are the same file"):
            GlobalIndexManager(asked)


def test_a_name_given_twice_is_refused_however_it_is_spelled(tmp_path, monkeypatch):
    """``a``, ``./a``, ``x/../a`` and the absolute path are one, and so is a file that does not exist, twice."""
    monkeypatch.chdir(tmp_path)
    write_hdf5("a.h5", numbers(1))
    same = str(tmp_path / "a.h5")
    for pair in (
        ["a.h5", "./a.h5"],
        ["a.h5", same],
        [same, same],
        ["x/../a.h5", "a.h5"],
        ["gone.h5", "gone.h5"],
    ):
        with pytest.raises(ValueError, match="are the same file"):
            find_files(pair)


def test_a_linked_zarr_store_is_the_same_store(tmp_path):
    """Directories have an identity too."""
    write_zarr(tmp_path / "a.zarr", numbers(1))
    (tmp_path / "b.zarr").symlink_to("a.zarr")
    with pytest.raises(ValueError, match="same file"):
        GlobalIndexManager(tmp_path)


def test_stores_that_share_their_metadata_are_two(tmp_path):
    """Tools that save space link equal files together: the same ``zarr.json`` does not make two stores one."""
    for name in ("a", "b"):
        write_zarr(tmp_path / f"{name}.zarr", numbers(3, start=1 if name == "a" else 100))
    (tmp_path / "b.zarr/zarr.json").unlink()
    os.link(tmp_path / "a.zarr/zarr.json", tmp_path / "b.zarr/zarr.json")
    assert len(GlobalIndexManager(tmp_path)) == 6


@pytest.mark.parametrize("name", ["pipe.h5", "pipe"])
def test_a_pipe_never_blocks(tmp_path, name):
    """A FIFO is no data: named alone, in a list, in a folder, or as a zarr store's metadata, it ends in an error."""
    write_hdf5(tmp_path / "a.h5", numbers(1))
    (tmp_path / "s.zarr").mkdir()
    os.mkfifo(tmp_path / name)
    os.mkfifo(tmp_path / "s.zarr/zarr.json")
    code = """
import sys
from globidx import GlobalIndexManager
from globidx.errors import GlobidxError
pipe, folder, store = sys.argv[1:]
for files in (pipe, [pipe], folder, store, [store]):
    try:
        GlobalIndexManager(files)
    except GlobidxError as error:
        print(type(error).__name__)
"""
    done = run_python(code, tmp_path / name, tmp_path, tmp_path / "s.zarr", timeout=60)
    assert done.stdout.split() == [
        "NoFilesError",
        "BadFilesError",
        "BadFilesError",
        "NoFilesError",
        "BadFilesError",
    ]


@pytest.mark.parametrize("files", [None, 5, b"a.h5", {"a.h5": 1}, [5], [b"a.h5"], [None], Path])
def test_what_is_no_path_is_a_type_error(files):
    """The error says what was given."""
    with pytest.raises(TypeError, match="files must be"):
        find_files(files)


def test_links_that_lead_nowhere_are_not_passed_over(folder):
    """A store's name that leads nowhere, in a circle, or to a plain file is a bad file, not one file fewer."""
    (folder / "c.zarr").symlink_to("nowhere")
    (folder / "d.zarr").symlink_to("d.zarr")
    (folder / "e.h5").symlink_to("e.h5")
    (folder / "f.zarr").write_bytes(b"PK")
    (folder / "circle").symlink_to("circle")  # by no name that a store has: no folder either
    (folder / "dangling").symlink_to("nowhere")
    with pytest.raises(BadFilesError) as error:
        GlobalIndexManager(folder, key="x")
    bad = [os.path.relpath(path, folder) for path, _ in error.value.failures]
    assert [name for name in bad if "/" not in name] == ["c.zarr", "d.zarr", "e.h5", "f.zarr"]


@pytest.mark.parametrize("make", [str, lambda name: [name], lambda name: [Path(name), "a.h5"]])
def test_a_zero_byte_is_in_no_path(make):
    """The system's calls would end the name there: it is a ValueError that shows it."""
    with pytest.raises(ValueError, match=r"no path has a zero byte"):
        find_files(make("a\0b.h5"))


# -- what a folder has beside


@pytest.mark.parametrize(
    "suffix", [".h5", ".nc", ".nc4", ".mat", ".nwb", ".loom", ".h5mu", ".h5ad", ".NC"]
)
def test_a_folder_holds_what_its_files_hold(tmp_path, suffix):
    """HDF5 under every name that its sciences give it is found in a folder as by itself."""
    path = write_hdf5(tmp_path / f"a{suffix}", numbers(3), userblock=512)
    for files in (tmp_path, path):
        assert len(GlobalIndexManager(files, cache_dir=tmp_path / "cache")) == 3


def test_other_formats_are_passed_over_and_counted(tmp_path, caplog):
    """Older netCDF and MATLAB files, a FIFO, notes: none is taken, opened without need, or left out in silence."""
    write_hdf5(tmp_path / "a.nc", numbers(3))
    (tmp_path / "b.nc").write_bytes(b"CDF\x01" + bytes(100))
    (tmp_path / "c.mat").write_bytes(b"MATLAB 5.0 MAT-file" + bytes(600))
    for name in ("d.txt", "e.txt", "f.json", "README"):
        (tmp_path / name).write_text("words")
    os.mkfifo(tmp_path / "g.csv")
    with caplog.at_level("INFO", "globidx"):
        assert len(GlobalIndexManager(tmp_path, cache_dir=tmp_path / ".cache")) == 3
    assert "3 files taken; passed over 2 .txt, 1 .csv, 1 .json, 1 without a suffix" in caplog.text
    assert "passed over 1 .mat, 1 .nc" in caplog.text and "netCDF 3" in caplog.text
    (tmp_path / "a.nc").unlink()
    with pytest.raises(NoFilesError, match=r"passed over 1 \.mat, 1 \.nc of other formats"):
        GlobalIndexManager(tmp_path, cache_dir=tmp_path / ".cache")
    for name in ("b.nc", "c.mat"):
        (tmp_path / name).unlink()
    with pytest.raises(NoFilesError, match=r"passed over 2 \.txt"):
        GlobalIndexManager(tmp_path, cache_dir=tmp_path / ".cache")


def write_n5(folder, attributes):
    """A container with an array of one block."""
    (folder / "x/0").mkdir(parents=True)
    (folder / "x/0/0").write_bytes(b"block")
    array = {"dataType": "uint8", "blockSize": [2, 2], "dimensions": [2, 2]}
    (folder / "x/attributes.json").write_text(json.dumps(array))
    if attributes is not None:
        (folder / "attributes.json").write_text(attributes)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("b.n5", '{"n5": "2.0.0"}'), ("b.N5", None), ("b", '{"n5": "4.0.0"}'), ("b.n5", "no JSON")],
)
def test_n5_is_told_by_name(tmp_path, caplog, name, attributes):
    """Passed over in a folder, refused where it is named itself: what it is, and what makes it a zarr store."""
    write_hdf5(tmp_path / "a.h5", numbers(3))
    write_n5(tmp_path / name, attributes)
    with caplog.at_level("WARNING", "globidx"):
        assert len(GlobalIndexManager(tmp_path, cache_dir=tmp_path / ".cache")) == 3
    assert f"{name} is an N5 container, which is no zarr store; copy it to zarr" in caplog.text
    with pytest.raises(NoFilesError, match="is an N5 container, which is not read; copy it"):
        GlobalIndexManager(tmp_path / name)
    for files in ([tmp_path / name], f"{tmp_path}/b*"):
        with pytest.raises(BadFilesError, match=f"{name}: an N5 container"):
            GlobalIndexManager(files)
    with pytest.raises(BadFilesError, match="x: an N5 container"):
        GlobalIndexManager([tmp_path / name / "x"])


def test_attributes_of_other_folders_are_no_n5(tmp_path):
    """A file of that name may say anything; a zarr store with one is a zarr store."""
    write_zarr(tmp_path / "a.n5", numbers(3))
    (tmp_path / "a.n5/attributes.json").write_text('{"n5": "2.0.0"}')
    (tmp_path / "deep").mkdir()
    write_hdf5(tmp_path / "deep/b.h5", numbers(3))
    for content in ('{"dataType": "x"}', "[]", "{", '"n5"'):
        (tmp_path / "deep/attributes.json").write_text(content)
        assert names(find_files(tmp_path), tmp_path) == ["a.n5", "deep/b.h5"]
    (tmp_path / "deep/attributes.json").unlink()
    os.mkfifo(tmp_path / "deep/attributes.json")
    assert names(find_files(tmp_path), tmp_path) == ["a.n5", "deep/b.h5"]


def test_a_glob_takes_what_it_names(tmp_path):
    """A file of another format that a glob matches was asked for, so it is refused by name."""
    write_hdf5(tmp_path / "a.nc", numbers(3))
    (tmp_path / "b.nc").write_bytes(b"CDF\x01" + bytes(100))
    with pytest.raises(BadFilesError, match=r"b\.nc: a file of netCDF 3, which is no HDF5"):
        GlobalIndexManager(f"{tmp_path}/*.nc", cache_dir=tmp_path / "cache")
    assert len(GlobalIndexManager(f"{tmp_path}/a*", cache_dir=tmp_path / "cache")) == 3


@pytest.mark.parametrize("userblock", [512, 1024, 8192])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_bytes_in_front_of_a_file_move_its_data(tmp_path, userblock, libver):
    """MATLAB writes 512 of its own: every way to find data in a file counts them in."""
    data = numbers(10, (4,), "f4")
    with h5py.File(tmp_path / "a.MAT", "w", userblock_size=userblock, libver=libver) as file:
        file["contiguous"] = data
        file.create_dataset("one", data=data, chunks=(10, 4))
        file.create_dataset("several", data=data, chunks=(3, 3), compression="gzip")
        file.create_dataset("growing", data=data, chunks=(3, 3), maxshape=(None, 4), shuffle=True)
        file.create_dataset("tree", data=data, chunks=(3, 3), maxshape=(None, None))
        keys = list(file)
    with open(tmp_path / "a.MAT", "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file")
    manager = GlobalIndexManager(tmp_path, key=keys, cache_dir=tmp_path / "cache")
    dataset = FileCacheDataset(manager)
    assert "library" not in str(dataset.explain())
    for id, sample in enumerate(dataset):
        for key in keys:
            np.testing.assert_array_equal(sample[key], data[id])


@pytest.mark.parametrize("content", [b"", b"\x89HDF", b"MATLAB 7.3 MAT-file" + bytes(600)])
def test_a_file_that_was_cut_is_not_passed_over(tmp_path, content):
    """It is bad, not of another format."""
    write_hdf5(tmp_path / "a.nc", numbers(3))
    (tmp_path / "b.mat").write_bytes(content)
    with pytest.raises(BadFilesError, match=r"b\.mat"):
        GlobalIndexManager(tmp_path, cache_dir=tmp_path / "cache")


def test_a_fifo_with_a_name_of_science_is_not_waited_for(tmp_path):
    """It is an error, at once."""
    write_hdf5(tmp_path / "a.nc", numbers(3))
    os.mkfifo(tmp_path / "b.nc")
    with pytest.raises(BadFilesError, match="neither a regular file"):
        GlobalIndexManager(tmp_path, cache_dir=tmp_path / "cache")


def test_a_folder_that_did_not_change_is_not_looked_into(tmp_path, scans):
    """Files of mixed suffixes are remembered as all others, and their first bytes not read again."""
    for name in ("a.nc", "b.mat", "c.h5"):
        write_hdf5(tmp_path / name, numbers(3))
    manager = settled_manager(tmp_path, cache_dir=tmp_path / "cache")
    assert sorted(scans) == ["a.nc", "b.mat", "c.h5"]
    manager.refresh()
    settled_manager(tmp_path, cache_dir=tmp_path / "cache")
    assert len(scans) == 3


@pytest.mark.parametrize("format", [2, 3])
@pytest.mark.parametrize("folder", ["d", "d.zarr", "d/e"])
def test_arrays_without_the_metadata_of_their_group_are_no_files(tmp_path, format, folder):
    """Of equal shape, they would be read one after the other; a glob or a list says that they are files."""
    for name in ("images", "labels"):
        write_zarr(tmp_path / folder / name, numbers(3), zarr_format=format)
    with pytest.raises(NoFilesError, match="'images', 'labels' side by side"):
        GlobalIndexManager(tmp_path / folder.partition("/")[0], cache_dir=tmp_path)
    assert len(GlobalIndexManager(str(tmp_path / folder / "*"), cache_dir=tmp_path)) == 6


@pytest.mark.parametrize(
    "names", [("run_001", "run_002"), ("0", "1", "20"), ("a.zarr", "b.zarr"), ("a.zarr", "b")]
)
def test_numbered_arrays_side_by_side_are_files(tmp_path, names):
    """As they always were."""
    for name in names:
        write_zarr(tmp_path / "d" / name, numbers(3))
    assert len(GlobalIndexManager(tmp_path / "d", cache_dir=tmp_path)) == 3 * len(names)


def test_groups_side_by_side_are_files(tmp_path):
    """They are bound by nothing, and need nothing."""
    for name in ("train", "test"):
        write_zarr(tmp_path / "d" / name, numbers(3), key="x")
    assert len(GlobalIndexManager(tmp_path / "d", key="x", cache_dir=tmp_path)) == 6
