"""A loop with Fabric, as docs/howto/trainers/lightning.md has it, that writes which ids each rank has trained on.

``python fabric_job.py FOLDER LEG [STOP]`` under torchrun: goes on from FOLDER/fabric.ckpt if it is there, and saves
and ends after STOP batches.
"""

import json
import os
import sys
from pathlib import Path

from lightning.fabric import Fabric
from processes import leave

from globidx import DataLoader, ResumableDistributedSampler


def main(folder, leg, stop=None):
    """Train three epochs, or up to a step."""
    checkpoint = str(Path(folder, "fabric.ckpt"))
    fabric = Fabric(accelerator="cpu", devices=int(os.environ["WORLD_SIZE"]), strategy="ddp")
    fabric.launch()

    dataset = range(203)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    loader = DataLoader(dataset, batch_size=4, sampler=sampler, device=fabric.device)
    if Path(checkpoint).exists():
        fabric.load(checkpoint, {"sampler": sampler})

    seen = []
    for epoch in range(sampler.epoch, 3):
        sampler.set_epoch(epoch)
        for batch in loader:
            seen.append(["train", epoch, batch.tolist()])
            if len(seen) == stop:
                fabric.save(checkpoint, {"sampler": sampler})
                break
        if len(seen) == stop:
            break
    Path(folder, f"seen-{leg}-{fabric.global_rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:3], *map(int, sys.argv[3:]))
    leave()
