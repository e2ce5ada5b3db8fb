"""torchtitan's loader protocol and its checkpoints, stopped in mid-epoch and gone on with: start it twice.

torchrun --nproc-per-node 2 examples/integrations/resume_torchtitan.py /tmp/run 6
torchrun --nproc-per-node 3 examples/integrations/resume_torchtitan.py /tmp/run
"""

import sys
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import TensorDataset
from torchtitan.components.checkpoint import CheckpointManager
from torchtitan.components.dataloader import BaseDataLoader

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.dcp import ResumableState


class ResumableLoader(BaseDataLoader):
    """What torchtitan's trainer builds by a config, and its checkpoint manager saves."""

    @dataclass(kw_only=True, slots=True)
    class Config(BaseDataLoader.Config):
        """Which dataset, say."""

    def __init__(self, config: Config, *, dp_world_size: int, dp_rank: int, local_batch_size: int, **_: Any) -> None:
        dataset = TensorDataset(torch.arange(240), torch.randn(240, 8))
        self.sampler = ResumableDistributedSampler(dataset, dp_world_size, dp_rank, seed=7)
        self.loader = DataLoader(dataset, local_batch_size, sampler=self.sampler)
        self.progress = ResumableState(self.sampler)

    def __iter__(self) -> Any:
        while True:  # the trainer counts steps: an epoch follows the other
            yield from self.loader

    def state_dict(self) -> dict[str, Any]:
        """Return one record for all ranks; torchtitan's own loader has a key for each."""
        return self.progress.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with any number of ranks, where torchtitan's own loader raises AssertionError."""
        self.progress.load_state_dict(state_dict)


def main(folder: str, stop_at: int = 0) -> None:
    ranks = {"dp_world_size": dist.get_world_size(), "dp_rank": dist.get_rank()}
    loader = ResumableLoader.Config().build(**ranks, local_batch_size=4)
    model, step = nn.Linear(8, 1), torch.zeros((), dtype=torch.int64)
    model.register_buffer("seen", torch.zeros(240, dtype=torch.int64))  # how often it was trained on each sample
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    config = CheckpointManager.Config(enable=True, interval=3, async_mode="async")
    parts = {"model_parts": [model], "optimizers": optimizer, "lr_schedulers": schedule, "states": {"step": step}}
    checkpoints = config.build(dataloader=loader, sd_adapter=None, base_folder=folder, **parts)
    checkpoints.load()
    batches = iter(loader)
    while loader.sampler.epoch == 0 and (not stop_at or step < stop_at):
        ids, inputs = next(batches)
        model(inputs).square().mean().backward()  # a data-parallel model would average gradients
        optimizer.step(), optimizer.zero_grad(), schedule.step()
        dist.all_reduce(counts := torch.bincount(ids, minlength=240))
        model.seen += counts
        step += 1
        checkpoints.save(int(step))
    checkpoints.maybe_wait_for_saving()
    checkpoints.close()
    if dist.get_rank() == 0:
        print(f"step {step}: {int(model.seen.sum())} samples, each once: {bool((model.seen <= 1).all())}")


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main(sys.argv[1], *map(int, sys.argv[2:]))
    dist.monitored_barrier()  # torch's threads let go of all tensors before the exit
    dist.destroy_process_group()
