"""Rows of Hugging Face's datasets beside files, stopped in the middle of an epoch, and gone on with: start it twice.

torchrun --nproc-per-node 2 examples/integrations/resume_huggingface.py /tmp/run
torchrun --nproc-per-node 3 examples/integrations/resume_huggingface.py /tmp/run
"""

import os
import sys
from pathlib import Path

import datasets
import numpy as np
import torch
import torch.distributed as dist
import zarr

import globidx

EPOCHS, STOP_AT = 2, 5


def prepare(folder: Path) -> None:
    """60 samples in a file, and 40 rows that were computed, shuffled, and saved."""
    if not folder.exists():
        zarr.create_array(
            folder / "files.zarr", data=np.random.default_rng(0).random((60, 8), np.float32), chunks=(8, 8)
        )
        rows = datasets.Dataset.from_dict({"x": np.random.default_rng(1).random((40, 8), np.float32)})
        rows.shuffle(seed=0).save_to_disk(folder / "rows")  # its fingerprint travels with it


def tensor(sample: dict | torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """What a model is given of a sample of either source, with some noise that resumes."""
    values = sample["x"] if isinstance(sample, dict) else sample
    return values + rng.normal(0, 0.01, 8).astype("f4")


def main(folder: Path) -> None:
    if dist.get_rank() == 0:
        prepare(folder)
    dist.barrier()
    files = globidx.FileCacheDataset(globidx.GlobalIndexManager(folder / "files.zarr"))
    rows = datasets.load_from_disk(folder / "rows").with_format("torch")
    dataset = globidx.MapDataset(files, rows, transform=tensor)

    sampler = globidx.ResumableDistributedSampler(dataset, seed=7, tail="exact")
    loader = globidx.DataLoader(dataset, batch_size=4, sampler=sampler)
    manager = globidx.CheckpointManager(folder / "records", sampler)
    record = manager.restore()

    for epoch in range(sampler.epoch, EPOCHS):
        seen = torch.zeros(1)
        for step, batch in enumerate(loader, 1):
            seen += len(batch)
            if step == STOP_AT and record is None:
                manager.save(step)
                break
        dist.all_reduce(seen)
        if dist.get_rank() == 0:
            print(f"epoch {epoch}: {int(seen)} samples")
        if record is None:
            break


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    dist.init_process_group("gloo")
    main(Path(sys.argv[1]))
    dist.monitored_barrier()  # torch's threads let go of all tensors before the exit
    dist.destroy_process_group()
