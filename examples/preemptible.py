"""Train until done or preempted: a signal to any rank stops all at the same step, and the next start goes on there.

torchrun --nproc-per-node 2 --signals-to-handle=SIGTERM,SIGUSR1 examples/preemptible.py RUN    # as often as you like

Under SLURM: slurm_requeue.sbatch. Without --signals-to-handle SIGUSR1 ends torchrun. Preempted, it leaves RUN/requeue.
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


def train(args: argparse.Namespace, guard: PreemptionGuard) -> bool:  # whether it was trained to the end
    dataset = TensorDataset(torch.arange(1003), torch.randn(1003, 8), torch.randint(0, 2, (1003,)))
    dataset.fingerprint = "toy data 1"  # ids that mean other samples get another: FileCacheDataset has one by itself
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=2)
    model = nn.parallel.DistributedDataParallel(nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    manager = CheckpointManager(args.run, sampler, timeout=1800)  # other ranks wait while rank 0 writes the model
    parts, step = {"model": model, "optimizer": optimizer}, 0
    if path := max(args.run.glob("model-*.pt"), default=None):  # ids sort by age; with any number of ranks
        step = manager.restore(expect=path.stem.removeprefix("model-"), fallback=True)["step"]
        for name, state in torch.load(path, weights_only=True).items():
            parts[name].load_state_dict(state)
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
                    save(manager, parts, args.run, step)
                if stop:
                    return False
    save(manager, parts, args.run, step)
    return True


def save(manager: CheckpointManager, parts: dict, run: Path, step: int) -> None:
    id = manager.save(step)
    if dist.get_rank() == 0:  # the model counts once it has its name; a kill before that leaves the older pair
        torch.save({name: part.state_dict() for name, part in parts.items()}, run / "model.tmp")
        os.replace(run / "model.tmp", run / f"model-{id}.pt")
        kept = {run / f"model-{path.stem.removeprefix('record-')}.pt" for path in run.glob("record-*.json")}
        for old in set(run.glob("model-*.pt")) - kept:  # models go with their records
            old.unlink()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path, help="folder for records, models and logs")
    parser.add_argument("--step-seconds", type=float, default=0.0, help="pretend that a step takes this long")
    args = parser.parse_args()
    args.run.mkdir(parents=True, exist_ok=True)
    with PreemptionGuard() as guard:  # first of all: a signal during start-up counts, too
        for name, slurm in (("RANK", "PROCID"), ("WORLD_SIZE", "NTASKS"), ("LOCAL_RANK", "LOCALID")):
            os.environ.setdefault(name, os.environ.get(f"SLURM_{slurm}", ""))  # where no torchrun has set it
        dist.init_process_group("gloo")
        (args.run / ("done" if train(args, guard) else "requeue")).touch()
        dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
