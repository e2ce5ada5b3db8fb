"""Damaged files are errors: no crash and no hang that the library alone does not have."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from seeds import SEEDS

FILES = 2000
#: Seconds for some 170 files, ten times what they take on a busy machine.
PATIENCE = 120
#: glibc's own check of its heap: what is written behind a block ends the process.
CHECKED = {"LD_PRELOAD": "libc_malloc_debug.so.0", "MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
HERE = Path(__file__).parent


class Died(Exception):
    """The process crashed, or did not end: at which file, and how it ended."""


def damage(folder, seed, first, stop, how):
    """Read so many damaged files in a process of its own; Died where it does not survive."""
    arguments = [sys.executable, str(HERE / "damage.py"), seed.name, str(first), str(stop), how]
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment = (
        kept
        | CHECKED
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(HERE.parents[1])])}
    )
    work = folder / uuid.uuid4().hex
    work.mkdir()
    try:
        ended = subprocess.run(
            [*arguments, str(work)],
            env=environment,
            cwd=work,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        told, status, errors = ended.stdout, ended.returncode, ended.stderr
    except subprocess.TimeoutExpired as error:
        told, status, errors = (
            (error.stdout or b"").decode(),
            "did not end",
            (error.stderr or b"").decode(),
        )
    if status != 0:
        lines = told.split()
        raise Died(int(lines[-1]) if lines else first, status, errors[-2000:])


@pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: seed.name)
def test_no_damage_kills_what_the_library_survives(tmp_path, seed):
    """Each fault in each file, in a process whose heap is checked."""
    first, stop = 0, -(-FILES // len(SEEDS))
    while first < stop:
        try:
            damage(tmp_path, seed, first, stop, "globidx")
            return
        except Died as died:
            at, status, errors = died.args
            # Python's own errors are never the library's fault
            assert status != 1, errors
            with pytest.raises(Died):
                damage(tmp_path, seed, first, at + 1, "library")
                pytest.fail(
                    f"{seed.name}: file {at} ended the process ({status}), and not the library: {errors}"
                )
            first = at + 1
