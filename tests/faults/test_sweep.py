"""No fault at any file operation breaks a promise, and every planted mistake makes one break."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

import mutants
import pytest
import sweep
import writers
from processes import REPOSITORY, clean_environment
from zygote import build_shim

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def harness(tmp_path_factory):
    """The shim, built, and a process that has it loaded."""
    shim = build_shim(tmp_path_factory.mktemp("shim"))
    if shim is None:
        pytest.skip("needs Linux and gcc")
    harness = sweep.Harness(shim)
    try:
        if not harness.sees():
            pytest.skip("the shim sees nothing of this Python's file operations")
        yield harness
    finally:
        harness.close()


@pytest.mark.parametrize("check", sweep.CHECKS)
def test_no_fault_breaks_a_promise(harness, check):
    """After a kill, an error or a power cut at any file operation, the file is the old or the new one, the error says
    which, and the next start works.

    Takes up to 25 s for the index: each of its some thousand faults is a process, and so is the start after it.
    """
    tally = sweep.CHECKS[check](harness)
    sweep.TALLIES.append(tally)
    assert tally.injected > 0 and tally.violations == []


@pytest.mark.parametrize(
    ("mutant", "check"), [(mutant.__name__, check) for mutant, check in mutants.FOUND_BY.items()]
)
def test_a_planted_mistake_is_found(harness, mutant, check):
    """With one safeguard taken out, the same check reports a broken promise."""
    assert sweep.CHECKS[check](harness, mutant).violations


# Runs a writer without the shim: its name and a folder are the arguments.
ALONE = """
import sys
from pathlib import Path
import sweep, writers
writers.RUNS[sys.argv[1]](Path(sys.argv[2]), str)
"""


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
@pytest.mark.parametrize("name", ["save", "first save", "reseal", "reindex"])
def test_the_shim_sees_every_change_that_the_system_sees(harness, tmp_path, name):
    """The shim counts the same changes of a writer as strace: no operation escapes the sweep."""
    folder, log = harness.folder(), tmp_path / "log"
    writers.WRITERS[name].prepare(folder)
    calls = "trace=openat,open,creat,write,pwrite64,writev,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat"
    calls += ",mkdir,mkdirat,rmdir,ftruncate,truncate,link,linkat,symlink,symlinkat,sync_file_range,copy_file_range"
    path = os.pathsep.join(
        map(str, (REPOSITORY / "tests", REPOSITORY / "tests" / "faults", REPOSITORY))
    )
    command = [
        "strace",
        "-f",
        "-y",
        "-o",
        log,
        "-e",
        calls,
        sys.executable,
        "-c",
        ALONE,
        name,
        folder,
    ]
    env = clean_environment(PYTHONPATH=path, FAULTS_DATA=os.environ.get("FAULTS_DATA"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"strace may not trace here: {done.stderr[-200:]}")
    lines = [line.split(None, 1)[1] for line in log.read_text().splitlines() if str(folder) in line]
    changes = [
        line for line in lines if ") = -1" not in line and ("open" not in line or "O_CREAT" in line)
    ]
    seen = [re.match(r"[a-z]+", line)[0].removesuffix("at") for line in changes]
    other = harness.folder()
    writers.WRITERS[name].prepare(other)
    trace = harness.zygote.trace(name, other)
    assert seen == [
        words[1] for words in trace if words[2] == "1" and words[1] not in ("close", "mark")
    ]
