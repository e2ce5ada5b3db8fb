"""Train on episodes as RDT and ACT keep them: frames of a camera as JPEG, beside states, actions and an instruction.

python examples/fields/jpeg_episodes.py
"""

import io
import tempfile

import h5py
import numpy as np
import torch
from PIL import Image

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window

CHUNK = 16


def rgb(frame: bytes) -> np.ndarray:
    """A frame's pixels; Pillow reads no further than the end of the picture, so padding does not matter."""
    return np.asarray(Image.open(io.BytesIO(frame))).transpose(2, 0, 1)


def write_episode(path: str, length: int) -> None:
    """Frames as bytes, which numpy pads with zeros to the longest of the episode."""
    random = np.random.default_rng(length)
    frames = [io.BytesIO() for _ in range(length)]
    for frame in frames:
        Image.fromarray(random.integers(0, 256, (48, 64, 3), np.uint8)).save(frame, "JPEG")
    with h5py.File(path, "w") as file:
        file["action"] = random.normal(size=(length, 14)).astype(np.float32)
        file["observations/qpos"] = random.normal(size=(length, 14)).astype(np.float32)
        file["observations/images/cam_high"] = np.array([frame.getvalue() for frame in frames])
        file["instruction"] = f"put cube {length % 3} into the box"


def train(folder: str) -> None:
    index = GlobalIndexManager(
        folder,
        key={"image": "observations/images/cam_high", "qpos": "observations/qpos", "action": "action"},
        sequences="file",
        window=Window({"image": (-1, 0), "qpos": 0, "action": range(CHUNK)}, pad="edge", mask=True),
        constants={"instruction": "instruction"},
    )
    dataset = FileCacheDataset(index, decode={"image": rgb})
    sampler = ResumableDistributedSampler(dataset, seed=7)
    print(f"{len(index)} samples of {len(index.sequences)} episodes")
    for batch in DataLoader(dataset, batch_size=12, sampler=sampler):
        loss = (batch["action"] - batch["qpos"][:, None])[batch["mask"]["action"]].square().mean()
    print("image", batch["image"].dtype, tuple(batch["image"].shape), "action", tuple(batch["action"].shape))
    print(batch["instruction"][0], bool(torch.isfinite(loss)))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for number, length in enumerate((30, 40, 50)):
            write_episode(f"{folder}/episode_{number}.hdf5", length)
        train(folder)
