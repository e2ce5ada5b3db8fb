"""The preemption example for real: signals to ranks, to torchrun and to SLURM's tasks; the next run has another size."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import processes
import pytest
import torch
from files import environment
from processes import REPOSITORY

from globidx import read_record
from globidx.disk.records.folder import newest

SCRIPT = "examples/preemptible.py"
SAMPLES = 1003
BIN = Path(sys.executable).parent

SRUN = """#!/bin/bash
# What srun does here: starts the tasks with their numbers, and waits for all.
while [[ $1 == --* ]]; do [[ $1 == --ntasks=* ]] && tasks=${{1#--ntasks=}}; shift; done
for ((n = 0; n < ${{tasks:-$SLURM_NTASKS}}; n++)); do
    SLURM_PROCID=$n SLURM_LOCALID=$n "$@" &
    echo $! >> "{folder}/tasks"
done
wait
"""
SCONTROL = """#!/bin/bash
if [[ $1 == requeue ]]; then echo $2 >> "{folder}/requeued"; else echo localhost; fi
"""


def slurm(folder, run, ranks, launch, *arguments):
    """The batch script, as SLURM would run it, on one node."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    given = {
        "PATH": f"{folder}:{BIN}:{os.environ['PATH']}",
        "RUN": str(run),
        "LAUNCH": launch,
        "OMP_NUM_THREADS": "1",
    }
    given |= {
        "SLURM_NTASKS": str(ranks),
        "SLURM_NNODES": "1",
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "here",
    }
    given |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    return start(["bash", "examples/slurm_requeue.sbatch", *arguments], given)


def torchrun(run, ranks, *arguments):
    """The example under plain torchrun."""
    command = processes.torchrun(
        ranks, "--signals-to-handle=SIGTERM,SIGUSR1", SCRIPT, run, *arguments
    )
    return start(command, {"OMP_NUM_THREADS": "1"})


def start(command, given, **options):
    return subprocess.Popen(
        list(map(str, command)),
        cwd=REPOSITORY,
        env=environment(given),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **options,
    )


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def until_it_trains(process, run, ranks, steps=4):
    """Wait until every rank has logged some steps."""
    for _ in range(2400):
        logs = list(run.glob("trained-from-0-rank-*.txt"))
        if len(logs) == ranks and all(len(log.read_text().splitlines()) >= steps for log in logs):
            return
        assert process.poll() is None, process.communicate()[0].decode()
        time.sleep(0.05)
    raise AssertionError("it never began to train")


def finish(process):
    said, _ = process.communicate(timeout=240)
    return process.returncode, said.decode()


def lines(run, pattern):
    """(step, ids) of every rank."""
    found = [line.split() for log in run.glob(pattern) for line in log.read_text().splitlines()]
    return [(int(step), [int(id) for id in ids]) for _, step, *ids in found]


def check_first_leg(run, ranks):
    """All ranks have logged as many steps, and that is what the record says; the step at which they stopped."""
    last = [
        int(log.read_text().splitlines()[-1].split()[1])
        for log in sorted(run.glob("trained-from-0-*"))
    ]
    step = read_record(newest(run))["step"]
    assert last == [step] * ranks
    assert (run / "requeue").exists()
    return step


def check_all(run, step):
    """Every sample once, but for the padding in the last step."""
    first, second = lines(run, "trained-from-0-*"), lines(run, f"trained-from-{step}-*")
    last = max(at for at, _ in second)
    before_last = Counter(id for at, ids in first + second if at < last for id in ids)
    in_last = Counter(id for at, ids in second if at == last for id in ids)
    assert set(before_last) | set(in_last) == set(range(SAMPLES))
    assert set(before_last.values()) == {1}
    assert 0 <= sum((before_last + in_last).values()) - SAMPLES < 3
    assert (run / "done").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_torchrun_hands_a_signal_to_all_and_the_run_goes_on_with_three(tmp_path, number):
    """Sent to torchrun alone, as a scheduler does."""
    run = tmp_path / "run"
    job = torchrun(run, 2, "--step-seconds=0.05")
    until_it_trains(job, run, 2)
    job.send_signal(number)
    finish(job)
    step = check_first_leg(run, 2)
    code, said = finish(torchrun(run, 3))
    assert code == 0, said
    check_all(run, step)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_every_process_of_the_job_is_survived_by_the_workers(tmp_path, number):
    """As scancel and `timeout` send it, to ranks and their loader workers alike; models go with their records."""
    run = tmp_path / "run"
    given = {
        "OMP_NUM_THREADS": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(free_port()),
    }
    command = [sys.executable, SCRIPT, run, "--step-seconds=0.02"]
    ranks = [
        start(command, given | {"RANK": str(rank)}, start_new_session=True) for rank in range(2)
    ]
    until_it_trains(ranks[0], run, 2, steps=60 if number == signal.SIGUSR1 else 4)
    for rank in ranks:
        os.killpg(rank.pid, number)
    for rank in ranks:
        code, said = finish(rank)
        assert code == 0, said
        assert "killed by signal" not in said
    step = check_first_leg(run, 2)
    code, said = finish(torchrun(run, 3))
    assert code == 0, said
    check_all(run, step)
    records = {path.stem.removeprefix("record-") for path in run.glob("record-*.json")}
    models = {
        path.stem.removeprefix("model-"): torch.load(path, weights_only=True)
        for path in run.glob("model-*.pt")
    }
    assert set(models) == records
    assert all(set(model) == {"model", "optimizer"} for model in models.values())


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_one_task_of_srun_stops_both_and_requeues(tmp_path, number):
    """srun python: only rank 1 hears of it; the script asks for another turn, which three ranks take."""
    run = tmp_path / "run"
    job = slurm(tmp_path, run, 2, "python", "--step-seconds=0.05")
    until_it_trains(job, run, 2)
    os.kill(int((tmp_path / "tasks").read_text().split()[1]), number)
    code, said = finish(job)
    assert code == 0, said
    step = check_first_leg(run, 2)
    assert (tmp_path / "requeued").read_text() == "17\n"
    code, said = finish(slurm(tmp_path, run, 3, "python"))
    assert code == 0, said
    check_all(run, step)
    assert not (run / "requeue").exists()
    assert (tmp_path / "requeued").read_text() == "17\n"


@pytest.mark.slow
def test_srun_torchrun_hands_the_signal_on(tmp_path):
    """SLURM's signal reaches the task, which is torchrun."""
    run = tmp_path / "run"
    job = slurm(tmp_path, run, 1, "torchrun", "--step-seconds=0.05")
    until_it_trains(job, run, 4)
    os.kill(int((tmp_path / "tasks").read_text().split()[0]), signal.SIGUSR1)
    finish(job)
    check_first_leg(run, 4)
    assert (tmp_path / "requeued").read_text() == "17\n"
