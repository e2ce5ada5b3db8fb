"""A job over files and Arrow rows that trains for some epochs, or saves and stops; each step's ids, line by line.

torchrun ... huggingface_job.py FOLDER SAMPLES BATCH EPOCHS STOP_AT
"""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist
from datasets import load_from_disk
from processes import leave

from globidx import (
    CheckpointManager,
    DataLoader,
    FileCacheDataset,
    GlobalIndexManager,
    MapDataset,
    ResumableDistributedSampler,
)


def row(sample):
    """Files hold numbers, rows are dicts."""
    return sample["x"] if isinstance(sample, dict) else sample


def main(folder, samples, batch, epochs, stop_at):
    files = FileCacheDataset(GlobalIndexManager(folder / "files.zarr"))
    rows = load_from_disk(folder / "rows").with_format("torch")
    dataset = MapDataset(files, rows, transform=row)
    assert len(dataset) == samples
    sampler = ResumableDistributedSampler(dataset, seed=3)
    loader = DataLoader(dataset, batch, sampler=sampler, num_workers=2)
    manager = CheckpointManager(folder / "records", sampler)
    record = manager.restore()
    leg, step = (1, record["step"]) if record else (0, 0)
    with Path(folder, f"seen-{leg}-{sampler.rank}.jsonl").open("w") as seen:
        for epoch in range(sampler.epoch, epochs):
            for ids in loader:
                seen.write(json.dumps({"epoch": epoch, "ids": ids.tolist()}) + "\n")
                step += 1
                if step == stop_at:
                    manager.save(step)
                    return


if __name__ == "__main__":
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        dist.init_process_group("gloo")
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
    leave()
