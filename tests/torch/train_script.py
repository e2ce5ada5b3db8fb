"""A DDP loop under torchrun for the end-to-end test: DATA RUN WORKERS KILL_RANK KILL_STEP."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from globidx import (
    CheckpointManager,
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    ResumableDistributedSampler,
)


def main(data, run, workers, kill_rank, kill_step):
    """Two epochs, a record every third step, and a log line before every step."""
    dataset = FileCacheDataset(GlobalIndexManager(data, key=("images", "labels")), with_id=True)
    sampler = ResumableDistributedSampler(dataset, seed=3)  # before the process group, as people do
    loader = DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=workers)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    model = nn.parallel.DistributedDataParallel(nn.Linear(16, 3))
    manager = CheckpointManager(run, sampler)
    record = manager.restore()
    step = record["step"] if record else 0
    with Path(run, f"leg-{int(record is not None)}-rank-{rank}.txt").open("w", buffering=1) as log:
        for epoch in range(sampler.epoch, 2):
            sampler.set_epoch(epoch)
            for sample, ids in loader:
                step += 1
                log.write(f"{epoch} {step} {' '.join(map(str, ids.tolist()))}\n")
                assert sample["labels"].tolist() == [id % 2 + 1 for id in ids.tolist()]
                nn.functional.cross_entropy(
                    model(sample["images"].float().flatten(1)), sample["labels"]
                ).backward()
                if rank == kill_rank and step == kill_step:
                    os.kill(os.getpid(), signal.SIGKILL)
                if step % 3 == 0:
                    manager.save(step)
        manager.save(step)


if __name__ == "__main__":
    torch.manual_seed(0)
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
    # after the model is gone: torch may hang in a DDP model that outlives its group
    dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.destroy_process_group()
