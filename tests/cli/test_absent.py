"""``globidx index info --absent`` says beforehand what reading would refuse."""

from __future__ import annotations

import json
import os

import zarr
from commands import run


def write(folder, losses, arrays=("images", "mask")):
    """A file for each of ``losses``: how many of three chunks of the last array were never written."""
    for number, lost in enumerate(losses):
        group = zarr.create_group(folder / f"{number}.zarr")
        for name in arrays:
            made = group.create_array(name, shape=(6,), chunks=(2,), dtype="u2", fill_value=9)
            made[: 6 - 2 * lost * (name == arrays[-1])] = 1
    return [word for name in arrays for word in ("--key", name)]


def test_what_is_absent_is_shown_by_array_and_file(tmp_path, capsys):
    """The first few files, and the line that chooses; nothing is a problem yet."""
    keys = write(tmp_path, [1, 0, 2, 1, 3])
    code, out, err = run(capsys, "info", tmp_path, *keys, "--absent")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    at = next(index for index, line in enumerate(lines) if line.startswith("absent"))
    assert lines[at:] == [
        "absent       'mask' lacks 7 of 15 chunks in 4 files, which touch 14 rows; fill value 9",
        f"             1 of 3 in {tmp_path}/0.zarr",
        f"             2 of 3 in {tmp_path}/2.zarr",
        f"             1 of 3 in {tmp_path}/3.zarr",
        "             and in 1 more files",
        "absent       none of 15 chunks of 1 other array",
        '             to read fill values: FileCacheDataset(..., on_missing={"mask": "fill"})',
    ]


def test_json_has_all_of_it(tmp_path, capsys):
    """Every array, and every file that lacks some; without the option there is no such member."""
    keys = write(tmp_path, [1, 0, 2])
    value = json.loads(run(capsys, "info", tmp_path, *keys, "--absent", "--json")[1])["absent"]
    assert (value["chunks"], value["absent"], value["not_looked_at"]) == (18, 3, [])
    assert value["choice"] == 'FileCacheDataset(..., on_missing={"mask": "fill"})'
    images, mask = value["arrays"]
    assert images == {
        "name": "images",
        "chunks": 9,
        "absent": 0,
        "rows": 0,
        "fill_values": [],
        "files": [],
    }
    assert mask["rows"] == 6 and mask["fill_values"] == ["9"]
    assert mask["files"] == [
        {"path": f"{tmp_path}/{number}.zarr", "chunks": 3, "absent": count}
        for number, count in ((0, 1), (2, 2))
    ]
    assert "absent" not in json.loads(run(capsys, "info", tmp_path, *keys, "--json")[1])


def test_files_that_lack_nothing_are_one_line(tmp_path, capsys):
    """And no line to choose anything."""
    keys = write(tmp_path, [0])
    out = run(capsys, "info", tmp_path, *keys, "--absent")[1]
    assert out.splitlines()[-1] == "absent       none of 6 chunks of 2 arrays"
    value = json.loads(run(capsys, "info", tmp_path, *keys, "--absent", "--json")[1])["absent"]
    assert value["choice"] is None


def test_files_that_cannot_be_looked_at_are_said(tmp_path, capsys, monkeypatch):
    """They do not pass for whole ones: exit code 1."""
    from globidx.disk.stores import base as stores

    keys = write(tmp_path, [0, 0])
    real = stores.auditor

    def gone(path, *rest, **options):
        if path.endswith("1.zarr") and os.path.exists(f"{path}/mask"):
            os.rename(f"{path}/mask", f"{path}/elsewhere")
        return real(path, *rest, **options)

    # between the scan and the look
    monkeypatch.setattr(stores, "auditor", gone)
    code, out, _ = run(capsys, "info", tmp_path, *keys, "--absent")
    assert code == 1 and f"problem      {tmp_path}/1.zarr: FileNotFoundError" in out


def test_many_arrays_are_shown_in_part(tmp_path, capsys):
    """Ten of them."""
    names = [f"a{number:02}" for number in range(13)]
    group = zarr.create_group(tmp_path / "a.zarr")
    for name in names:
        group.create_array(name, shape=(6,), chunks=(2,), dtype="u2")
    keys = [word for name in names for word in ("--key", name)]
    out = run(capsys, "info", tmp_path, *keys, "--absent")[1]
    assert out.count("lacks 3 of 3 chunks") == 10 and "3 more arrays lack chunks" in out
    assert out.count('": "fill"') == 13
