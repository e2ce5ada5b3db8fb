"""Model, optimizer and record together: whenever this is killed, the next start finds the newest pair that fits.

torchrun --nproc-per-node 2 examples/full_checkpoint.py RUN dcp      # or plain: one file by torch.save

The record comes first; the model's checkpoint, under the record's id, second, and it counts when it is whole. A kill
between the two leaves a record without a model: the next start takes the newest model, and the record it belongs to.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.utils.data import TensorDataset

from globidx import CheckpointManager, DataLoader, ResumableDistributedSampler


def save(run: Path, how: str, step: int, manager: CheckpointManager, model: nn.Module, optimizer: Any) -> None:
    id = manager.save(step)
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments, "record": json.dumps(manager.state_dict())}
    if how == "dcp":
        dcp.save(state, checkpoint_id=run / f"model-{id}")  # a folder of its own, never over the only one
    elif dist.get_rank() == 0:
        torch.save(state, run / "model.tmp")
        os.replace(run / "model.tmp", run / f"model-{id}.pt")


def restore(run: Path, how: str, manager: CheckpointManager, model: nn.Module, optimizer: Any) -> int:
    whole = run.glob("model-*.pt") if how == "plain" else (path.parent for path in run.glob("model-*/.metadata"))
    path = max(whole, default=None)  # ids sort by age; DCP writes .metadata last, a plain file gets its name last
    if path is None:
        return 0
    weights, moments = get_state_dict(model, optimizer)
    state: dict[str, Any] = {"model": weights, "optimizer": moments, "record": ""}
    if how == "dcp":
        dcp.load(state, checkpoint_id=path)
        manager.load_state_dict(json.loads(state["record"]))  # one string, the same on every rank, is all of it
    else:
        manager.restore(expect=path.stem.removeprefix("model-"), fallback=True)  # not simply the newest
        state = torch.load(path, weights_only=True)
    set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    return int(json.loads(state["record"])["step"])


def main() -> None:
    run, how = Path(sys.argv[1]), sys.argv[2]
    dist.init_process_group("gloo")
    dataset = TensorDataset(torch.arange(240), torch.randn(240, 8))
    sampler = ResumableDistributedSampler(dataset, seed=7)
    model = nn.parallel.DistributedDataParallel(network := nn.Linear(8, 1))
    network.register_buffer("seen", torch.zeros(240, dtype=torch.int64))  # how often it was trained on each sample
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    manager = CheckpointManager(run, sampler, timeout=1800)  # other ranks wait while rank 0 writes the model
    step = start = restore(run, how, manager, model, optimizer)
    for _ in range(sampler.epoch, 1):
        for ids, inputs in DataLoader(dataset, batch_size=4, sampler=sampler):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
            dist.all_reduce(counts := torch.bincount(ids, minlength=240))
            network.seen += counts
            if (step := step + 1) % 5 == 0:
                save(run, how, step, manager, model, optimizer)
    if dist.get_rank() == 0:
        print(f"from step {start} to {step}; trained on each sample once: {bool((network.seen == 1).all())}")


if __name__ == "__main__":
    main()  # its model is gone before the group: torch may hang in a DDP model that outlives it
    dist.monitored_barrier()  # torch's threads let go of all tensors: one that still held some could abort the exit
    dist.destroy_process_group()
