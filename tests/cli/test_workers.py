"""The command's worker processes end when it does, whatever ends it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from files import numbers, write_hdf5
from processes import REPOSITORY, clean_environment

WORKING = """
import os
from globidx.disk.index import scan as scanning
def stuck(root, *_, **__):
    print("looking", flush=True)
    with open(os.path.join(root, "fifo")) as fifo:
        fifo.read()
scanning._scan_batch = stuck
"""
BUILD = """
import signal, sys
from globidx import cli
import working
for name in ("SIGTERM", "SIGHUP"):  # nohup, say, leaves one ignored
    signal.signal(getattr(signal, name), signal.SIG_DFL)
sys.exit(cli.main(["index", "build", sys.argv[1], "--workers", "2"]))
"""


@pytest.fixture
def folder(tmp_path):
    """Files for three batches, a pipe that nobody writes to, and a module that makes workers wait for it."""
    for number in range(130):
        write_hdf5(tmp_path / f"{number:03}.h5", numbers(1))
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "working.py").write_text(WORKING)
    return tmp_path


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_no_worker_outlives_the_command(folder, end):
    """In the middle of a look at files: each process has the command's stdout, so its end is the end of all of them."""
    path = os.pathsep.join([str(REPOSITORY), str(folder)])
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, folder],
        env=clean_environment(PYTHONPATH=path),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert [process.stdout.readline() for _ in range(2)] == ["looking\n"] * 2
        process.send_signal(end)
        assert process.communicate(timeout=30)[0] == "" and process.returncode == -end
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        process.communicate()
