"""Builds that are cut short, or in parts: what was scanned is kept, and nothing that is left behind is in the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool

import pytest
from files import environment, numbers, run_python, settled_manager, write_hdf5, write_zarr

from globidx.cli import main
from globidx.core.index import encoding
from globidx.disk.index.cache import IndexCache
from globidx.disk.index.spec import IndexSpec

COUNT = 12


@pytest.fixture
def folder(tmp_path):
    """Twelve files of both kinds."""
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(COUNT):
        if number % 3:
            write_hdf5(folder / f"{number:02}.h5", numbers(number), key="g/x")
        else:
            write_zarr(folder / f"{number:02}.zarr", numbers(number), key="g/x")
    return folder


def build_of(folder, **options):
    """A build file by file, to which files that were written just now are at rest."""
    return IndexSpec.of(folder).build(batch=1, settled_ns=0, **options)


def whole(folder):
    """The bytes of a cache built in one go, of these very files."""
    manager = settled_manager(folder, cache_dir=folder.parent / "whole")
    data = manager.cache_path.read_bytes()
    shutil.rmtree(folder.parent / "whole")
    return data


class Dies(Executor):
    """Looks at ``alive`` batches, and then is dead."""

    def __init__(self, alive, error):
        self.alive, self.error = alive, error

    def submit(self, work, /, *arguments, **options):
        future = Future()
        if self.alive:
            self.alive -= 1
            future.set_result(work(*arguments, **options))
        else:
            future.set_exception(self.error)
        return future


@pytest.mark.parametrize(
    "error", [BrokenProcessPool("gone"), KeyboardInterrupt(), MemoryError(), SystemExit()]
)
@pytest.mark.parametrize("alive", [0, 1, 7])
def test_what_was_scanned_before_the_end_is_not_scanned_again(folder, scans, error, alive):
    """However a build ends in its middle, the next one opens the rest, and finds what any finds."""
    with pytest.raises(type(error)):
        build_of(folder, executor=Dies(alive, error)).run()
    assert len(scans) == alive
    done = set(scans)
    scans.clear()
    manager = settled_manager(folder)
    assert len(scans) == COUNT - alive and not done & set(scans)
    assert manager.cache_path.read_bytes() == whole(folder)


def test_a_build_cut_short_over_an_old_cache_keeps_both(folder, scans):
    """Files known from before and those scanned by now: the third build opens neither."""
    settled_manager(folder)
    for number in (1, 2, 4, 5):
        write_hdf5(folder / f"{number:02}.h5", numbers(20), key="g/x")
    scans.clear()
    with pytest.raises(BrokenProcessPool):
        build_of(folder, executor=Dies(2, BrokenProcessPool("gone"))).run()
    assert len(scans) == 2
    settled_manager(folder)
    assert sorted(scans) == ["01.h5", "02.h5", "04.h5", "05.h5"]


def test_bad_files_do_not_cost_the_good_ones_their_scan(folder, scans):
    """An error over one file of many: mended, only that one is opened."""
    good = (folder / "01.h5").read_bytes()
    (folder / "01.h5").write_bytes(b"")
    with pytest.raises(ValueError, match=r"01\.h5"):
        settled_manager(folder)
    scans.clear()
    (folder / "01.h5").write_bytes(good)
    settled_manager(folder)
    assert scans == ["01.h5"]


def test_an_interrupt_keeps_what_was_scanned(folder):
    """A real Ctrl-C in the command, after five files: 130 in a line; the next build opens seven."""
    code = """
import os, sys
from dataclasses import replace
from globidx import cli
from globidx.disk.stores import base as stores
build_of = cli.index._build_of
cli.index._build_of = lambda args: replace(build_of(args), settled_ns=0, batch=1)
real, seen = stores.scan, []
def counted(path, *rest):
    if len(seen) == int(sys.argv[2]):
        print("looking", flush=True)
        sys.stdin.read()
    seen.append(path)
    return real(path, *rest)
stores.scan = counted
class Inline:
    def __enter__(self): return None
    def __exit__(self, *_): pass
cli.index.pool = lambda workers: Inline()
code = cli.main(["index", "build", sys.argv[1], "--quiet"])
print(len(seen))
sys.exit(code)
"""
    command = [sys.executable, "-c", code, folder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([*command, "5"], env=environment(), text=True, **pipes)
    assert process.stdout.readline() == "looking\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "5\n", "globidx: interrupted\n")
    again = subprocess.run(
        [*command, "99"], env=environment(), capture_output=True, text=True, timeout=60
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{COUNT - 5}\n", "")


# -- killed at any operation


# Dies before the n-th call that touches the disk, or says how many there were.
LETHAL = """
import os, signal, sys
from globidx.disk.index.manager import GlobalIndexManager
import h5py, filelock
left = start = int(sys.argv[2])
def lethal(real):
    def call(*given, **options):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given, **options)
    return call
for name in ("open", "write", "replace", "close", "unlink", "mkdir"):
    setattr(os, name, lethal(getattr(os, name)))
GlobalIndexManager(sys.argv[1], key="g/x", lock_timeout=30, settled_after=0)
print(start - left)
"""


@pytest.mark.slow
def test_a_build_killed_at_any_call_leaves_nothing_in_the_way(folder, caplog):
    """SIGKILL before any call of a build: the next one is right, at once and without a word; at most one stray file stays."""
    expected = settled_manager(folder, key="g/x", cache_dir=folder.parent / "whole").fingerprint
    total = int(run_python(LETHAL, folder, "1000000").stdout)
    for when in sorted({*range(1, total, max(1, total // 8)), *range(total - 9, total + 1)}):
        for name in os.listdir(folder):
            if name.startswith("."):
                os.unlink(folder / name)
        done = run_python(LETHAL, folder, str(when), check=False)
        assert done.returncode == -signal.SIGKILL
        assert (
            settled_manager(folder, key="g/x", lock_timeout=30).fingerprint == expected
            and not caplog.records
        )
        strays = [name for name in os.listdir(folder) if name.endswith("globidx-tmp")]
        assert len(strays) <= 1


# -- in parts


@pytest.mark.parametrize("count", [1, 2, 3, 5, COUNT, 40])
def test_parts_together_are_the_build_in_one_go(folder, scans, count):
    """Every split, more parts than files among them: the merged cache is the same bytes, and opens no file."""
    expected = whole(folder)
    scans.clear()
    build = build_of(folder)
    kept = [build.run_part(part, count) for part in range(1, count + 1)]
    assert (
        sum(number for _, number in kept) == COUNT
        and sorted(scans) == sorted(set(scans))
        and len(scans) == COUNT
    )
    assert [path for path, number in kept if number] == [path for path, _ in kept if path.exists()]
    scans.clear()
    found = build.run(merge=True)
    assert scans == [] and found.cache_path.read_bytes() == expected
    assert settled_manager(folder).fingerprint == found.fingerprint and scans == []


def test_a_part_again_opens_nothing(folder, scans):
    """A job of an array that is started twice finds its own part; one cut short goes on."""
    with pytest.raises(BrokenProcessPool):
        build_of(folder, executor=Dies(2, BrokenProcessPool())).run_part(2, 3)
    assert len(scans) == 2
    build_of(folder).run_part(2, 3)
    assert len(scans) == 4
    build_of(folder).run_part(2, 3)
    assert len(scans) == 4


@pytest.mark.parametrize(
    "spoil", ["missing", "outdated", "garbage", "zeroed", "newer", "directory", "pipe"]
)
def test_parts_that_cannot_be_used_cost_their_own_work_only(folder, scans, spoil):
    """Missing, of files that changed since, torn, of a later version: their files are looked at, the others not."""
    build = build_of(folder)
    parts = [build.run_part(part, 3)[0] for part in (1, 2, 3)]
    expected_scans = ["04.h5", "05.h5", "06.zarr", "07.h5"]
    if spoil == "outdated":
        write_hdf5(folder / "05.h5", numbers(30), key="g/x")
        expected_scans = ["05.h5"]
    elif spoil == "garbage":
        parts[1].write_bytes(parts[1].read_bytes()[:-9])
    elif spoil == "zeroed":
        parts[1].write_bytes(bytes(len(parts[1].read_bytes())))
    elif spoil == "newer":
        parts[1].write_bytes(parts[1].read_bytes().replace(b'"version":1', b'"version":2'))
    else:
        parts[1].unlink()
    if spoil == "directory":
        parts[1].mkdir()
    elif spoil == "pipe":
        os.mkfifo(parts[1])
    scans.clear()
    found = build.run(merge=True)
    assert sorted(scans) == expected_scans
    assert found.cache_path.read_bytes() == whole(folder)


def test_parts_of_several_splits_help_together(folder, scans):
    """A job array that was cut otherwise the second time: whatever any part knows is not looked at again."""
    build = build_of(folder)
    build.run_part(1, 3)
    build.run_part(2, 2)
    scans.clear()
    found = build.run(merge=True)
    assert sorted(scans) == ["04.h5", "05.h5"] and found.cache_path.read_bytes() == whole(folder)


def test_other_names_are_no_parts(folder):
    """Only what is called as a part of this very index is read, or removed."""
    build = build_of(folder)
    path, _ = build.run_part(1, 3)
    others = [
        path.with_name(name)
        for name in ("x.1-of-3.index", f"{path.name}.bak", path.name.replace("1-of", "one-of"))
    ]
    for other in others:
        other.write_bytes(b"")
    assert build.part_files() == [path]


def test_the_command_merges_what_it_built_in_parts(folder, capsys):
    """Two parts and a missing third: it is told, looked at, and the parts are gone."""
    for part in ("1/3", "3/3"):
        assert main(["index", "build", str(folder), "--part", part]) == 0
    assert capsys.readouterr().out.count("4 files, kept in ") == 2
    assert main(["index", "merge", str(folder)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"{sum(range(COUNT))} samples in {COUNT} files from 2 parts, cached in ")
    assert err == "globidx: parts 2/3 are missing; their files are scanned now\n"
    assert build_of(folder).part_files() == []
    assert not [name for name in os.listdir(folder) if "-of-" in name]
    assert main(["index", "merge", str(folder)]) == 0
    assert " from 0 parts" in capsys.readouterr().out


def test_a_merge_of_nothing_is_refused_and_says_how_parts_are_made(folder, capsys):
    """It would scan all files by one process: exit code 1, the names that parts have, and no index."""
    for more in ([], ["--dry-run"]):
        assert main(["index", "merge", str(folder), *more]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        assert re.fullmatch(
            r"globidx: there is no part to merge, \.globidx-\S+\.N-of-OF\.index, in \S+: make parts "
            r"with `globidx index build \.\.\. --part N/OF`.*\n",
            err,
        )
    assert not [name for name in os.listdir(folder) if name.startswith(".")]


def test_parts_without_files_are_not_missed(folder, capsys):
    """More parts than files: those that had none to do leave nothing, and a merge asks for nothing."""
    for part in range(1, 31):
        assert main(["index", "build", str(folder), "--part", f"{part}/30", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["index", "merge", str(folder)]) == 0
    assert capsys.readouterr().err == ""


def test_parts_stay_where_the_merged_index_cannot_be_written(folder, capsys):
    """What a job array found out is not thrown away: exit code 1, and merged once there is room."""
    for part in ("1/2", "2/2"):
        assert main(["index", "build", str(folder), "--part", part, "--quiet"]) == 0
    parts = sorted(folder.glob(".globidx-*-of-*.index"))
    cache = folder / parts[0].name.replace(".1-of-2", "")
    cache.mkdir()
    assert main(["index", "merge", str(folder)]) == 1
    assert (
        "its 2 parts stay" in capsys.readouterr().err
        and sorted(folder.glob(".globidx-*-of-*.index")) == parts
    )
    cache.rmdir()
    assert main(["index", "merge", str(folder)]) == 0
    assert not list(folder.glob(".globidx-*-of-*.index"))


def test_two_merges_at_once_agree(folder):
    """Both end well and alike, whichever takes the parts away first."""
    for part in ("1/2", "2/2"):
        assert main(["index", "build", str(folder), "--part", part, "--quiet"]) == 0
    command = [sys.executable, "-m", "globidx", "index", "merge", str(folder), "--json"]
    merges = [
        subprocess.Popen(
            command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    told = [merge.communicate(timeout=120) for merge in merges]
    assert [merge.returncode for merge in merges] == [0, 0, 0], told
    prints = set(re.findall(r'"fingerprint": "(\w+)"', "".join(out for out, _ in told)))
    assert prints == {settled_manager(folder).fingerprint}
    assert len(encoding.decode(IndexCache(build_of(folder).cache).path.read_bytes())) == COUNT


@pytest.mark.parametrize(
    "part", ["0/3", "4/3", "1/0", "a/b", "1", "-1/3", "1/3/5", "1/ 3", "٣/٣", "1/9999999999"]
)
def test_a_part_that_is_none_is_a_usage_error(folder, part, capsys):
    """Exit code 2, and the rule."""
    with pytest.raises(SystemExit) as exit_:
        main(["index", "build", str(folder), f"--part={part}"])
    assert exit_.value.code == 2 and "N/OF" in capsys.readouterr().err
