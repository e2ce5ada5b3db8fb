"""Streams and packs for real: torchrun, gloo, loader workers, and a rank that is killed."""

import json
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from files import environment
from processes import torchrun

from globidx import read_record
from globidx.disk.records.folder import newest

SCRIPT = Path(__file__).with_name("stream_script.py")
#: What the script has of each, by a count of its own.
SAMPLES, DOCUMENTS = 211, [1 + 5 * number % 13 for number in range(110)]
EXPECTED = {
    "stream": list(range(SAMPLES)),
    "shards": [100 * part + row for part in range(16) for row in range(3 + 7 * part % 31)],
    "packs": list(range(sum(DOCUMENTS))),
}


def start(ranks, run, *arguments):
    """A job under torchrun."""
    return subprocess.Popen(
        torchrun(ranks, SCRIPT, run, *arguments),
        env=environment({"OMP_NUM_THREADS": "1"}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(job):
    """Its exit code and what it said."""
    said, errors = job.communicate(timeout=240)
    return job.returncode, said + errors


def lines(run, leg):
    """What the ranks of a leg wrote; the line that a kill cut short is not there."""
    for path in run.glob(f"leg-{leg}-rank-*.jsonl"):
        yield from map(json.loads, path.read_text().split("\n")[:-1])


@pytest.mark.slow
def test_a_killed_epoch_of_2_ranks_ends_on_3_and_on_1(tmp_path):
    """Rank 1 of 2 dies between two saves; samples, rows and tokens are each read once, on any ranks x workers."""
    killed = tmp_path / "killed"
    killed.mkdir()
    _, said = finish(start(2, killed, 2, 1, 8))
    assert "Signal 9 (SIGKILL)" in said, said
    assert read_record(newest(killed))["step"] == 6
    jobs = {}
    for ranks, workers in ((3, 1), (1, 4)):
        run = tmp_path / f"on-{ranks}"
        shutil.copytree(killed, run)
        jobs[run] = start(ranks, run, workers)
    for run, job in jobs.items():
        code, said = finish(job)
        assert code == 0, said
        read = [line for line in lines(run, 0) if line["step"] <= 6] + list(lines(run, 1))
        for kind, expected in EXPECTED.items():
            counts = Counter(id for line in read for id in line[kind])
            missing = set(expected) - set(counts)
            repeated = {id: count for id, count in counts.items() if count > 1}
            assert (missing, repeated) == (set(), {}), (kind, run.name)
            assert counts.total() == len(expected)
            assert all(line[kind] for line in lines(run, 0)), "nothing was read before the kill"
        states = read_record(newest(run))["states"]
        assert (states["stream"]["epoch"], states["packs"]["epoch"]) == (1, 1)
        assert states["shards"]["start"] == {"done": [[0, 16]], "begun": []}
