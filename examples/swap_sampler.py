"""An ordinary DDP loop, with two lines changed: the sampler and the loader.

torchrun --nproc-per-node 2 examples/swap_sampler.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

import globidx


def main() -> None:
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    dataset = TensorDataset(torch.arange(100), torch.randn(100, 8), torch.randint(0, 2, (100,)))

    sampler = globidx.ResumableDistributedSampler(dataset, seed=7)  # was: DistributedSampler(dataset, seed=7)
    loader = globidx.DataLoader(dataset, batch_size=16, sampler=sampler)  # was: DataLoader(...)

    model = nn.parallel.DistributedDataParallel(nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(sampler.epoch, 2):
        sampler.set_epoch(epoch)
        seen = torch.zeros(100, dtype=torch.int64)
        for ids, inputs, labels in loader:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen[ids] += 1
        dist.all_reduce(seen)
        if dist.get_rank() == 0:
            print(f"epoch {epoch}: {int(seen.sum())} samples, each {'once' if (seen == 1).all() else 'NOT once'}")


if __name__ == "__main__":
    main()  # its model is gone before the group: torch may hang in a DDP model that outlives it
    dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.destroy_process_group()
