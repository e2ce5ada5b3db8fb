"""Jobs of several legs: saved on two ranks in mid-epoch, and resumed on one, two and three.

The ranks of each leg are forked from a process that has imported the framework: new ones, without
an import each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from integrations.jobs import lines, times_seen
from processes import clean_environment

_FORK = multiprocessing.get_context("fork")
# each of two ranks has 102 ids an epoch, one of them padding, in 26 batches; of three 68 in 17
SAMPLES, BATCH, EPOCHS = 203, 4, 3
#: The step after which the first leg is saved, in the middle of epoch 1.
STOP_AT = 35


def run_legs(job, folder):
    """Run the legs of a job of this folder; they must succeed."""
    run_python("-m", "integrations.legs", job, folder)


def run_python(*arguments):
    """Run Python on arguments, the last of which is a folder; it must succeed."""
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        env=clean_environment(HOME=str(arguments[-1])),
        capture_output=True,
        text=True,
        timeout=480,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def assert_exact(folder, ranks):
    """Each epoch of a run that was resumed on so many ranks has all ids, repeated only as padding."""
    seen = times_seen(lines(Path(folder, str(ranks))))
    assert sorted(seen) == list(range(EPOCHS))
    for epoch, times in seen.items():
        assert set(times) == set(range(SAMPLES)), (epoch, sorted(set(range(SAMPLES)) - set(times)))
        # epoch 0 was padded for the two ranks that read it
        assert times.total() - SAMPLES < (ranks if epoch else 2), (epoch, times.most_common(9))


def save_and_resume(job, folder):
    """Run ``leg(folder, stop_at, seen)`` of a job on two ranks up to a step, then its rest in copies of the folder."""
    # before Composer and PhysicsNeMo import torchvision
    import integrations.vision  # noqa: F401

    leg = import_module(f"integrations.{job}").leg
    # optimizers and DDP import it when they are first used, which takes each rank seconds
    import torch._dynamo  # noqa: F401

    saved = Path(folder, "saved")
    saved.mkdir()
    _fork(2, leg, saved, STOP_AT)
    for ranks in (1, 2, 3):
        resumed = shutil.copytree(saved, Path(folder, str(ranks)))
        _fork(ranks, leg, resumed, None)


class Seen:
    """A file of the ids that each step of a rank has seen."""

    def __init__(self, folder, leg, rank):
        self._path = Path(folder, f"seen-{leg}-{rank}.jsonl")
        self.steps = 0

    def note(self, epoch, ids):
        """Write what a step has seen."""
        with self._path.open("a") as file:
            file.write(json.dumps({"epoch": epoch, "ids": list(map(int, ids))}) + "\n")
        self.steps += 1


def _fork(ranks, leg, folder, stop_at):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    arguments = (ranks, port, leg, folder, stop_at)
    processes = [_FORK.Process(target=_rank, args=(rank, *arguments)) for rank in range(ranks)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
        process.kill()
    assert all(process.exitcode == 0 for process in processes), processes


def _rank(rank, ranks, port, leg, folder, stop_at):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "NODE_RANK": "0",
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(port),
    }
    leg(Path(folder), stop_at, Seen(folder, int(stop_at is None), rank))

    import torch.distributed as dist

    if dist.is_initialized():
        dist.monitored_barrier()
    # nothing that a framework has left running can hold up or abort such an exit
    os._exit(0)


if __name__ == "__main__":
    save_and_resume(*sys.argv[1:])
