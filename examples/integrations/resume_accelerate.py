"""A loop of Accelerate that is stopped in the middle of an epoch, and goes on: start it twice.

torchrun --nproc-per-node 2 examples/integrations/resume_accelerate.py /tmp/run
torchrun --nproc-per-node 3 examples/integrations/resume_accelerate.py /tmp/run
"""

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import TensorDataset

import globidx
from globidx.integrations.accelerate import prepare

EPOCHS, STOP_AT = 2, 5


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(0)
    dataset = TensorDataset(torch.arange(100), torch.randn(100, 8))

    sampler = globidx.ResumableDistributedSampler(dataset, seed=7)
    loader = globidx.DataLoader(dataset, batch_size=4, sampler=sampler)
    loader = prepare(accelerator, loader)  # was: accelerator.prepare(loader)

    model = nn.Linear(8, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.01))
    resumed = folder.exists()
    if resumed:
        accelerator.load_state(folder)

    steps = 0
    for epoch in range(sampler.epoch, EPOCHS):
        seen = 0
        for ids, inputs in loader:
            with accelerator.accumulate(model):
                accelerator.backward(model(inputs).pow(2).mean())
                optimizer.step()
                optimizer.zero_grad()
            seen += len(accelerator.gather_for_metrics(ids))
            steps += 1
            if steps == STOP_AT and not resumed:
                accelerator.save_state(folder)
                accelerator.print(f"stopped: {seen} samples of epoch {epoch}")
                return
        accelerator.print(f"epoch {epoch}: {seen} samples")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    if torch.distributed.is_initialized():
        torch.distributed.monitored_barrier()  # torch's threads let go of all tensors before the exit
        torch.distributed.destroy_process_group()
