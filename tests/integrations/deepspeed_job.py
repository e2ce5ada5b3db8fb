"""A job of DeepSpeed, as docs/howto/trainers/deepspeed.md has it, that is saved and resumed.

python -m integrations.legs deepspeed_job FOLDER
"""

import deepspeed
import torch
from integrations.legs import BATCH, EPOCHS, SAMPLES

from globidx import DataLoader, ResumableDistributedSampler

# an all-reduce of its own for ranks of one machine, compiled where it is first used
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
CONFIG = {
    "train_micro_batch_size_per_gpu": BATCH,
    "gradient_accumulation_steps": 1,
    "optimizer": {"type": "SGD", "params": {"lr": 1e-9}},
}


def leg(folder, stop_at, seen):
    deepspeed.init_distributed("gloo")
    engine, *_ = deepspeed.initialize(model=torch.nn.Linear(1, 1), config=CONFIG)
    sampler = ResumableDistributedSampler(range(SAMPLES), seed=7)
    loader = DataLoader(range(SAMPLES), BATCH, sampler=sampler)
    if stop_at is None:
        _, client = engine.load_checkpoint(str(folder))
        sampler.load_state_dict(client["sampler"])

    for epoch in range(sampler.epoch, EPOCHS):
        for ids in loader:
            seen.note(epoch, ids)
            engine.backward(engine(ids[:, None].float()).mean())
            engine.step()
            if seen.steps == stop_at:
                engine.save_checkpoint(str(folder), client_state={"sampler": sampler.state_dict()})
                return
