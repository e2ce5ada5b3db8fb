"""Train on a replay buffer as diffusion_policy, UMI and DP3 write it: 16 steps of an episode, and 2 images beside them.

python examples/windows/diffusion_policy.py
"""

import tempfile

import numpy as np
import torch
import zarr

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window

HORIZON, N_OBS_STEPS, N_ACTION_STEPS = 16, 2, 8


def write_buffer(path: str) -> None:
    """Twenty episodes, one behind the other in each array of ``data``; ``meta/episode_ends`` tells where each ends."""
    random, lengths = np.random.default_rng(0), range(20, 60, 2)
    rows, buffer = sum(lengths), zarr.create_group(path, zarr_format=2)
    data, meta = buffer.create_group("data"), buffer.create_group("meta")
    data.create_array("img", data=random.random((rows, 8, 8, 3), np.float32), chunks=(16, 8, 8, 3))
    data.create_array("state", data=random.random((rows, 5), np.float32), chunks=(64, 5))
    data.create_array("action", data=random.random((rows, 2), np.float32), chunks=(64, 2))
    meta.create_array("episode_ends", data=np.cumsum(lengths))


def train(path: str) -> None:
    steps = {"obs/image": range(N_OBS_STEPS), "obs/state": range(N_OBS_STEPS), "action": range(HORIZON)}
    index = GlobalIndexManager(
        path,
        key={"obs/image": "data/img", "obs/state": "data/state", "action": "data/action"},
        sequences="meta/episode_ends",
        window=Window(steps, pad="edge", before=N_OBS_STEPS - 1, after=N_ACTION_STEPS - 1),
    )
    print(f"{len(index)} windows in {len(index.sequences)} episodes")
    print("actions of the first:", *index.where(0).rows["action"])
    training, validation = index.split(0.9, seed=42)  # whole episodes
    print(f"{len(training.sequences)} episodes to train on, {len(validation.sequences)} to validate")

    dataset = FileCacheDataset(training)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    model = torch.nn.Linear(N_OBS_STEPS * 5, HORIZON * 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in DataLoader(dataset, batch_size=32, sampler=sampler):
        loss = (model(batch["obs"]["state"].flatten(1)) - batch["action"].flatten(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("image", batch["obs"]["image"].shape, "action", batch["action"].shape)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_buffer(f"{folder}/pusht.zarr")
        train(f"{folder}/pusht.zarr")
