"""Progress is for terminals, and for who asks."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest
from commands import command

from globidx.cli.terminal import progress


def test_progress_is_for_terminals_or_on_demand(folder):
    """Nothing in a pipe; lines when asked for; a word with rate on a terminal; nothing there when quiet."""
    for more, expected in (
        ([], ""),
        (["--progress"], r"2 of 2 files \(100 %\), [\d.e+]+ files/s\n"),
        (["--quiet"], ""),
    ):
        # a cache for each: of files that one has, those that count as settled are not scanned again
        cache = folder / f"cache{''.join(more)}"
        done = command("build", folder, *more, "--cache-dir", cache, "--workers", "1")
        assert done.returncode == 0 and re.fullmatch(expected, done.stderr), done.stderr
    for more in ([], ["--quiet"]):
        main_end, other_end = pty.openpty()
        done = command(
            "build",
            folder,
            *more,
            "--cache-dir",
            folder / f"cache{more}",
            stderr=other_end,
            capture_output=False,
            stdout=subprocess.PIPE,
        )
        os.close(other_end)
        said = b""
        while not said or not more:
            try:
                some = os.read(main_end, 4096)
            except OSError:
                break
            said += some
            if not some:
                break
        os.close(main_end)
        assert done.returncode == 0 and (b"2 of 2 files" in said or b"2/2" in said) == (not more)
        assert b"\x1b" not in said.replace(b"\x1b[A", b"")


def test_progress_says_rate_and_what_is_left(capsys, monkeypatch):
    """Without tqdm: a line every few seconds of its clock and at the end, none between."""
    monkeypatch.setitem(sys.modules, "tqdm", None)
    clock = iter([0.0, 1.0, 6.0, 7.0, 20.0, 21.0])
    shown = progress.Progress(wanted=True, clock=lambda: next(clock))
    for done in (10, 30, 35, 100):
        shown(done, 100)
    assert capsys.readouterr().err.splitlines() == [
        "30 of 100 files (30 %), 5 files/s, 14 s left",
        "100 of 100 files (100 %), 5 files/s",
    ]
    assert progress.line(0, 0, 0.0) == "0 of 0 files (0 %), 0 files/s"
    monkeypatch.setattr(sys, "stderr", None)
    progress.Progress(wanted=None)(1, 2)


@pytest.mark.parametrize("columns", ["0", "1", "x", "-5"])
def test_no_width_is_too_narrow(folder, columns):
    """Help and results in a terminal of one column, or of none."""
    env = {"COLUMNS": columns, "TERM": "dumb"}
    for arguments in (["build", "--help"], ["build", folder, "--progress"]):
        done = command(*arguments, env=env)
        assert done.returncode == 0 and done.stdout and "Traceback" not in done.stderr
