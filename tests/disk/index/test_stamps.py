"""Stamps prove that a file did not change, or prove nothing."""

from dataclasses import replace

import numpy as np
from files import numbers, write_zarr

from globidx.core.index.layout import parse
from globidx.core.index.names import Names
from globidx.core.index.table import Table
from globidx.disk.files.paths import Paths
from globidx.disk.index import scan, stamps


def test_one_file_and_a_table_of_files_are_judged_alike(tmp_path):
    """Whole, with a stamp of no proof, and with one that is missing: which was enough for a file, not for a table."""
    path = tmp_path / "a.zarr"
    write_zarr(path, {"x": numbers(0), "y": numbers(0)})
    whole = scan.examine(str(path), layout=parse(None, ["x", "y"]), axis=0, settled_ns=0)
    size, written, _, inode = whole.stamps[1]
    paths = Paths(str(tmp_path), Names.of([b"a.zarr"]))
    for noted, expected in (
        (whole.stamps, True),
        ((whole.stamps[0], (size, written + 1, whole.stamps[1][2], inode)), False),
        ((whole.stamps[0], (size, 0, 0, inode)), False),
        (whole.stamps[:1], False),
        ((), False),
    ):
        entry = replace(whole, stamps=noted)
        row = np.zeros(1, np.int64)
        assert stamps.is_unchanged(str(path), entry) is expected
        assert stamps.unchanged(Table.of(["a.zarr"], [entry]), row, paths, row).tolist() == [
            expected
        ]


def test_only_a_change_that_is_long_past_is_proof():
    """By the later of both times, to the nanosecond; size and inode are kept either way."""
    for written, changed, started, is_proof in (
        (5, 5, 105, False),
        (5, 5, 106, True),
        (5, 50, 106, False),
        (50, 5, 106, False),
        (500, 5, 106, False),
    ):
        stamp = stamps.without_racy_times((7, written, changed, 3), started, settled_ns=100)
        assert stamp == ((7, written, changed, 3) if is_proof else (7, 0, 0, 3))
