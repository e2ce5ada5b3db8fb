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


def test_options_reach_the_index(folder, capsys, tmp_path_factory):
    """Several keys, an axis, a cache folder, paths in a list, and bad files left out."""
    cache = tmp_path_factory.mktemp("cache")
    store = str(folder / "b.zarr")
    assert (
        main(
            [
                "index",
                "info",
                "--json",
                store,
                "--key",
                "x",
                "--key",
                "y",
                "--cache-dir",
                str(cache),
            ]
        )
        == 0
    )
    told = json.loads(capsys.readouterr().out)
    assert [a["name"] for a in told["arrays"]] == ["x", "y"] and os.path.dirname(
        told["cache"]
    ) == str(cache)
    assert main(["index", "info", "--json", store, "--key", "x", "--axis", "1"]) == 0
    assert json.loads(capsys.readouterr().out)["num_samples"] == 3
    (folder / "c.h5").write_bytes(b"")
    assert main(["index", "info", "--json", str(folder), "--key", "x", "--on-bad", "skip"]) == 0
    assert [
        os.path.basename(path) for path, _ in json.loads(capsys.readouterr().out)["skipped"]
    ] == ["c.h5"]
    assert main(["index", "info", "--json", str(folder / "a.h5"), store, "--key", "x"]) == 0
    assert json.loads(capsys.readouterr().out)["num_files"] == 2
