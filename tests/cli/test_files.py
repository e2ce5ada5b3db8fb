"""Options that name files and their arrays reach the index."""

from __future__ import annotations

import json
import os

import pytest
from files import numbers, write_hdf5, write_zarr

from globidx.cli import main


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of 3 and 4 items."""
    write_hdf5(tmp_path / "a.h5", numbers(3), key="x")
    write_zarr(tmp_path / "b.zarr", {"x": numbers(4), "y": numbers(4)})
    return tmp_path


@pytest.fixture
def info(capsys):
    """What ``globidx index info --json`` tells with these arguments."""

    def told(*arguments):
        assert main(["index", "info", "--json", *map(str, arguments)]) == 0
        return json.loads(capsys.readouterr().out)

    return told


def test_each_key_names_an_array(folder, info):
    """Several aligned ones, in the sequence in which they are named."""
    arrays = info(folder / "b.zarr", "--key", "y", "--key", "x")["arrays"]
    assert [array["name"] for array in arrays] == ["y", "x"]


def test_items_lie_along_the_axis(folder, info):
    """Another one, or the first."""
    counts = [
        info(folder / "b.zarr", "--key", "x", *more)["num_samples"] for more in ([], ["--axis", 1])
    ]
    assert counts == [4, 3]


def test_the_cache_is_where_it_was_asked_for(folder, info, tmp_path_factory):
    """And not beside the data."""
    cache = tmp_path_factory.mktemp("cache")
    told = info(folder / "a.h5", "--key", "x", "--cache-dir", cache)
    assert os.path.dirname(told["cache"]) == str(cache)


def test_bad_files_are_left_out_where_that_was_asked_for(folder, info):
    """They are listed."""
    (folder / "c.h5").write_bytes(b"")
    skipped = info(folder, "--key", "x", "--on-bad", "skip")["skipped"]
    assert [os.path.basename(path) for path, _ in skipped] == ["c.h5"]


def test_several_paths_are_a_list_of_files(folder, info):
    """One is a folder, a glob, a list file or a store; several are the files themselves."""
    assert info(folder / "a.h5", folder / "b.zarr", "--key", "x")["num_files"] == 2
