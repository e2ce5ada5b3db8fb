"""``globidx record``: what it shows, plans, verifies and seals again, and with which exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from files import environment, run_python
from runs import said, saved, uneven

from globidx import CheckpointManager, ResumableDistributedSampler, read_record
from globidx.cli import main
from globidx.core.json import strict
from globidx.core.records import record
from globidx.disk.files.atomic import temporary_name


def test_check_verifies_every_record_of_a_folder(tmp_path, capsys):
    """Damaged, renamed and newer ones are listed, and it is exit code 1; temporary files are told of, and are no
    problem.
    """
    _, ids = saved(tmp_path, 1, 1, 1, 1, 1)
    paths = [tmp_path / f"record-{id}.json" for id in ids]
    left = tmp_path / temporary_name(paths[0].name)
    left.write_bytes(b"half")
    os.utime(left, (time.time() - 7300,) * 2)
    told = said(capsys, "check", tmp_path)
    assert told.count("whole    ") == 5 and "5 records, 0 damaged" in told
    assert f"left     {left}: begun 2 hours ago" in told
    paths[0].write_bytes(paths[0].read_bytes()[:-9])
    shutil.copy(paths[1], paths[2])
    paths[3].write_bytes(strict.pretty(record.seal({**read_record(paths[3]), "version": 2})))
    told = said(capsys, "check", tmp_path, code=1)
    assert told.count("whole    ") == 2 and told.count("DAMAGED  ") == 3
    assert (
        f"DAMAGED  {paths[2]} holds record {ids[1]}: it was renamed or copied over another" in told
    )
    assert "but this globidx reads up to 1" in told and told.endswith(
        f"3 of 5 records in {tmp_path} are damaged\n"
    )
    told = said(capsys, "check", tmp_path, "--json", code=1)
    value = json.loads(told[: told.index("globidx: ")])
    assert [each["id"] for each in value["records"]] == [
        None,
        ids[1],
        ids[1],
        None,
        ids[4],
    ] and value["problems"] == 3
    assert [each["file"] for each in value["temporary"]] == [str(left)]
    assert "0 damaged" in said(capsys, "check", paths[4])
    assert "there is no record or folder of records at" in said(
        capsys, "check", tmp_path / "gone", code=1
    )


def test_an_edited_record_is_resealed_beside_itself(tmp_path, capsys):
    """A new record with an id of its own, the newest; the edited file stays; a whole one is left alone."""
    _, (id,) = saved(tmp_path, 4)
    path = tmp_path / f"record-{id}.json"
    assert "nothing was written" in said(capsys, "reseal", path)
    edited = path.read_bytes().replace(b'"step": 1', b'"step": 1000')
    path.write_bytes(edited)
    told = json.loads(said(capsys, "reseal", path, "--json"))
    assert told["id"].startswith("00000001-") and os.listdir(tmp_path) != [path.name]
    assert path.read_bytes() == edited
    assert read_record(told["written"])["step"] == 1000
    sampler = ResumableDistributedSampler(range(10), 1, 0)
    assert (
        CheckpointManager(tmp_path, sampler).restore()["id"] == told["id"]
        and len(list(sampler)) == 6
    )
    assert said(capsys, "reseal", path, "--in-place").startswith(
        f"record {id} is written in {path}"
    )
    assert (read_record(path)["id"], read_record(path)["step"]) == (id, 1000)


@pytest.mark.parametrize("flags", [[], ["--in-place"]])
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (b'"committed": 4', b'"committed": 5', "committed is 5, but its segments say 4"),
        (b'"step": 1', b'"step": true', "step must be an integer"),
        (b'"step": 1', b'"step": 1, "step": 2', "occurs twice"),
        (b'"number": 0', b'"number": 1', "does not begin with its number"),
        (b"}\n}", b"}\n", "not JSON"),
    ],
)
def test_what_is_no_record_is_not_resealed(tmp_path, capsys, old, new, told, flags):
    """A wrong sum, type or key is refused, and nothing is written."""
    _, (id,) = saved(tmp_path, 4)
    path = tmp_path / f"record-{id}.json"
    edited = path.read_bytes().replace(old, new, 1) if old != b"}\n}" else path.read_bytes()[:-3]
    path.write_bytes(edited)
    assert told in said(capsys, "reseal", path, *flags, code=1)
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == edited


@pytest.mark.parametrize(
    "arguments",
    [
        ["plan", "x"],
        ["plan", "x", "--world-size", "0", "--batch-size", "1"],
        ["plan", "x", "--world-size", "1", "--batch-size", "b"],
        ["plan", "x", "--world-size", "9999999", "--batch-size", "1"],
        ["plan", "x", "--world-size", "1", "--batch-size", "1", "--tail", "some"],
        ["reseal"],
        ["check"],
    ],
)
def test_a_wrong_command_is_exit_code_2(arguments, capsys):
    """Usage errors show the usage."""
    with pytest.raises(SystemExit) as exit_:
        main(["record", *arguments])
    assert exit_.value.code == 2 and "usage: globidx record" in capsys.readouterr().err


def test_hostile_strings_are_shown_escaped_on_their_own_line(tmp_path, capsys):
    """A record may hold anything, sealed as it should be: no control character reaches the terminal, no line is forged."""
    evil = "\x7f\x1b[31m\nstep     999\r\u202e{0}%s"
    state = uneven() | {"dataset": {"num_samples": 100, "num_files": None, "fingerprint": evil}}
    state["order"] = {"algorithm": evil, "version": evil}
    sealed = record.build(
        number=0,
        token="0" * 12,
        step=4,
        time=evil,
        states={evil: state, "x": {evil: 1}},
        extras={evil: 1},
    )
    path = tmp_path / "record.json"
    path.write_bytes(record.encode(sealed))
    for arguments in (
        ["show", path],
        ["show", path, "--json"],
        ["check", path],
        ["plan", path, "--world-size", "2", "--batch-size", "2"],
    ):
        told = said(capsys, *arguments)
        assert all(character.isprintable() for line in told.split("\n") for character in line)
        assert not re.search(r"^step     999", told, re.MULTILINE)
    (tmp_path / "record-00000001-aaaaaaaaaaaa.json").write_bytes(strict.pretty({**sealed, evil: 1}))
    told = said(capsys, "check", tmp_path, code=1)
    assert all(character.isprintable() for line in told.split("\n") for character in line)
    assert "unknown" in told and not re.search(r"^step     999", told, re.MULTILINE)


def test_no_command_imports_torch(tmp_path):
    """They answer at once on a login node."""
    _, (id,) = saved(tmp_path, 4)
    code = """
import sys
from globidx.cli import main
path = sys.argv[1]
for words in (["show"], ["check"], ["plan", "--world-size", "2", "--batch-size", "1"], ["reseal"]):
    assert main(["record", words[0], path, *words[1:]]) == 0
print({"torch", "zarr", "h5py"} & set(sys.modules))
"""
    assert run_python(code, tmp_path / f"record-{id}.json").stdout.splitlines()[-1] == "set()"


def test_an_interrupt_is_exit_code_130_and_changes_nothing(tmp_path):
    """Ctrl-C while a record is resealed: one line, no new file."""
    _, (id,) = saved(tmp_path, 4)
    path = tmp_path / f"record-{id}.json"
    path.write_bytes(path.read_bytes().replace(b'"step": 1', b'"step": 2'))
    code = """
import os, sys
from globidx import cli
real = os.fsync
def slow(descriptor):
    print("syncing", flush=True)
    sys.stdin.read()
os.fsync = slow
sys.exit(cli.main(["record", "reseal", sys.argv[1]]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, path],
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "syncing\n"
    process.send_signal(signal.SIGINT)
    assert (
        process.communicate(timeout=60)[1] == "globidx: interrupted\n" and process.returncode == 130
    )
    assert os.listdir(tmp_path) == [path.name]
