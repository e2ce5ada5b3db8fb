"""``globidx index check`` tells of everything that is damaged."""

from __future__ import annotations

import json
import os

import pytest
from commands import run


@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_one_check_tells_of_everything_that_is_damaged(folder, capsys, on_bad):
    """Truncated files and absent chunks, in words and as JSON, whatever is said of files that cannot be indexed."""
    whole = (folder / "a.h5").read_bytes()
    (folder / "cut.h5").write_bytes(whole[: len(whole) // 2])
    (folder / "b.zarr/x/c/0/0").unlink()
    (folder / "other.h5").write_bytes(b"")
    code, out, err = run(capsys, "check", folder, "--on-bad", on_bad)
    assert code == 1 and err == "" and "files      4, 2 of them cannot be indexed\n" in out
    problems = [
        line.split()[1].rstrip(":,") for line in out.splitlines() if line.startswith("problem ")
    ]
    assert sorted(map(os.path.basename, problems)) == ["b.zarr", "cut.h5", "other.h5"]
    told = json.loads(run(capsys, "check", folder, "--on-bad", on_bad, "--json")[1])
    assert sorted(os.path.basename(path) for path, _ in told["skipped"]) == ["cut.h5", "other.h5"]
    assert told["num_files"] == 4 and [(p["path"], p["absent"]) for p in told["problems"]] == [
        (f"{folder}/b.zarr", 1)
    ]
    assert run(capsys, "check", folder, "--on-bad", on_bad, "--quiet") == (1, "", "")


def test_a_check_of_nothing_but_damage_tells_of_it_too(folder, capsys):
    """Where not one file can be indexed: the same JSON."""
    (folder / "sub").mkdir()
    for name in ("a.h5", "b.h5"):
        (folder / "sub" / name).write_bytes(b"")
    code, out, _ = run(capsys, "check", folder / "sub", "--json")
    told = json.loads(out)
    assert code == 1 and (told["num_files"], told["chunks"]) == (2, 0)
    assert [path for path, _ in told["skipped"]] == [
        f"{folder}/sub/{name}" for name in ("a.h5", "b.h5")
    ]
