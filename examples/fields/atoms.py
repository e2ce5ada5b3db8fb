"""Train on atomistic configurations as MACE keeps them: a group of HDF5 for each, of its own number of atoms.

python examples/fields/atoms.py
"""

import tempfile
from typing import Any

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, collate


def write_configurations(path: str) -> None:
    """Groups ``config_batch_0/config_k``; a property that is not known is the text "None"."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(100):
            group, atoms = file.create_group(f"config_batch_0/config_{number}"), 2 + number % 5
            group["atomic_numbers"] = random.integers(1, 9, atoms)
            group["positions"] = random.normal(size=(atoms, 3))
            group["config_type"] = "IsolatedAtom" if number < 5 else "Default"
            group["properties/energy"] = -3.2 * atoms
            group["properties/forces"] = random.normal(size=(atoms, 3))
            group["properties/stress"] = random.normal(size=(3, 3)) if number % 2 else "None"


def filled(sample: dict[str, Any]) -> dict[str, Any]:
    """A stress that is not known is zeros, with a weight that says so."""
    properties = sample["properties"]
    sample["has_stress"] = properties["stress"] != "None"
    if not sample["has_stress"]:
        properties["stress"] = torch.zeros(3, 3, dtype=torch.float64)
    return sample


def train(path: str) -> None:
    index = GlobalIndexManager(path, key="config_batch_*/config_*", sequences="match", window="all")
    print(f"{len(index)} configurations, sample 11 is {index.sequences.names[11]}")

    dataset = FileCacheDataset(index, transform=filled)
    sampler = ResumableDistributedSampler(dataset, seed=7)
    of_atoms = collate.concat(["atomic_numbers", "positions", "properties/forces"])
    model = torch.nn.Embedding(9, 1, dtype=torch.float64)
    for batch in DataLoader(dataset, batch_size=16, sampler=sampler, collate_fn=of_atoms):
        offsets, energies = batch["offsets"]["positions"], batch["properties"]["energy"]
        graph = torch.arange(len(energies)).repeat_interleave(offsets.diff())
        total = torch.zeros_like(energies).index_add(0, graph, model(batch["atomic_numbers"])[:, 0])
        (total - energies).square().mean().backward()
    print("positions", tuple(batch["positions"].shape), "offsets", offsets.tolist())
    print("stress", tuple(batch["properties"]["stress"].shape), "types", batch["config_type"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_configurations(f"{folder}/train.h5")
        train(f"{folder}/train.h5")
