"""Train on jets and their tracks as flavour taggers keep them: compound arrays of HDF5, a member for each variable.

python examples/fields/jets.py
"""

import tempfile
from typing import Any

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, orders

JET = ["pt", "eta"]
TRACK = ["d0", "z0SinTheta", "numberOfPixelHits"]


def write_jets(path: str, seed: int) -> None:
    """``jets (n)`` and ``tracks (n, 40)`` in chunks of 100 jets; most of 40 tracks are padding, not ``valid``."""
    random = np.random.default_rng(seed)
    jets = np.zeros(1000, [("pt", "f4"), ("eta", "f4"), ("mass", "f4"), ("flavour_label", "i4")])
    jets["pt"], jets["eta"] = random.exponential(5e4, 1000), random.uniform(-2.5, 2.5, 1000)
    jets["flavour_label"] = random.choice([0, 4, 5], 1000)
    members = [("d0", "f2"), ("z0SinTheta", "f2"), ("numberOfPixelHits", "u1"), ("valid", "?")]
    tracks = np.zeros((1000, 40), members)
    tracks["d0"] = random.normal(size=(1000, 40)) * (1 + jets["flavour_label"][:, None])
    tracks["numberOfPixelHits"] = random.integers(0, 9, (1000, 40))
    tracks["valid"] = np.arange(40) < random.integers(1, 40, (1000, 1))
    with h5py.File(path, "w") as file:
        file.create_dataset("jets", data=jets, chunks=(100,), compression="lzf")
        file.create_dataset("tracks", data=tracks, chunks=(100, 40), compression="lzf")


def tagged(sample: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Variables on one axis, the mask of tracks, and the flavour as a class."""
    jets, tracks = sample["jets"], sample["tracks"]
    inputs = torch.stack([tracks[name].float() for name in TRACK], -1)
    inputs[~tracks["valid"]] = 0
    flavour = torch.searchsorted(torch.tensor([0, 4, 5]), jets["flavour_label"].long())
    jet = torch.stack([jets[name] for name in JET])
    return {"jet": jet, "tracks": inputs, "valid": tracks["valid"], "flavour": flavour}


def train(folder: str) -> None:
    key = {"jets": "jets/{pt,eta,flavour_label}", "tracks": f"tracks/{{{','.join(TRACK)},valid}}"}
    dataset = FileCacheDataset(GlobalIndexManager(folder, key=key), transform=tagged)
    sampler = ResumableDistributedSampler(dataset, seed=7, order=orders.ChunkShuffle(window=4))
    for batch in DataLoader(dataset, batch_size=500, sampler=sampler):
        hits = batch["tracks"][batch["valid"]][:, 2].mean()
    print({name: tuple(values.shape) for name, values in batch.items()})
    print(f"{hits:.1f} pixel hits a track; {dataset.counters().decodes} decodes of {2 * 30} chunks")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for number in range(3):
            write_jets(f"{folder}/train_{number}.h5", number)
        train(folder)
