"""torchdata's StatefulDataLoader, stopped in mid-epoch and gone on with on other ranks and workers: start it twice.

torchrun --nproc-per-node 2 examples/integrations/resume_torchdata.py /tmp/run 2 7
torchrun --nproc-per-node 3 examples/integrations/resume_torchdata.py /tmp/run 0
"""

import sys

import torch
import torch.distributed as dist
from torch.utils.data import TensorDataset
from torchdata.stateful_dataloader import StatefulDataLoader

from globidx import CheckpointManager, ResumableDistributedSampler

EPOCHS = 2


def main(folder: str, workers: int, stop_at: int = 0) -> None:
    dataset = TensorDataset(torch.arange(100), torch.randn(100, 8))
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = StatefulDataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers)
    manager = CheckpointManager(folder, sampler)
    manager.restore()

    step = 0
    for epoch in range(sampler.epoch, EPOCHS):
        before = len(dataset) - sampler.remaining
        for ids, _inputs in loader:
            sampler.commit(len(ids))  # workers read ahead: what was drawn is not what was trained on
            step += 1
            if step == stop_at:
                manager.save(step)
                report(f"stopped: {len(dataset) - sampler.remaining} samples of epoch {epoch}")
                return
        report(f"epoch {epoch}: {len(dataset) - before} samples")


def report(line: str) -> None:
    """Print on rank 0."""
    if dist.get_rank() == 0:
        print(line)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(sys.argv[1], *map(int, sys.argv[2:]))
    dist.monitored_barrier()  # torch's threads let go of all tensors before the exit
    dist.destroy_process_group()
