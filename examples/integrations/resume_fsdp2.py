"""FSDP2 and tensor parallelism over a mesh, stopped in mid-epoch and gone on with over another mesh: start it again.

torchrun --nproc-per-node 4 examples/integrations/resume_fsdp2.py /tmp/run dp=2 tp=2 stop_at=6
torchrun --nproc-per-node 3 examples/integrations/resume_fsdp2.py /tmp/run dp=3
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from globidx import DataLoader, ResumableDistributedSampler
from globidx.integrations.dcp import ResumableState

SAMPLES = 240


class Model(nn.Module):
    """A network; beside it, weights whose gradient adds one wherever a sample is in the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, 1)
        self.seen = nn.Embedding.from_pretrained(torch.zeros(SAMPLES, 2), freeze=False)

    def forward(self, ids: torch.Tensor, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the loss, and the counts."""
        return self.second(self.first(inputs).relu()).square().mean(), self.seen(ids).sum()


def main(folder: Path, stop_at: int = 0, **sizes: int) -> str:
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", tuple(sizes.values()), mesh_dim_names=tuple(sizes))
    data_parallel = mesh[tuple(name for name in sizes if name != "tp")]  # one dimension, or replicate x shard
    dataset, model = torch.utils.data.TensorDataset(torch.arange(SAMPLES), torch.randn(SAMPLES, 8)), Model()
    if "tp" in sizes:
        plan = {"first": ColwiseParallel(), "second": RowwiseParallel()}
        parallelize_module(model, mesh["tp"], plan | {"seen": ColwiseParallel(output_layouts=Replicate())})
    fully_shard(model, mesh=data_parallel)
    optimizer = torch.optim.Adam([*model.first.parameters(), *model.second.parameters()])
    counting = torch.optim.SGD(model.seen.parameters(), lr=1.0)

    sampler = ResumableDistributedSampler(dataset, seed=7, mesh=data_parallel)  # tensor-parallel peers read the same
    weights, moments = get_state_dict(model, optimizer)
    state = {"model": weights, "optimizer": moments, "progress": ResumableState(sampler)}
    newest = max(folder.glob("samples-*/.metadata"), default=None)  # DCP writes it last
    if newest:
        dcp.load(state, checkpoint_id=newest.parent)
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])

    for step, (ids, inputs) in enumerate(DataLoader(dataset, batch_size=4, sampler=sampler), 1):
        loss, counts = model(ids, inputs)
        (loss - counts * sampler.num_replicas).backward()  # gradients are averaged
        optimizer.step(), counting.step()
        model.zero_grad()
        if step == stop_at:
            done = SAMPLES - sampler.remaining
            state["model"], state["optimizer"] = get_state_dict(model, optimizer)
            dcp.save(state, checkpoint_id=folder / f"samples-{done:06d}")  # never over the only one
            return f"stopped after {done} samples"
    seen = model.seen.weight.full_tensor()
    return f"trained on each sample once: {bool((seen == 1).all())}"


if __name__ == "__main__":
    dist.init_process_group("gloo")
    outcome = main(Path(sys.argv[1]), **{name: int(size) for name, size in (pair.split("=") for pair in sys.argv[2:])})
    if dist.get_rank() == 0:
        print(outcome)
    dist.monitored_barrier()  # torch's threads let go of all tensors before the exit
    dist.destroy_process_group()
