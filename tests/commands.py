"""Runs ``globidx index``, in this process or one of its own."""

from __future__ import annotations

import os
import subprocess
import sys

from files import environment

from globidx.cli import main


def command(*arguments, flags=(), env=None, **options):
    """Run the command as a process of its own."""
    return subprocess.run(
        [sys.executable, *flags, "-m", "globidx", "index", *map(os.fspath, arguments)],
        env=environment(env),
        **{"capture_output": True, "text": True, "timeout": 120} | options,
    )


def run(capsys, *arguments):
    """Exit code, stdout and stderr of the command in this process."""
    code = main(["index", *map(str, arguments)])
    return code, *capsys.readouterr()
