"""Train on simulations as The Well and PDEBench write them: trajectories along axis 0 of an array, time along axis 1.

python examples/windows/the_well.py
"""

import tempfile

import h5py
import numpy as np
import torch

from globidx import DataLoader, FileCacheDataset, GlobalIndexManager, ResumableDistributedSampler, Window, orders

N_IN, N_OUT, DT_STRIDE = 4, 1, 1


def write_simulations(folder: str) -> None:
    """A file for each parameter: fields (trajectory, time, x, y, ...), and what all its trajectories share."""
    random, shape = np.random.default_rng(0), (6, 20, 16, 8)
    for rayleigh in (1e6, 1e7, 1e8):
        with h5py.File(f"{folder}/rayleigh_{rayleigh:.0e}.hdf5", "w") as file:
            buoyancy = random.random(shape, np.float32)
            file.create_dataset("t0_fields/buoyancy", data=buoyancy, chunks=(1, 5, 16, 8), compression="gzip")
            file["t1_fields/velocity"] = random.random((*shape, 2), np.float32)
            file["scalars/Rayleigh"] = rayleigh
            file["dimensions/time"] = np.arange(20.0)
            file["dimensions/x"], file["dimensions/y"] = np.linspace(0, 4, 16), np.linspace(0, 1, 8)


def train(folder: str) -> None:
    index = GlobalIndexManager(
        folder,
        key={"buoyancy": "t0_fields/buoyancy", "velocity": "t1_fields/velocity"},
        sequences="axis",
        window=Window(range(0, (N_IN + N_OUT) * DT_STRIDE, DT_STRIDE)),
        constants={"Rayleigh": "scalars/Rayleigh", "grid/x": "dimensions/x", "grid/y": "dimensions/y"},
    )
    print(f"{len(index)} windows in {len(index.sequences)} trajectories of {index.num_files} files")

    dataset = FileCacheDataset(index)
    sampler = ResumableDistributedSampler(dataset, seed=7, order=orders.ChunkShuffle(window=4))
    model = torch.nn.Conv2d(3 * N_IN, 3 * N_OUT, 3, padding=1)
    optimizer = torch.optim.AdamW(model.parameters())
    for batch in DataLoader(dataset, batch_size=16, sampler=sampler):
        steps = torch.cat([batch["buoyancy"][..., None], batch["velocity"]], -1)  # (batch, time, x, y, field)
        given, wanted = (part.movedim(-1, 2).flatten(1, 2) for part in steps.split([N_IN, N_OUT], 1))
        loss = (model(given) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("given", given.shape, "wanted", wanted.shape, "grid", batch["grid"]["x"].shape)
    print(f"{dataset.counters().decodes} chunks decoded, of {3 * 6 * 4}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_simulations(folder)
        train(folder)
