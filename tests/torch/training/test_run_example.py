"""The example of a run for real: a signal in mid-epoch to two processes, the rest on other numbers of them."""

import re
import signal
import subprocess
from pathlib import Path

import pytest
from files import environment
from processes import REPOSITORY, torchrun

SCRIPT = "examples/run.py"
SAMPLES = 1003


def start(ranks, *arguments):
    return subprocess.Popen(
        torchrun(ranks, "--signals-to-handle=SIGTERM,SIGUSR1", SCRIPT, *arguments),
        cwd=REPOSITORY,
        env=environment({"OMP_NUM_THREADS": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(job):
    return job.communicate(timeout=240)


def stopped_at(said):
    return int(re.search(r"stopped at step (\d+)", said)[1])


def test_the_example_is_short():
    """Under 60 lines, and a page shows it."""
    assert len((REPOSITORY / SCRIPT).read_text().splitlines()) < 60
    page = (REPOSITORY / "docs/howto/run.md").read_text()
    assert f"{SCRIPT}\n:language: python" in page


@pytest.mark.slow
def test_a_run_that_is_stopped_in_mid_epoch_sees_each_sample_once_on_other_ranks(tmp_path):
    """By the model's own count, which it has from its weights; the last step may repeat a few, as pad says."""
    job = start(2, tmp_path, "0.05")
    heard = job.stdout.readline()
    assert heard == "training from step 0, epoch 0\n", job.communicate()
    job.send_signal(signal.SIGTERM)
    said, errors = finish(job)
    step = stopped_at(said)
    assert 10 <= step < 50, "neither at a step that is saved anyway, nor at the end"
    assert f"samples by times seen: [{SAMPLES - 8 * step}, {8 * step}]" in said, said + errors
    records = {path.stem.removeprefix("record-") for path in tmp_path.glob("record-*.json")}
    files = {path.stem.removeprefix("model-") for path in tmp_path.glob("model-*.pt")}
    assert files == records and len(records) == 1

    ranks, rest = 3, SAMPLES - 8 * step
    padding = -rest % ranks
    job = start(ranks, tmp_path)
    said, errors = finish(job)
    assert job.returncode == 0, errors
    assert f"training from step {step}, epoch 0\n" in said
    last = step + -(-(rest + padding) // (4 * ranks))
    times = [0, SAMPLES - padding] + ([padding] if padding else [])
    assert f"done at step {last}; samples by times seen: {times}" in said
    assert Path(max(tmp_path.glob("model-*.pt"))).stem[6:14] > min(records)[:8]
