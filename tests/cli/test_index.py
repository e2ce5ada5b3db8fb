"""``globidx index``: every command with its options, exit codes, and what it says where nobody listens."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr
from commands import command, run
from files import environment, numbers, run_python, write_hdf5, write_zarr

from globidx import GlobalIndexManager
from globidx.cli import main

COMMANDS = ["build", "info", "check", "diff", "merge", "locate"]


def arguments_of(name, folder):
    return [name, str(folder), *(["5"] if name == "locate" else [])]


def listing(folder):
    """All below a folder, hidden and all, with size and times."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        status = path.lstat()
        found[str(path)] = status.st_size, status.st_mtime_ns, status.st_ino
    return found


# -- what each says

KEYS = {
    "build": "arrays cache fingerprint left_out longest num_files num_samples sequences shortest skipped window",
    "info": "arrays available cache fingerprint left_out longest num_files num_samples sequences shortest skipped window",
    "merge": "absent_parts arrays cache fingerprint left_out longest num_files num_samples parts sequences shortest "
    "skipped window",
    "check": "absent arrays chunks num_files problems skipped unreadable without_checksums",
    "diff": "appended grown inserted keep_ids moved removed renamed replaced rewritten shrunk",
}


@pytest.mark.parametrize("name", KEYS)
def test_json_has_the_same_keys_always(folder, capsys, name):
    """Scripts read them: these names, no others."""
    run(capsys, "build", folder)
    code, out, err = run(capsys, name, folder, "--json")
    assert code == 0 and sorted(json.loads(out)) == KEYS[name].split() and err == ""


@pytest.mark.parametrize("kind", ["hdf5", "zarr2"])
def test_info_says_how_arrays_are_packed(tmp_path, capsys, kind):
    """By the first file, and whether files differ; the fill value that each array of zarr 2 has is no packing."""

    def info(*scales):
        folder = tmp_path / f"{len(scales)}-{scales[0]}"
        folder.mkdir()
        for name, scale in zip("abc", scales, strict=False):
            path = str(folder / f"{name}.{'h5' if kind == 'hdf5' else 'zarr'}")
            if kind == "hdf5":
                write_hdf5(path, numbers(3))
                file = h5py.File(path, "a")
            else:
                file = {
                    "x": zarr.open_group(write_zarr(path, numbers(3), key="x", zarr_format=2))["x"]
                }
            file["x"].attrs.update({"scale_factor": scale} if scale else {})
            if kind == "hdf5":
                file.close()
        out = [run(capsys, "info", folder, "--key", "x", *more)[1] for more in ([], ["--json"])]
        return out[0], json.loads(out[1])["arrays"][0]

    own = "" if kind == "hdf5" else ", fill_value 0"
    text, value = info(None)
    assert "packed" not in text and value["num_packings"] == 1
    text, value = info(0.5)
    assert f"uint16, packed by scale_factor 0.5{own}\n" in text
    assert (value["packing"], value["num_packings"]) == (f"scale_factor 0.5{own}", 1)
    text, value = info(0.5, 0.25, 0.25)
    assert f"by scale_factor 0.5{own} in the first file, differs by file (2 packings)\n" in text
    assert value["num_packings"] == 2


def test_locate_says_file_and_item(folder, capsys):
    """For people and as JSON, many ids in the sequence asked for; one that is none is exit code 1."""
    manager = GlobalIndexManager(folder)
    code, out, _ = run(capsys, "locate", folder, 6, 0)
    assert code == 0 and out == f"6  {folder}/b.zarr  item 3\n0  {folder}/a.h5  item 0\n"
    code, out, _ = run(capsys, "locate", "--json", folder, 5)
    path, item = manager.locate(5)
    assert json.loads(out) == [{"id": 5, "path": path, "item": item}]
    for bad in ("7", "-1", str(2**63)):
        code, out, err = run(capsys, "locate", folder, "--", bad)
        assert (code, out) == (1, "") and err == f"globidx: sample id {bad} is outside [0, 7)\n"
    assert run(capsys, "locate", folder, str(2**200))[0] == 1
    with pytest.raises(SystemExit) as exit_:
        run(capsys, "locate", folder, "x")
    assert exit_.value.code == 2


def test_diff_tells_what_became_of_the_files(folder, capsys):
    """0 and "nothing changed", or 1 and each file; and the cache stays as it is, so it says the same again."""
    code, out, err = run(capsys, "diff", folder)
    assert (
        code == 1
        and out == ""
        and "there is no index of these files" in err
        and "build it first" in err
    )
    run(capsys, "build", folder)
    assert run(capsys, "diff", folder)[:2] == (0, "nothing changed\n")
    write_hdf5(folder / "c.h5", numbers(2))
    os.rename(folder / "a.h5", folder / "aa.h5")
    before = listing(folder)
    for _ in range(2):
        code, out, _ = run(capsys, "diff", folder)
        assert code == 1
        assert out == "appended   c.h5\nrenamed    a.h5 -> aa.h5\nsample ids lose their places\n"
        assert listing(folder) == before
    told = json.loads(run(capsys, "diff", folder, "--json")[1])
    assert told["renamed"] == [["a.h5", "aa.h5"]] and told["keep_ids"] is False


def test_skipped_files_are_told_once_and_not_to_the_quiet(folder, capsys):
    """A warning of the library is a message of the command: escaped, on stderr."""
    (folder / "bad\x1b.h5").write_bytes(b"")
    code, out, err = run(capsys, "build", folder, "--on-bad", "skip")
    assert code == 0 and out.startswith("7 samples in 2 files")
    assert (
        err.startswith("globidx: left out 1 of 3 files")
        and err.count("\n") == 1
        and "\x1b" not in err
    )
    assert run(capsys, "build", folder, "--on-bad", "skip", "--quiet") == (0, "", "")
    assert [
        Path(path).name
        for path, _ in json.loads(run(capsys, "info", folder, "--on-bad", "skip", "--json")[1])[
            "skipped"
        ]
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_quiet_says_nothing(folder, capsys, name):
    """Only the exit code; JSON that was asked for still comes."""
    run(capsys, "build", folder)
    assert run(capsys, *arguments_of(name, folder), "--quiet") == (0, "", "")
    assert json.loads(run(capsys, *arguments_of(name, folder), "--quiet", "--json")[1])
    code, out, err = run(capsys, *arguments_of(name, folder / "gone"), "--quiet")
    assert (code, out) == (1, "") and err.startswith("globidx: there is no file")


@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_dry_run_writes_nothing(folder, capsys, name, is_built):
    """Not a byte and not a file, beside the data or anywhere it might."""
    if is_built:
        run(capsys, "build", folder)
        run(capsys, "build", folder, "--part", "1/2")
    before = listing(folder)
    code, out, _ = run(capsys, *arguments_of(name, folder), "--dry-run")
    assert listing(folder) == before
    needs_an_index = name in ("diff", "merge")
    assert code == (1 if needs_an_index and not is_built else 0)
    if name in ("build", "check", "merge") and not code:
        assert re.match(r"\d of 2 files would be scanned, and ", out)
    code, out, _ = run(capsys, "build", folder, "--dry-run", "--json", "--part", "2/2")
    assert json.loads(out)["num_files"] == 1 and listing(folder) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["build", "x", "--part", "3"],
        ["build", "x", "--workers", "0"],
        ["build", "x", "--workers", "two"],
        ["build", "x", "--workers", "-1"],
        ["build", "x", "--quiet", "--progress"],
        ["build", "x", "--axis", "one"],
        ["check", "x", "--on-missing", "ignore"],
        ["locate", "x"],
        ["diff"],
        ["merge", "x", "--part", "1/2"],
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments, capsys):
    """Exit code 2, the usage on stderr, nothing on stdout."""
    with pytest.raises(SystemExit) as exit_:
        main(["index", *arguments])
    out, err = capsys.readouterr()
    assert exit_.value.code == 2 and out == "" and "usage: globidx" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--layout", "imagenet"], "layout must be one of auto, cxi"),
        (["--layout", "cxi", "--key", "x"], "has its own arrays"),
        (["--layout", "tokens:4", "--axis", "1"], "along axis 0, not 1"),
        (["--key", "../x"], "inside the file"),
        (["--axis", "7"], "no axis 7"),
        (["--axis", "64"], "axis must be in [-64, 63]"),
    ],
)
def test_options_that_do_not_fit_are_told_in_a_line(folder, capsys, arguments, told):
    """Exit code 1 and the library's own words."""
    code, out, err = run(capsys, "build", folder, *arguments)
    assert (code, out) == (1, "") and told in err and "Traceback" not in err


def test_totals_that_no_id_can_name_are_told_in_a_line(folder, capsys):
    """An OverflowError of the library is a message here."""
    for name in ("c.zarr", "d.zarr"):
        write_zarr(folder / name, numbers(4), key="x")
        metadata = folder / name / "x/zarr.json"
        metadata.write_text(json.dumps(json.loads(metadata.read_text()) | {"shape": [2**62, 3]}))
    code, out, err = run(capsys, "build", folder)
    assert (code, out) == (1, "") and err.startswith("globidx: 4 files hold ") and "2**63" in err


def test_a_worker_that_dies_is_told_in_a_line(folder):
    """Killed for memory, say: no traceback, and what was scanned is kept."""
    for number in range(70):
        write_hdf5(folder / f"n{number:02}.h5", numbers(1))
    code = """
import os, sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from globidx import cli
from globidx.disk.stores import base as stores
parent, real = os.getpid(), stores.scan
def dying(path, *rest):
    if os.getpid() != parent and path.endswith("n69.h5"):
        os._exit(9)
    return real(path, *rest)
stores.scan = dying
cli.index.pool = lambda workers: ProcessPoolExecutor(1, mp_context=get_context("fork"))
sys.exit(cli.main(["index", "build", sys.argv[1]]))
"""
    done = run_python(code, folder, check=False)
    assert done.returncode == 1 and done.stdout == ""
    assert (
        done.stderr.startswith("globidx: a process that looked at files died; ")
        and done.stderr.count("\n") == 1
    )


# -- interrupts


def test_ctrl_c_reaches_all_processes_of_a_terminal_and_is_one_line(folder):
    """The workers get it, too: exit code 130, no traceback of theirs, no process left."""
    for number in range(70):
        write_hdf5(folder / f"n{number:02}.h5", numbers(1))
    code = """
import os, sys
from globidx import cli
import gated
sys.exit(cli.main(["index", "build", sys.argv[1], "--workers", "2"]))
"""
    (folder / "gated.py").write_text(
        "import os, time\n"
        "from globidx.disk.index import scan as scanning\n"
        "def waiting(*given, **options):\n"
        "    print('looking', flush=True)\n"
        f"    while not os.path.exists({str(folder / 'gate')!r}):\n"
        "        time.sleep(0.01)\n"
        "scanning._scan_batch = waiting\n"
    )
    path = os.pathsep.join([environment()["PYTHONPATH"], str(folder)])
    process = subprocess.Popen(
        [sys.executable, "-c", code, folder],
        env={**environment(), "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout.readline() == "looking\n"
    os.killpg(process.pid, signal.SIGINT)
    (folder / "gate").touch()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err == "globidx: interrupted\n", (out, err)


# -- where nobody looks


def by_shell(line, folder):
    """A line of bash, with the folder as its first argument."""
    return subprocess.run(
        ["bash", "-c", line, "bash", folder],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "where", [">/dev/full", ">&-", "2>&-", "2>/dev/full", "</dev/null >/dev/null 2>&1"]
)
@pytest.mark.parametrize("name", ["locate", "check"])
def test_streams_that_lead_nowhere_are_no_traceback(folder, where, name):
    """Full or closed: exit code 1 where data are lost, and at most one line."""
    line = (
        f'{sys.executable} -m globidx index {name} "$1" {"5" if name == "locate" else ""} {where}'
    )
    done = by_shell(line, folder)
    assert done.returncode == (1 if where.startswith(">") else 0)
    assert "Traceback" not in done.stderr and done.stderr.count("\n") <= 1


def test_errors_never_go_to_stdout(folder):
    """Not even where stderr is closed."""
    line = f'{sys.executable} -m globidx index locate "$1" 99 2>&-'
    done = by_shell(line, folder)
    assert (done.returncode, done.stdout) == (1, "")


def test_a_reader_that_leaves_early_is_no_traceback(folder):
    """``| head`` ends it quietly, however much there was to say."""
    ids = " ".join(["5"] * 5000)
    line = f'{sys.executable} -m globidx index locate "$1" {ids} 2>"$1/err" | head -n 1; echo ${{PIPESTATUS[0]}}'
    done = by_shell(line, folder)
    first, code = done.stdout.splitlines()
    assert first.startswith("5  ") and code in "01" and (folder / "err").read_text() == ""


def test_names_that_are_no_text_are_told_in_ascii(tmp_path):
    """Under LC_ALL=C without UTF-8, in every command and in errors."""
    folder = os.path.join(os.fsencode(tmp_path), "é\x1b".encode() + b"\xff")
    os.mkdir(folder)
    write_hdf5(os.fsdecode(folder + b"/\xfe\n.h5"), numbers(9))
    env = {
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
        "PYTHONIOENCODING": "ascii",
    }
    for name in COMMANDS:
        for more in ([], ["--json"]):
            done = command(*arguments_of(name, os.fsdecode(folder)), *more, env=env, text=False)
            said = done.stdout + done.stderr
            assert done.returncode == 0, said
            assert said.isascii() and b"\x1b" not in said and b"Traceback" not in said
    done = command("locate", os.fsdecode(folder), "99", env=env, text=False)
    assert done.returncode == 1 and done.stderr.isascii()


def test_a_folder_that_was_deleted_under_ones_feet_is_told(folder):
    """Absolute names work there; relative ones are one line."""
    (folder / "gone").mkdir()
    line = f'cd "$1/gone" && rmdir "$1/gone" && {sys.executable} -m globidx index info'
    for name, code in ((str(folder), 0), ("a.h5", 1)):
        done = subprocess.run(
            ["bash", "-c", f"{line} {name}", "bash", folder],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code and "Traceback" not in done.stderr
        (folder / "gone").mkdir()


def test_nothing_needs_a_network(folder):
    """In a network namespace of its own, without even a loopback."""
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-m", "globidx", "index", "build", folder],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "Operation not permitted" in done.stderr:
        pytest.skip("no network namespaces here")
    assert done.returncode == 0 and done.stdout.startswith("7 samples")


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["-O"], ["-X", "dev", "-W", "error"]])
def test_python_s_own_options_change_nothing(folder, flags):
    """With workers of its own, whose interpreters get them, too."""
    for number in range(70):
        write_hdf5(folder / f"n{number:02}.h5", numbers(1))
    for name in ("build", "check"):
        done = command(name, folder, "--workers", "1", "--json", flags=flags)
        said = [
            line for line in done.stderr.splitlines() if " took " not in line
        ]  # asyncio's word for a busy machine
        assert (done.returncode, said) == (0, []), done.stderr
        assert json.loads(done.stdout)["num_files"] == 72


def test_no_command_imports_torch(folder):
    """Not one of them: they answer at once on a login node."""
    code = """
import sys
from globidx.cli import main
for name in ("build", "info", "check", "diff", "merge", "locate"):
    main(["index", name, sys.argv[1], *(["1"] if name == "locate" else []), "--quiet"])
print(sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "tqdm", "dask", "mpi4py"}))
"""
    assert run_python(code, folder).stdout == "[]\n"


def test_a_million_names_fit_a_list_file(folder, capsys):
    """What a shell cannot pass as arguments goes into a file."""
    (folder / "list.txt").write_text("a.h5\n" + "".join(f"n{n}.h5\n" for n in range(1000)))
    code, out, err = run(capsys, "build", folder / "list.txt")
    assert (
        code == 1 and "1000 files cannot be indexed" in err and "and 990 more" in err and out == ""
    )


# -- nothing is promised that was not done


@pytest.fixture
def unwritable(tmp_path_factory):
    """Places where no cache can be written, for root either."""
    folder = tmp_path_factory.mktemp("unwritable")
    (folder / "file").write_text("")
    return [folder / "file", folder / "file" / "below", Path("/proc/globidx")]


@pytest.mark.parametrize("name", ["build", "merge"])
def test_an_index_that_cannot_be_written_is_refused_before_any_file_is_opened(
    folder, capsys, unwritable, name, monkeypatch
):
    """Exit code 1 and one line that says why; the whole purpose of these commands is the file."""
    monkeypatch.setattr(
        "globidx.disk.stores.base.scan", lambda *_: pytest.fail("a file was looked at")
    )
    for place in unwritable:
        code, out, err = run(capsys, name, folder, "--cache-dir", place)
        assert (code, out) == (1, "") and err.count("\n") == 1, err
        assert err.startswith(f"globidx: the index cannot be written to {place}/.globidx-")


def test_an_index_that_was_not_written_after_all_is_not_called_cached(folder, capsys, monkeypatch):
    """A disk that is full by then: where the file should be is something else, and no file can take its place."""
    run(capsys, "build", folder)
    cache = GlobalIndexManager(folder).cache_path
    cache.unlink()
    cache.mkdir()
    code, out, err = run(capsys, "build", folder)
    assert (code, out) == (1, "") and err.splitlines()[
        -1
    ] == f"globidx: the index of 2 files was not written to {cache}"


# -- help


def test_what_to_do_is_said_in_the_words_of_the_command(folder, capsys):
    """Leaving bad files out is advised where others would be left, and a folder where one is missing."""
    (folder / "bad.h5").write_text("junk")
    assert "(--on-bad skip)" in run(capsys, "build", folder)[2]
    assert "skip" not in run(capsys, "build", folder / "bad.h5")[2]
    with h5py.File(folder / "two.h5", "w") as file:
        file["x"], file["y"] = np.arange(3), np.arange(3)
    assert "choose with key= (--key)" in run(capsys, "build", folder / "two.h5")[2]
    code, _, err = run(capsys, "build", folder / "a.h5", "--cache-dir", folder / "bad.h5")
    assert code == 1 and err.count("\n") == 1 and err.endswith("with --cache-dir\n")


def test_an_estimate_of_no_ranks_is_a_wrong_command(folder, capsys):
    """As record plan has it."""
    for wrong in (["--batch-size", "0"], ["--batch-size", "2", "--world-size", "0"]):
        with pytest.raises(SystemExit) as exit_:
            main(["estimate", str(folder), *wrong])
        assert exit_.value.code == 2 and "must be in [1, 131072], got 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["estimate", str(folder), "--batch-size", "many"])
    assert "--batch-size: must be an integer, got 'many'" in capsys.readouterr().err
