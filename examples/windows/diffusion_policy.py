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
    """Five episodes, one behind the other in each array of ``data``; ``meta/episode_ends`` says where each ends."""
    random, lengths = np.random.default_rng(0), [40, 25, 60, 10, 33]
    buffer, rows = zarr.create_group(path, zarr_format=2), sum(lengths)
    data, meta = buffer.create_group("data"), buffer.create_group("meta")
    images = random.random((rows, 8, 8, 3), np.float32)
    data.create_array("img", data=images, chunks=(16, 8, 8, 3))
    data.create_array("state", data=random.random((rows, 5), np.float32), chunks=(64, 5))
    data.create_array("action", data=random.random((rows, 2), np.float32), chunks=(64, 2))
    meta.create_array("episode_ends", data=np.cumsum(lengths))


def train(path: str) -> None:
    index = GlobalIndexManager(
        path,
        key={"obs/image": "data/img", "obs/state": "data/state", "action": "data/action"},
        sequences="meta/episode_ends",
        window=Window(
            {"obs/image": range(N_OBS_STEPS), "obs/state": range(N_OBS_STEPS), "action": range(HORIZON)},
            pad="edge",
            before=N_OBS_STEPS - 1,
            after=N_ACTION_STEPS - 1,
        ),
    )
    print(f"{len(index)} windows in {len(index.sequences.names)} episodes of {index.sequences.lengths.tolist()} rows")
    print(index.where(0))
    training, validation = index.split(0.8, seed=42)  # by whole episodes
    print(f"{len(training)} windows to train on, {len(validation)} to validate")
    dataset = FileCacheDataset(training)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    model = torch.nn.Linear(N_OBS_STEPS * 5, HORIZON * 2)
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in DataLoader(dataset, batch_size=32, sampler=sampler):
        loss = (model(batch["obs"]["state"].flatten(1)) - batch["action"].flatten(1)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print({name: tuple(value.shape) for name, value in {**batch["obs"], "action": batch["action"]}.items()})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_buffer(f"{folder}/pusht.zarr")
        train(f"{folder}/pusht.zarr")
