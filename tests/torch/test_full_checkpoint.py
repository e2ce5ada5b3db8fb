"""Model and record stay a pair: killed between the two, or while the model is written, the next start takes what fits together."""

import subprocess
from pathlib import Path

import pytest
from files import environment
from processes import REPOSITORY, torchrun

from globidx import read_record
from globidx.disk.records.folder import list_records

KILL = Path(__file__).with_name("kill_between.py")
EXAMPLE = "examples/full_checkpoint.py"


def run(*command):
    """A job of two ranks, run to its end."""
    return subprocess.run(
        torchrun(2, *command),
        cwd=REPOSITORY,
        env=environment({"OMP_NUM_THREADS": "1"}),
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "instant", "starts"),
    [
        ("dcp", "after the record", 10),
        ("dcp", "before the model counts", 10),
        ("dcp", "when the model counts", 15),
        ("plain", "before the model counts", 10),
        ("plain", "when the model counts", 15),
    ],
)
def test_a_kill_between_model_and_record_is_resolved_to_the_pair_that_fits(
    tmp_path, how, instant, starts
):
    """By the model's own count it was trained on each sample once, which it is only if its record was its own."""
    killed = run(KILL, EXAMPLE, instant, tmp_path, how)
    assert "SIGKILL" in killed.stderr, killed.stderr
    assert [read_record(path)["step"] for path in list_records(tmp_path)] == [5, 10, 15]
    done = run(EXAMPLE, tmp_path, how)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"from step {starts} to 30; trained on each sample once: True\n"
