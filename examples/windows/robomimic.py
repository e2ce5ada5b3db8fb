"""Train on demonstrations as robomimic, LIBERO, MimicGen and robocasa write them: each a group of an HDF5 file.

python examples/windows/robomimic.py
"""

import json
import tempfile

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window

FRAME_STACK, SEQ_LENGTH = 2, 10


def write_demos(path: str) -> None:
    """Twelve groups ``data/demo_k``, each with its task in an attribute; ``mask/*`` list names of groups."""
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
        file["mask/train"] = [f"demo_{number}" for number in range(10)]
        file["mask/valid"] = ["demo_10", "demo_11"]


def train(path: str) -> None:
    index = GlobalIndexManager(
        path,
        key="data/*/{obs/{agentview_image,robot0_eef_pos},actions}",
        sequences="match",
        only="mask/train",
        window=Window(range(1 - FRAME_STACK, SEQ_LENGTH), pad="edge", mask=True),
        constants={"ep_meta": "data/*@ep_meta"},
    )
    print(f"{len(index)} windows in {len(index.sequences)} demos: {index.sequences.names}")

    dataset = FileCacheDataset(index)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    model = torch.nn.Linear(3, 7).double()
    for batch in DataLoader(dataset, batch_size=16, sampler=sampler):
        errors = (model(batch["obs"]["robot0_eef_pos"]) - batch["actions"]).square().mean(-1)
        errors[batch["mask"]].mean().backward()  # rows that padding made do not count
    print("image", batch["obs"]["agentview_image"].shape, "mask", batch["mask"].shape)
    print("task", json.loads(batch["ep_meta"][0])["lang"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_demos(f"{folder}/image.hdf5")
        train(f"{folder}/image.hdf5")
