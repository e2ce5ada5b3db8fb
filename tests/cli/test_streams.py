"""The command's streams: what it cannot deliver it notices before it exits, and no name writes a line of its own."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from files import numbers, write_hdf5, write_zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processes import clean_environment

from globidx import CheckpointManager, ResumableDistributedSampler
from globidx.cli import main

# -- streams that lead nowhere

COMMANDS = {
    "version": ["--version"],
    "help": ["index", "build", "--help"],
    "build": ["index", "build", "{data}"],
    "info": ["index", "info", "{data}", "--json"],
    "check": ["index", "check", "{data}"],
    "diff": ["index", "diff", "{data}"],
    "locate": ["index", "locate", "{data}", *["5"] * 5000],
    "merge": ["index", "merge", "{data}"],
    "estimate": ["estimate", "{data}", "--batch-size", "2"],
    "show": ["record", "show", "{run}"],
    "records": ["record", "check", "{run}"],
    "plan": ["record", "plan", "{run}", "--world-size", "3", "--batch-size", "2"],
}
FAILING = {"usage": (["index", "burn"], 2), "gone": (["index", "info", "{data}/gone"], 1)}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A folder of data with its index, and one of records."""
    folder = tmp_path_factory.mktemp("places")
    write_hdf5(folder / "a.h5", numbers(3))
    write_zarr(folder / "b.zarr", numbers(4), key="x")
    assert main(["index", "build", str(folder), "--quiet"]) == 0
    CheckpointManager(folder / "run", ResumableDistributedSampler(range(9), 1, 0)).save(1)
    return {"data": str(folder), "run": str(folder / "run")}


def run(arguments, places, **streams):
    """The command as a process of its own: its exit code, and what it wrote to stderr."""
    words = [word.format(**places) for word in arguments]
    more = {"PYTHONUNBUFFERED": "1"} if streams.pop("unbuffered", False) else {}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    command = [sys.executable, "-m", "globidx", *words]
    done = subprocess.run(command, env=clean_environment(**more), text=True, timeout=120, **streams)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("name", "unbuffered"), [*((name, False) for name in COMMANDS), ("info", True), ("help", True)]
)
def test_a_full_disk_is_one_line_and_exit_code_1(places, name, unbuffered):
    """Whether it is met while printing, or only when a buffer is sent: never Python's own exit code 120."""
    with open("/dev/full", "w") as full:
        code, said = run(COMMANDS[name], places, stdout=full, unbuffered=unbuffered)
    assert (
        code == 1
        and said.startswith("globidx: ")
        and "No space left" in said
        and said.count("\n") == 1
    )


@pytest.mark.parametrize("name", ["version", "help", "locate", "show"])
def test_a_reader_that_has_left_is_exit_code_1_without_a_word(places, name):
    """As ``| head`` leaves when it has had enough; here before anything was written."""
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as pipe:
        assert run(COMMANDS[name], places, stdout=pipe) == (1, "")


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("name", FAILING)
def test_an_error_that_nobody_can_read_keeps_its_exit_code(places, name, unbuffered):
    """A full disk under stderr."""
    arguments, expected = FAILING[name]
    with open("/dev/full", "w") as full:
        assert run(arguments, places, stderr=full, unbuffered=unbuffered) == (expected, None)


# -- names that want to be lines

MARK = "999  forged"
BREAKS = ["\n", "\r", "\r\n", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\n\n", "\nglobidx: \n"]
ODD = st.sampled_from(
    [
        *BREAKS,
        "\x1b[2J",
        "\x07",
        "\x9b31m",
        "\u202e",
        "\udcff",
        "'",
        '"',
        "\\n",
        "%s",
        "{}",
        "é",
        " ",
    ]
)


@st.composite
def names(draw):
    """A file name that begins a line of its own, if any of what stands in it gets through raw."""
    return (
        "x" + "".join(f"{odd}{MARK}" for odd in draw(st.lists(ODD, min_size=1, max_size=4))) + "y"
    )


def asked(*arguments):
    """What the command prints, to either stream, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        contextlib.suppress(SystemExit),
    ):
        main([*arguments])
    assert "Traceback" not in err.getvalue()
    return out.getvalue() + err.getvalue()


def conversation(folder, name):
    """All that the commands say of places, arrays, samplers and arguments that have such a name."""
    data, run = f"{folder}/{name}", f"{folder}/run{name}"
    os.mkdir(data), os.mkdir(run)
    write_zarr(f"{data}/{name}.zarr", numbers(4), key="x", chunk=2)
    write_hdf5(f"{data}/b.h5", numbers(3))
    for more in ([], ["--json"]):
        for verb in ("build", "info", "check", "merge", "diff"):
            yield asked("index", verb, data, *more)
        yield asked("index", "locate", data, "0", "5", *more)
        yield asked("index", "locate", data, "77", *more)
        yield asked("estimate", data, "--batch-size", "2", *more)
    os.rename(f"{data}/{name}.zarr", f"{data}/2{name}.zarr")
    yield asked("index", "diff", data)
    os.remove(f"{data}/2{name}.zarr/x/c/0/0")
    Path(f"{data}/3{name}.h5").write_bytes(b"junk")
    for on_bad in ("error", "skip"):
        for verb in ("build", "check"):
            yield asked("index", verb, data, "--on-bad", on_bad)
    for option in (
        "--key",
        "--layout",
        "--part",
        "--axis",
        "--workers",
        "--on-bad",
        "--cache-dir",
        "--what",
    ):
        yield asked("index", "build", data, option, name)
    yield asked("index", name)
    yield asked("index", "build", f"{data}/gone{name}")
    yield asked("index", "build", f"{data}/gone{name}*")
    yield asked("index", "build", f"{data}/b.h5", f"{data}/b.h5")
    yield asked("index", "build", "--cache-dir", f"{data}/b.h5/{name}", data)
    with h5py.File(f"{folder}/names.h5", "w") as file:
        file["b"] = np.arange(3)
        with contextlib.suppress(UnicodeEncodeError, ValueError):
            file[name] = np.arange(3)
    for key in ([], ["--key", name], ["--key", f"{name}z"]):
        yield asked("index", "build", f"{folder}/names.h5", *key)
        yield asked("index", "check", f"{folder}/names.h5", *key)
    with contextlib.suppress(UnicodeEncodeError):
        name.encode()
        CheckpointManager(run, {name: ResumableDistributedSampler(range(9), 1, 0)}).save(
            1, extras={name: name}
        )
    plan = ["--world-size", "2", "--batch-size", "1"]
    for more in ([], ["--json"]):
        yield asked("record", "show", run, *more)
        yield asked("record", "check", run, *more)
        yield asked("record", "plan", run, *plan, *more)
    yield asked("record", "plan", run, *plan, "--sampler", name)
    for record in Path(run).glob("record-*"):
        yield asked("record", "reseal", str(record))
        record.write_bytes(record.read_bytes() + b"x")
        yield asked("record", "reseal", str(record))
    for verb in ("show", "check"):
        yield asked("record", verb, run)
        yield asked("record", verb, f"{run}/gone{name}")


@pytest.mark.slow
@settings(max_examples=2)
@given(name=names())
@example(name=f"x\n{MARK}")
@example(name=f"x\udcff\r{MARK}\x1b[2J\u2028{MARK}")
def test_no_name_forges_a_line_or_reaches_the_terminal_raw(name):
    """Folders, files, arrays, samplers, extras and arguments, in results and errors of every command."""
    # a relative --cache-dir is made in the current directory
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for said in conversation(folder, name):
            assert all(c.isprintable() or c == "\n" for c in said), repr(said)
            assert not any(line.lstrip().startswith(MARK) for line in said.splitlines()), said
