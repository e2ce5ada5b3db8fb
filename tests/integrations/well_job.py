"""A job that trains on augmented windows of The Well, and may be killed; what each step saw is written line by line.

torchrun ... well_job.py FOLDER DATA WHAT WORKERS CONTEXT SAVE_AT KILL_AT
"""

import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from integrations.well_samples import dataset
from processes import leave

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler

GLOBAL_BATCH, EPOCHS, SEED = 12, 2, 7


def digests(batch):
    """The bits of each sample."""
    return [hashlib.sha256(sample.numpy().tobytes()).hexdigest() for sample in batch.contiguous()]


def kill():
    """End this process as a machine that fails does."""
    os.kill(os.getpid(), signal.SIGKILL)


def train(folder, data, what, workers=0, context=None, save_at=0, kill_at=0, end=kill):
    """A leg of a run, which is ended at a step or comes to its end."""
    # what a careful script does, and all that plain code has
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    samples = dataset(data, what)
    sampler = ResumableDistributedSampler(samples, seed=SEED)
    rank, ranks = sampler.rank, sampler.num_replicas
    options = {"multiprocessing_context": context, "persistent_workers": True} if workers else {}
    loader = DataLoader(
        samples, GLOBAL_BATCH // ranks, sampler=sampler, num_workers=workers, **options
    )
    manager = CheckpointManager(Path(folder, "records"), sampler)
    record = manager.restore()
    step = record["step"] if record else 0
    leg = 1 if record else 0
    with Path(folder, f"seen-{leg}-{rank}.jsonl").open("w", buffering=1) as seen:
        for epoch in range(sampler.epoch, EPOCHS):
            for batch in loader:
                seen.write(
                    json.dumps({"epoch": epoch, "step": step, "bits": digests(batch)}) + "\n"
                )
                step += 1
                if step == save_at:
                    manager.save(step)
                if step == kill_at:
                    end()


if __name__ == "__main__":
    folder, data, what, workers, context, *steps = sys.argv[1:]
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    train(folder, data, what, int(workers), context, *map(int, steps))
    leave()
