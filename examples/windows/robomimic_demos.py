"""Train on demonstrations as robomimic, LIBERO, MimicGen and robocasa write them: a group of an HDF5 file each.

python examples/windows/robomimic_demos.py
"""

import json
import tempfile
from typing import Any

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window

FRAME_STACK, SEQ_LENGTH = 2, 10


def write_demos(path: str) -> None:
    """Twelve groups ``data/demo_k``, each with an attribute that tells its task; ``mask/*`` lists names of groups."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(12):
            demo, length = file.create_group(f"data/demo_{number}"), 20 + 3 * number
            demo.attrs["num_samples"] = length
            demo.attrs["ep_meta"] = json.dumps({"lang": f"open drawer {number % 3}"})
            demo["actions"] = random.random((length, 7))
            demo["obs/robot0_eef_pos"] = random.random((length, 3))
            images = random.integers(0, 256, (length, 8, 8, 3), np.uint8)
            demo.create_dataset("obs/agentview_image", data=images, chunks=(1, 8, 8, 3), compression="gzip")
        file["mask/train"] = np.array([b"demo_%d" % number for number in range(10)])
        file["mask/valid"] = np.array([b"demo_10", b"demo_11"])


def with_task(sample: dict[str, Any]) -> dict[str, Any]:
    """What a policy sees, with the task as text."""
    return {**sample, "task": json.loads(sample.pop("ep_meta"))["lang"]}


def train(path: str) -> None:
    index = GlobalIndexManager(
        path,
        key="data/*/{obs/{agentview_image,robot0_eef_pos},actions}",
        sequences="match",
        only="mask/train",
        window=Window(range(1 - FRAME_STACK, SEQ_LENGTH), pad="edge", mask=True),
        constants={"ep_meta": "data/*@ep_meta"},
    )
    print(f"{len(index)} windows in {len(index.sequences.names)} demos: {index.sequences.names}")
    dataset = FileCacheDataset(index, transform=with_task)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    for batch in DataLoader(dataset, batch_size=16, sampler=sampler):
        torch.where(batch["mask"][..., None], batch["actions"], 0.0)  # pad_mask: rows that padding made
    print({name: tuple(value.shape) for name, value in batch["obs"].items()})
    print(tuple(batch["actions"].shape), batch["actions"].dtype, sorted(set(batch["task"])))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_demos(f"{folder}/low_dim.hdf5")
        train(f"{folder}/low_dim.hdf5")
