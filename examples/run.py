"""The whole loop in ten lines: killed at any time, started again on any number of ranks, it goes on where it was.

torchrun --nproc-per-node 2 --signals-to-handle=SIGTERM,SIGUSR1 examples/run.py RUN      # as often as you like
"""

import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

import globidx


def main() -> None:
    folder, seconds = Path(sys.argv[1]), float(sys.argv[2]) if sys.argv[2:] else 0.0  # a step takes so long
    dist.init_process_group("gloo")
    dataset = TensorDataset(torch.arange(1003), torch.randn(1003, 8), torch.randint(0, 2, (1003,)))
    dataset.fingerprint = "toy data 1"  # ids that mean other samples get another: FileCacheDataset has one by itself
    model = nn.parallel.DistributedDataParallel(network := nn.Linear(8, 2))
    network.register_buffer("seen", torch.zeros(1003, dtype=torch.int64))  # how often it was trained on each sample
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    state = {"model": model, "optimizer": optimizer}
    run = globidx.Run(dataset, batch_size=4, checkpoint_dir=folder, epochs=1, state=state, seed=7, save_every=50)
    start = run.restore()
    for epoch in run.epochs():
        for ids, inputs, labels in epoch:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()

            dist.all_reduce(counts := torch.bincount(ids, minlength=1003))
            network.seen += counts
            time.sleep(seconds)
            if dist.get_rank() == 0 and run.step == start + 10:
                print(f"training from step {start}, epoch {epoch.number}", flush=True)

    if dist.get_rank() == 0:
        often = torch.bincount(network.seen).tolist()  # how many samples it has seen never, once, twice, ...
        print(f"{'stopped' if run.preempted else 'done'} at step {run.step}; samples by times seen: {often}")


if __name__ == "__main__":
    main()  # its model is gone before the group: torch may hang in a DDP model that outlives it
    dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.destroy_process_group()
