"""A job of Accelerate that trains for some epochs, or saves and stops; what each step saw is written line by line.

torchrun ... accelerate_job.py FOLDER SAMPLES BATCH EPOCHS STOP_AT ACCUMULATE WORKERS
"""

import json
import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from processes import leave

import globidx
from globidx.integrations.accelerate import prepare


def main(folder, samples, batch, epochs, stop_at, accumulate, workers):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate)
    dataset = torch.arange(samples, dtype=torch.float32)
    sampler = globidx.ResumableDistributedSampler(dataset, seed=3)
    loader = prepare(
        accelerator, globidx.DataLoader(dataset, batch, sampler=sampler, num_workers=workers)
    )
    model = torch.nn.Linear(1, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=1e-9))
    saved = Path(folder, "checkpoint")
    if saved.exists():
        accelerator.load_state(saved)
    step = 0
    leg = len(list(Path(folder).glob(f"seen-*-{accelerator.process_index}.jsonl")))
    accelerator.wait_for_everyone()
    with Path(folder, f"seen-{leg}-{accelerator.process_index}.jsonl").open("w") as seen:
        for epoch in range(sampler.epoch, epochs):
            for ids in loader:
                with accelerator.accumulate(model):
                    accelerator.backward(model(ids[:, None]).mean())
                    optimizer.step()
                    optimizer.zero_grad()
                objects = accelerator.gather_for_metrics([{"id": id} for id in ids.tolist()], True)
                line = {
                    "epoch": epoch,
                    "ids": ids.tolist(),
                    "gathered": accelerator.gather_for_metrics({"ids": ids})["ids"].tolist(),
                    "objects": [one["id"] for one in objects],
                    "synced": accelerator.sync_gradients,
                }
                seen.write(json.dumps(line) + "\n")
                step += 1
                if step == stop_at:
                    accelerator.save_state(saved)
                    return


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
    leave()
