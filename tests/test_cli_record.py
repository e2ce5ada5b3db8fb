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

from globidx import CheckpointManager, ResumableDistributedSampler, merge_states, read_record
from globidx.cli import main
from globidx.core.json import strict
from globidx.core.orders.plain import Shuffle
from globidx.core.records import record
from globidx.disk.files.atomic import temporary_name


def said(capsys, *arguments, code=0):
    """What the command printed to stdout, and, where it failed, to stderr."""
    assert main(["record", *map(os.fspath, arguments)]) == code
    out, err = capsys.readouterr()
    assert bool(err) == bool(code) and err.count("\n") == bool(code)
    return out if not code else out + err


def saved(folder, *steps, keep_last=9, **arguments):
    """Records of a run that committed so many ids at each step; the sampler and the ids."""
    sampler = ResumableDistributedSampler(range(10), 1, 0, **arguments)
    manager = CheckpointManager(folder, sampler, keep_last=keep_last)
    ids = []
    for step, count in enumerate(steps, 1):
        sampler.commit(count)
        ids.append(manager.save(step, extras={"loss": 0.5}))
    return sampler, ids


def uneven(n=100, counts=(5, 2, 5), skip=()):
    """The merged state of ranks that have come differently far."""
    ranks = [
        ResumableDistributedSampler(range(n), len(counts), rank) for rank in range(len(counts))
    ]
    for rank, count in zip(ranks, counts, strict=True):
        rank.commit(count)
    ranks[0].skip(skip)
    return merge_states([rank.state_dict() for rank in ranks])


def test_the_newest_record_is_shown(tmp_path, capsys):
    """A run's progress, of a file or the newest in a folder, also as JSON; a damaged one is refused."""
    _, (_, id) = saved(tmp_path, 4, 2, seed=7)
    told = said(capsys, "show", tmp_path)
    assert (
        f"record   {id}\nstep     2\n" in told
        and "6 of 10, 4 remaining" in told
        and "seed 7" in told
    )
    assert "  remaining  positions [6, 10)\n" in told and 'extras: {"loss": 0.5}' in told
    path = tmp_path / f"record-{id}.json"
    assert json.loads(said(capsys, "show", path, "--json")) == read_record(path)
    path.write_bytes(path.read_bytes().replace(b'"step": 2', b'"step": 3'))
    assert "edited or damaged" in said(capsys, "show", path, code=1)
    # In a folder there may be older records, so the message says what lists them.
    assert f"`globidx record check {tmp_path}`" in said(capsys, "show", tmp_path, code=1)


def test_a_history_is_shown_as_a_table(tmp_path, capsys):
    """A row for each segment and for ids left out; the ranges of positions that remain; ids to skip from now on."""
    sampler = ResumableDistributedSampler(range(100), 1, 0)
    sampler.load_state_dict(uneven(skip=[7, range(20, 30)]))
    sampler.quarantine(3)
    CheckpointManager(tmp_path, sampler).save(4)
    told = said(capsys, "show", tmp_path)
    assert "  replaced   ids 3 (could not be read)" in told
    left_out = sampler.state_dict()["skipped"]
    assert f"sampler: epoch 0  [###...........................]  12 of {100 - left_out}" in told
    assert f"{88 - left_out} remaining, {left_out} left out" in told
    table = [line.split() for line in told.splitlines() if re.match(r"  +(segment|\d)", line)]
    assert table[:3] == [
        ["segment", "ranks", "committed", "remaining"],
        ["1", "any", "6", "94", "the", "first", "6"],
        ["2", "3", "6", "88", "by", "rank", "3", "0", "3"],
    ]
    assert table[3][:3] == [str(88 - left_out), str(left_out), "left"]
    assert "  skip       ids 7, [20, 30) (from the next segment on)" in told


@pytest.mark.parametrize("skip", [[], [range(0, 40, 1)]])
@pytest.mark.parametrize("tail", ["pad", "drop", "exact"])
def test_a_plan_is_what_samplers_do(tmp_path, capsys, tail, skip):
    """For each rank of another world size: as many samples and batches, from and to the same positions, and as much
    padding, as a sampler there yields after loading the record.
    """
    state = uneven(n=1003, counts=(40, 38, 41, 40), skip=skip)
    path = tmp_path / "record.json"
    path.write_bytes(
        record.encode(
            record.build(number=0, token="0" * 12, step=4, time="", states={"s": state}, extras={})
        )
    )
    options = ["--world-size", "6", "--batch-size", "32", "--tail", tail]
    told = json.loads(said(capsys, "plan", path, *options, "--json"))
    order = Shuffle().bind(1003, seed=0, epoch=0)
    assert len(told["shares"]) == 6 and told["sampler"] == "s"
    for share in told["shares"]:
        sampler = ResumableDistributedSampler(range(1003), 6, share["rank"], tail=tail)
        sampler.load_state_dict(state)
        ids = list(sampler)
        batches = [ids[start : start + 32] for start in range(0, len(ids), 32)]
        real = ids[: len(ids) - share["padding"]]
        assert (share["samples"], share["batches"], share["last_batch"]) == (
            len(ids),
            len(batches),
            len(batches[-1]),
        )
        assert (share["first_position"], share["last_position"]) == (
            order.position(real[0]),
            order.position(real[-1]),
        )
        assert told["remaining"] == sampler.remaining
    assert sum(share["samples"] - share["padding"] for share in told["shares"]) in (
        told["remaining"],
        told["remaining"] - told["tails"]["drop"]["left_over"],
    )
    table = said(capsys, "plan", path, *options).splitlines()
    assert table[0] == f"record 00000000-{'0' * 12}, s: epoch 0, {told['remaining']} remaining"
    assert f"{tail}*" in "".join(table) and len(table) == 2 + 6 + 7


@pytest.mark.parametrize("told_as", ["next epoch", "nothing remains"])
def test_a_plan_of_a_finished_epoch_is_the_next_ones(tmp_path, capsys, told_as):
    """Resuming goes on there, however the record says it."""
    sampler, _ = saved(tmp_path, 10)
    if told_as == "nothing remains":
        state = sampler.state_dict() | {
            "epoch": 0,
            "segments": [[10]],
            "committed": 10,
            "remaining": 0,
        }
        sealed = record.build(
            number=9, token="0" * 12, step=1, time="", states={"s": state}, extras={}
        )
        (tmp_path / f"record-{sealed['id']}.json").write_bytes(record.encode(sealed))
    told = json.loads(
        said(
            capsys,
            "plan",
            tmp_path,
            "--world-size",
            "20",
            "--batch-size",
            "1",
            "--json",
            "--tail",
            "exact",
        )
    )
    assert (told["epoch"], told["remaining"]) == (1, 10)
    assert [share["samples"] for share in told["shares"]] == [1] * 10 + [0] * 10
    assert told["shares"][-1]["first_position"] is None


def test_a_plan_asks_which_sampler_and_refuses_what_it_cannot_compute(tmp_path, capsys):
    """Several samplers need a name; an order that needs its weights, with ids left out, needs its own run."""
    states = {"train": uneven(skip=[3]), "val": uneven(), "other": {"x": 1}}
    states["train"]["order"] = {"algorithm": "weighted", "version": 1}
    path = tmp_path / "record.json"
    path.write_bytes(
        record.encode(
            record.build(number=0, token="0" * 12, step=4, time="", states=states, extras={})
        )
    )
    options = ["--world-size", "2", "--batch-size", "4"]
    assert "['train', 'val']; pick one with --sampler" in said(
        capsys, "plan", path, *options, code=1
    )
    assert ", not 'vla'; pick" in said(capsys, "plan", path, *options, "--sampler", "vla", code=1)
    assert "which only its own run can compute" in said(
        capsys, "plan", path, *options, "--sampler", "train", code=1
    )
    assert "val: epoch 0" in said(capsys, "plan", path, *options, "--sampler", "val")


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


def leaves(value):
    """Every number, text, flag or null of a JSON value."""
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list) else [value]


@pytest.mark.parametrize("world_size", [1, 3, 4])
def test_a_plan_in_json_holds_numbers_where_it_counts(tmp_path, capsys, world_size):
    """Also where ranks differ: fewest and most, as [833, 834], and never a phrase among integers."""
    saved(tmp_path, 3)
    told = json.loads(
        said(
            capsys, "plan", tmp_path, "--world-size", str(world_size), "--batch-size", "2", "--json"
        )
    )
    assert {type(leaf) for leaf in leaves([told["tails"], told["shares"]])} <= {int, type(None)}
    fewest, most = told["tails"]["exact"]["samples"]
    counts = [len(range(rank, told["remaining"], world_size)) for rank in range(world_size)]
    assert (fewest, most) == (min(counts), max(counts))
