"""Train over zarr and HDF5 files; stop it anywhere, start it again on any number of ranks, and it goes on where it was.

    torchrun --nproc-per-node 2 examples/resume_any_gpus.py DATA RUN      # ... killed
    torchrun --nproc-per-node 3 examples/resume_any_gpus.py DATA RUN      # goes on

Before each step a rank writes its sample ids to RUN/trained-*.txt; ``tools/demo.py`` counts them.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from globidx import CheckpointManager, DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("data", help="folder of files with the arrays images and labels")
    parser.add_argument("run", type=Path, help="folder for records, weights and logs")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=10)
    parser.add_argument("--step-seconds", type=float, default=0.0, help="pretend that a step takes this long")
    return parser.parse_args()


def save(manager: CheckpointManager, model: nn.Module, run: Path, step: int) -> None:
    """Weights first, then the record that says they count: a kill between the two leaves the older pair."""
    if dist.get_rank() == 0:
        torch.save(model.state_dict(), run / "weights.tmp")
        os.replace(run / "weights.tmp", run / f"weights-{step}.pt")
    manager.save(step)


def main() -> None:
    args = parse()
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    args.run.mkdir(parents=True, exist_ok=True)

    dataset = FileCacheDataset(GlobalIndexManager(args.data, key=("images", "labels")), with_id=True)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=args.batch_size, sampler=sampler, num_workers=args.workers)
    model = nn.parallel.DistributedDataParallel(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    manager = CheckpointManager(args.run, sampler, timeout=1800)  # other ranks wait while rank 0 writes the model
    record = manager.restore()  # None: a fresh run
    step = record["step"] if record else 0
    if record:
        model.load_state_dict(torch.load(args.run / f"weights-{step}.pt", weights_only=True))

    rank, ranks = dist.get_rank(), dist.get_world_size()
    with open(args.run / f"trained-from-{step}-rank-{rank}-of-{ranks}.txt", "w", buffering=1) as log:
        for epoch in range(sampler.epoch, args.epochs):
            sampler.set_epoch(epoch)
            for sample, ids in loader:
                step += 1
                log.write(f"{epoch} {step} {' '.join(map(str, ids.tolist()))}\n")
                loss = nn.functional.cross_entropy(model(sample["images"].float()), sample["labels"])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                time.sleep(args.step_seconds)
                if step % args.save_every == 0:
                    save(manager, model, args.run, step)
    save(manager, model, args.run, step)


if __name__ == "__main__":
    main()  # its model is gone before the group: torch may hang in a DDP model that outlives it
    dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.destroy_process_group()
