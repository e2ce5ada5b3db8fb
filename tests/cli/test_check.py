"""``globidx index check`` tells of everything that is damaged."""

from __future__ import annotations

import json
import os

import pytest
import zarr
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


def many_arrays(folder, count):
    """Files with so many arrays, of which each lacks one chunk of three in the second file."""
    for number in range(2):
        group = zarr.create_group(folder / f"{number}.zarr")
        for name in range(count):
            made = group.create_array(f"a{name:02}", shape=(6,), chunks=(2,), dtype="u2")
            made[: 6 - 2 * number] = 1
    return [word for name in range(count) for word in ("--key", f"a{name:02}")]


def test_fifty_arrays_fit_a_terminal(tmp_path, capsys):
    """Ten of what there are many of, a line each; JSON has all of them."""
    keys = many_arrays(tmp_path, 50)
    code, out, _ = run(capsys, "check", tmp_path, *keys, "--workers", 1)
    lines = out.splitlines()
    assert code == 1 and len(lines) < 50
    # the line that chooses names all of them, and is to be copied
    assert max(len(line) for line in lines if "to read" not in line) < 150
    assert "checksums  none in 50 of 50 arrays: a flipped bit there would read as data" in lines
    assert sum(line.startswith("absent     1 of 6 chunks of 'a") for line in lines) == 10
    for what in ("checksums", "absent chunks", "problems"):
        assert any(line.startswith("and 40 more arrays") and what in line for line in lines)
    value = json.loads(run(capsys, "check", tmp_path, *keys, "--workers", 1, "--json")[1])
    assert len(value["without_checksums"]) == len(value["problems"]) == 50
    assert value["arrays"][3] == {"name": "a03", "chunks": 6, "absent": 1, "files": 1}


def test_groups_that_a_pattern_matches_are_one_array(tmp_path, capsys):
    """However many there are, their arrays without checksums are one line; problems name the very group."""
    group = zarr.create_group(tmp_path / "a.zarr")
    for number in range(30):
        made = group.create_array(f"demo_{number}/x", shape=(4,), chunks=(2,), dtype="u2")
        made[:] = 1
    (tmp_path / "a.zarr/demo_7/x/c/1").unlink()
    options = ("--key", "*/x", "--sequences", "match", "--workers", 1)
    code, out, _ = run(capsys, "check", tmp_path, *options)
    assert code == 1 and "checksums  none in the array: " in out and "           */x\n" in out
    assert "absent     1 of 60 chunks of 'x', in 1 of 1 files" in out
    assert "array 'demo_7/x': 1 of 2 chunks absent" in out


def test_absent_chunks_of_some_fields_may_be_no_problem(tmp_path, capsys):
    """``--on-missing FIELD=fill``, as a dataset with ``on_missing={FIELD: "fill"}``."""
    keys = many_arrays(tmp_path, 2)
    told = {}
    for chosen in ([], ["a00=fill"], ["a00=fill", "a01=fill"], ["fill"], ["a01=error"]):
        options = [word for one in chosen for word in ("--on-missing", one)]
        code, out, _ = run(capsys, "check", tmp_path, *keys, *options, "--json", "--workers", 1)
        value = json.loads(out)
        told[tuple(chosen)] = code, [one["field"] for one in value["problems"]]
        assert value["absent"] == 2
    assert list(told.values()) == [
        (1, ["a00", "a01"]),
        (1, ["a01"]),
        (0, []),
        (0, []),
        (1, ["a00", "a01"]),
    ]
    with pytest.raises(SystemExit):
        run(capsys, "check", tmp_path, *keys, "--on-missing", "a00=zero")
    assert "choose from error, fill" in capsys.readouterr().err
