"""The ``globidx`` command: data on stdout, words on stderr, an exit code, and never a traceback."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from files import environment, numbers, run_python, write_hdf5, write_zarr
from processes import REPOSITORY

from globidx import GlobalIndexManager
from globidx.cli import main


@pytest.fixture
def folder(tmp_path):
    """A folder with two files of 3 and 4 items."""
    write_hdf5(tmp_path / "a.h5", numbers(3), key="x")
    write_zarr(tmp_path / "b.zarr", {"x": numbers(4), "y": numbers(4)})
    return tmp_path


def command(*arguments, flags=(), env=None, **options):
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, *flags, "-m", "globidx", *map(os.fspath, arguments)],
        env=environment(env),
        timeout=60,
        **{"capture_output": True, "text": True} | options,
    )


def shell(line, *arguments):
    """A shell line in which ``globidx`` is the command."""
    line = line.replace("globidx", f"{shlex.quote(sys.executable)} -m globidx")
    return subprocess.run(
        ["bash", "-c", line, "bash", *map(os.fspath, arguments)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_build_and_info_tell_what_the_manager_knows(folder, capsys):
    """``index build`` leaves a cache behind; ``index info`` shows the index, for people and as JSON."""
    manager = GlobalIndexManager(folder, key="x")
    manager.cache_path.unlink()
    assert main(["index", "build", str(folder), "--key", "x"]) == 0
    assert capsys.readouterr().out == f"7 samples in 2 files, cached in {manager.cache_path}\n"
    assert manager.cache_path.exists()
    assert main(["index", "info", str(folder), "--key", "x"]) == 0
    told = capsys.readouterr().out
    for word in (
        "7",
        manager.fingerprint,
        "x: items of (3,) uint16",
        "3 to 4",
        str(manager.cache_path),
    ):
        assert word in told
    for verb in ("build", "info"):
        assert main(["index", verb, str(folder), "--key", "x", "--json"]) == 0
        value = json.loads(capsys.readouterr().out)
        # what else there is belongs to info, of AnnData files
        assert value.pop("available", None) == ({} if verb == "info" else None)
        assert value == {
            "num_samples": 7,
            "num_files": 2,
            "fingerprint": manager.fingerprint,
            "shortest": 3,
            "longest": 4,
            "sequences": None,
            "window": None,
            "left_out": None,
            "arrays": [
                {
                    "name": "x",
                    "item_shape": [3],
                    "dtype": "uint16",
                    "form": "plain",
                    "packing": "",
                    "num_packings": 1,
                }
            ],
            "skipped": [],
            "cache": str(manager.cache_path),
        }


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["index", "info", "{}/gone"], "there is no file or directory"),
        (["index", "build", "{}/*.nc"], "no file matches"),
        (["index", "build", "{}"], "2 arrays"),
        (["index", "build", "{}", "--key", "z"], "no array 'z'; there is 'x'"),
        (["index", "build", "{}", "--key", ""], "key must name"),
        (["index", "build", "{}", "--key", "x", "--axis", "-9"], "axis must be in"),
        (["index", "build", "{}/a.h5", "{}/a.h5"], "same file"),
        (["record", "show", "{}"], "holds no record"),
        (["record", "show", "{}/gone"], "there is no record or folder of records at"),
        (["record", "show", "{}/a.h5"], "a.h5"),
    ],
)
def test_what_cannot_be_done_is_one_message_and_exit_code_1(folder, capsys, arguments, told):
    """The message goes to stderr and begins with the command's name; stdout stays empty."""
    assert main([argument.format(folder) for argument in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("globidx: ") and told in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["index"],
        ["index", "build"],
        ["index", "burn", "x"],
        ["record", "show"],
        ["index", "info", "x", "--axis", "b"],
        ["index", "info", "x", "--on-bad", "y"],
    ],
)
def test_a_wrong_command_is_exit_code_2(arguments, capsys):
    """Usage errors show the usage."""
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2 and "usage: globidx" in capsys.readouterr().err


def test_help_and_version_are_exit_code_0(capsys):
    """Both go to stdout."""
    for arguments in (
        ["--version"],
        ["--help"],
        ["index", "build", "--help"],
        ["record", "show", "--help"],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0 and "globidx" in capsys.readouterr().out


def test_the_command_never_imports_torch(folder):
    """It must answer at once on a login node: neither the index nor the record command loads torch."""
    code = """
import sys
from globidx.cli import main
built, shown = main(["index", "build", sys.argv[1], "--key", "x"]), main(["record", "show", sys.argv[1]])
print(built, shown, "torch" in sys.modules)
"""
    assert run_python(code, folder).stdout.splitlines()[-1] == "0 1 False"


def test_optimised_python_says_the_same(folder):
    """No assertion carries logic: ``python -O`` builds and refuses alike."""
    for arguments in (
        ["index", "info", folder, "--key", "x"],
        ["index", "info", folder],
        ["index"],
    ):
        plain, optimised = command(*arguments), command(*arguments, flags=["-O"])
        assert (plain.returncode, plain.stdout) == (optimised.returncode, optimised.stdout)
        assert plain.stderr == optimised.stderr


def test_nothing_is_left_open(folder):
    """Under ``-X dev -W error`` the command ends without a word."""
    done = command("index", "build", folder, "--key", "x", flags=["-X", "dev", "-W", "error"])
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_leaves_is_no_traceback(folder):
    """``globidx ... | head`` ends quietly."""
    done = shell(
        'globidx index info "$1" --key x --json 2>"$1/err" | head -c 0; echo ${PIPESTATUS[0]}',
        folder,
    )
    assert done.stdout in ("0\n", "1\n") and (folder / "err").read_text() == ""


@pytest.mark.parametrize("where", [">/dev/full", ">&-"])
@pytest.mark.parametrize("option", ["--json", ""])
def test_output_that_goes_nowhere_is_one_line_and_exit_code_1(folder, where, option):
    """A full disk or a closed stdout: one line on stderr."""
    done = shell(f'globidx index info "$1" --key x {option} {where}', folder)
    assert (
        done.returncode == 1
        and done.stderr.startswith("globidx: ")
        and done.stderr.count("\n") == 1
    )


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_odd_names_are_shown_escaped(tmp_path, encoding):
    """Control characters, bytes that are no text and letters the terminal has not never reach it raw."""
    folder = os.path.join(os.fsencode(tmp_path), "odd\x1b[31m\né".encode() + b"\xff")
    os.mkdir(folder)
    write_hdf5(os.fsdecode(folder + b"/a.h5"), numbers(2))
    env = {
        "PYTHONIOENCODING": encoding,
        "LC_ALL": "C",
        "PYTHONUTF8": "0" if encoding == "ascii" else "1",
    }
    for arguments in (
        ["index", "info", os.fsdecode(folder)],
        ["index", "build", os.fsdecode(folder), "--json"],
    ):
        done = command(*arguments, env=env, text=False)
        assert (
            done.returncode == 0
            and done.stderr == b""
            and b"\x1b" not in done.stdout
            and b"\xff" not in done.stdout
        )
    with open(os.fsdecode(folder + b"/bad.h5"), "wb"):
        pass
    done = command("index", "info", os.fsdecode(folder), env=env, text=False)
    assert done.returncode == 1 and b"bad.h5" in done.stderr
    assert (
        b"\x1b" not in done.stderr
        and b"\xff" not in done.stderr
        and b"Traceback" not in done.stderr
    )


def test_names_with_a_dash_follow_two_dashes(folder):
    """As everywhere on the command line."""
    write_hdf5(folder / "-c.h5", numbers(5))
    assert command("index", "info", "--key", "x", "--", "-c.h5", cwd=folder).returncode == 0
    assert command("index", "info", "--key", "x", "-c.h5", cwd=folder).returncode == 2


def test_an_interrupt_is_exit_code_130_without_a_traceback(folder):
    """Ctrl-C while a file is looked at: one line, and no cache half made."""
    code = """
import sys
from globidx import cli
from globidx.disk.stores import base as stores
def slow(*_):
    print("looking", flush=True)
    sys.stdin.read()
stores.scan = slow
sys.exit(cli.main(["index", "build", sys.argv[1], "--key", "x"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder],
        env=environment(),
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout.readline() == "looking\n"
    process.send_signal(signal.SIGINT)
    assert (
        process.communicate(timeout=60)[1] == "globidx: interrupted\n" and process.returncode == 130
    )
    assert not [name for name in os.listdir(folder) if name.endswith((".index", "globidx-tmp"))]


def test_the_tool_is_the_same_door(folder):
    """``tools/build_index.py`` is ``globidx index build``."""
    tool = [sys.executable, REPOSITORY / "tools/build_index.py"]
    done = subprocess.run(
        [*tool, folder, "--key", "x"], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (
        done.returncode == 0
        and done.stdout == command("index", "build", folder, "--key", "x").stdout
    )
    assert done.stdout.startswith("7 samples in 2 files")
    assert (
        subprocess.run([*tool], env=environment(), capture_output=True, timeout=60).returncode == 2
    )
