"""Train until done or told to go: a signal to any rank stops all at the same step, and the next start goes on there.

torchrun --nproc-per-node 2 --signals-to-handle=SIGTERM,SIGUSR1 examples/preemptible.py RUN    # told to go
torchrun --nproc-per-node 3 --signals-to-handle=SIGTERM,SIGUSR1 examples/preemptible.py RUN    # goes on

Under SLURM: examples/slurm_requeue.sbatch. Without --signals-to-handle a SIGUSR1 ends torchrun itself. A run that was
told to go leaves RUN/requeue. Each rank logs what it trained on, a line a step.
"""

import argparse
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset

from globidx import CheckpointManager, DataLoader, PreemptionGuard, ResumableDistributedSampler


def join() -> None:  # by torchrun's environment, or by what ``srun python`` gives each task
    for name, slurm in (("RANK", "SLURM_PROCID"), ("WORLD_SIZE", "SLURM_NTASKS"), ("LOCAL_RANK", "SLURM_LOCALID")):
        os.environ.setdefault(name, os.environ.get(slurm, ""))
    dist.init_process_group("gloo")


def train(args: argparse.Namespace, guard: PreemptionGuard) -> bool:
    """Whether it was trained to the end."""
    dataset = TensorDataset(torch.arange(1003), torch.randn(1003, 8), torch.randint(0, 2, (1003,)))
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler)
    model = nn.parallel.DistributedDataParallel(nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    manager = CheckpointManager(args.run, sampler, timeout=1800)  # other ranks wait while rank 0 writes the model
    step = 0
    if record := manager.restore():  # whatever restarted this, with however many ranks
        step = record["step"]
        model.load_state_dict(torch.load(args.run / f"weights-{step}.pt", weights_only=True))
    with open(args.run / f"trained-from-{step}-rank-{dist.get_rank()}.txt", "w", buffering=1) as log:
        for epoch in range(sampler.epoch, 1):
            sampler.set_epoch(epoch)
            for ids, inputs, labels in loader:
                step += 1
                log.write(f"{epoch} {step} {' '.join(map(str, ids.tolist()))}\n")
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
                time.sleep(args.step_seconds)
                stop = guard.should_stop()  # every rank, every step: all get the same answer
                if stop or step % 50 == 0:
                    save(manager, model, args.run, step)
                    if stop:
                        return False
    save(manager, model, args.run, step)
    return True


def save(manager: CheckpointManager, model: nn.Module, run: Path, step: int) -> None:
    if dist.get_rank() == 0:  # weights first: a kill before the record leaves the older pair
        torch.save(model.state_dict(), run / f"weights-{step}.pt")
    manager.save(step)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="folder for records, weights and logs")
    parser.add_argument("--step-seconds", type=float, default=0.0, help="pretend that a step takes this long")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    with PreemptionGuard() as guard:  # first of all: a signal during start-up counts, too
        join()
        (args.run / ("done" if train(args, guard) else "requeue")).touch()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
